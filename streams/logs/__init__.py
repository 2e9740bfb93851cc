"""Where events come from and outcomes go."""
