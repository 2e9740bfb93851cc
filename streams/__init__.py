"""The running program: where events come from, where rows live, and everything between."""
