"""A table in a file as the log."""
