"""Evaluation on episodes of tasks that none was trained on."""
