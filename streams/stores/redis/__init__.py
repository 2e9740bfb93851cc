"""Redis as the store."""
