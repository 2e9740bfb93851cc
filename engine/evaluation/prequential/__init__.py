"""Evaluation of a stream: each label against the prediction made before it was known."""
