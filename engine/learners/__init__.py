"""How a task adapts and predicts."""
