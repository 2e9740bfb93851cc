"""Why events are refused, and the way out of each reason."""

from __future__ import annotations

WAYS_OUT = {
    "malformed": "mend or remove such lines",
    "too_large": "remove such events",
    "missing_task": "fill the columns of input.task, or name others",
    "bad_task": "name columns of text or whole numbers in input.task",
    "missing_id": "fill the column input.id, or leave input.id out",
    "bad_id": "name a column of text or whole numbers in input.id",
    "bad_time": "write times in seconds since the epoch, or as 2024-01-31T12:00:00",
    "bad_feature": "mend the column, set optional = true for a number that may be missing, or choose another encoder",
    "unknown_class": "name every class in target.classes, spelled as in the table",
    "bad_label": "leave a label empty where there is none, and name numbers only in target.low and high",
}
"""What to do about events that are refused, by reason."""
