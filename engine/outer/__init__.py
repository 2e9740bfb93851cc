"""How the shared initialization moves."""
