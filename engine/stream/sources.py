"""Where a task's events come from: each is folded once, in the order of one partition of one topic."""

from __future__ import annotations

from typing import Any

import numpy as np

from engine.stream.events import EventBatch
from engine.stream.table import TaskTable
from engine.types import Bool, EngineError


class SourceMoved(EngineError):
    """A task's events now come from another partition, or from a topic that was created anew."""


def not_folded_yet(states: TaskTable, rows: Any, events: EventBatch, follows: bool) -> Bool:
    """Which events [N] lie above their row's position; rows without a source are claimed by their first event's.

    With `follows`, a row that was folded from another source goes on from this one, from its start.

    Raises:
        SourceMoved: an event is of another source than its row.

    """
    at, position = (events.row, events.topic), rows["position"]
    if follows:
        known = (rows["incarnation"][at] == events.incarnation) & (rows["partition"][at] == events.partition)
        position[events.row[~known], events.topic[~known]] = 0
    unclaimed = position[at] == 0
    for name in ("incarnation", "partition"):
        given = getattr(events, name)
        rows[name][events.row[unclaimed], events.topic[unclaimed]] = given[unclaimed]
        moved = np.flatnonzero(rows[name][at] != given)
        if len(moved):
            raise SourceMoved(_moved(states, rows, events, int(moved[0])))
    return np.asarray(events.offset >= position[at])


def _moved(states: TaskTable, rows: Any, events: EventBatch, n: int) -> str:
    """Why event `n` of another source is refused, and the way out."""
    at = (events.row[n], events.topic[n])
    incarnation, partition = int(events.incarnation[n]), int(events.partition[n])
    same = int(rows["incarnation"][at]) == incarnation
    what = "partition" if same else "incarnation (topic created anew, or file changed)"
    return (
        f"task {states.ids[at[0]]!r}: input topic {at[1]} was folded from partition {rows['partition'][at]} of "
        f"incarnation {rows['incarnation'][at]:x}, these events come from partition {partition} of "
        f"{incarnation:x}: another {what}; run `reptide rebuild` to make the rows anew from this log"
    )
