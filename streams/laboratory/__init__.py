"""Labelled examples of your own, from arrays, image folders or tables, and the episodes that are cut from them."""
