"""Text that compiled code lays out, which other threads need not wait for: numbers as JSON, and lines of them."""
