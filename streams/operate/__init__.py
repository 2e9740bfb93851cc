"""What an operator does to a stream: look at it, forget, snapshot and restore, send events, follow and redrive."""
