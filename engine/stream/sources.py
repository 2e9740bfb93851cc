"""Where a task's events come from: each is folded once, in the order of one partition of one topic."""

from __future__ import annotations

from typing import Any

import numpy as np

from engine.compiled import compiled_as, strided
from engine.stream.scan_arrays import EVENTS_LAYOUT, Events
from engine.stream.table import TaskTable
from engine.types import Bool, EngineError


class SourceMoved(EngineError):
    """A task's events now come from another partition, or from a topic that was created anew."""


@compiled_as(EVENTS_LAYOUT, strided("int64"), strided("uint64"), strided("int64"), "boolean", "boolean[]")
def claim(e: Events, position: Any, incarnation: Any, partition: Any, follows: bool, fresh: Bool) -> int:
    """Write which events are `fresh` [N]: above their row's position; rows without a source are claimed by theirs.

    Returns the first event of another source than its row; N where there is none.
    """
    for n in range(len(e.row) if follows else 0):
        u, t = e.row[n], e.topic[n]
        if incarnation[u, t] != e.incarnation[n] or partition[u, t] != e.partition[n]:
            position[u, t] = 0
    for n in range(len(e.row)):
        u, t = e.row[n], e.topic[n]
        if position[u, t] == 0:
            incarnation[u, t], partition[u, t] = e.incarnation[n], e.partition[n]
    for n in range(len(e.row)):
        u, t = e.row[n], e.topic[n]
        if incarnation[u, t] != e.incarnation[n] or partition[u, t] != e.partition[n]:
            return n
        fresh[n] = e.offset[n] >= position[u, t]
    return len(e.row)


def not_folded_yet(states: TaskTable, events: Events, follows: bool) -> Bool:
    """Which events [N] lie above their row's position; rows without a source are claimed by their first event's.

    With `follows`, a row that was folded from another source goes on from this one, from its start.

    Raises:
        SourceMoved: an event is of another source than its row.

    """
    fresh, rows = np.zeros(len(events.row), np.bool_), states.rows
    moved = claim(events, rows["position"], rows["incarnation"], rows["partition"], follows, fresh)
    if moved < len(fresh):
        raise SourceMoved(_moved(states, events, moved))
    return fresh


def _moved(states: TaskTable, events: Events, n: int) -> str:
    """Why event `n` of another source is refused, and the way out."""
    at, rows = (events.row[n], events.topic[n]), states.rows
    incarnation, partition = int(events.incarnation[n]), int(events.partition[n])
    same = int(rows["incarnation"][at]) == incarnation
    what = "partition" if same else "incarnation (topic created anew, or file changed)"
    return (
        f"task {states.ids[at[0]]!r}: input topic {at[1]} was folded from partition {rows['partition'][at]} of "
        f"incarnation {rows['incarnation'][at]:x}, these events come from partition {partition} of "
        f"{incarnation:x}: another {what}; run `reptide rebuild` to make the rows anew from this log"
    )
