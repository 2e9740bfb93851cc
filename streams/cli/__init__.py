"""The command `reptide`: one module for each audience."""
