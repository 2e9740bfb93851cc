"""Labelled examples of your own, from arrays, image folders or tables, and the episodes that are cut from them."""

EPISODES = 600
"""Held-out episodes of an evaluation, for each number of shots."""
