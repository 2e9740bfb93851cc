"""The default network's inner loop and predictions as machine code, row by row and task by task."""
