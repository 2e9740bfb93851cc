"""The fold: events and rows in, outcomes and new rows out."""
