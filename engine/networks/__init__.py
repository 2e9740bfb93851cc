"""Networks that the settings can name."""
