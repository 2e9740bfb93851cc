"""Where a task's events come from: each is folded once, in the order of one partition of one topic."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from engine.compiled import compiled, compiled_as, vectors
from engine.located import LOCATED, Located
from engine.stream.layout import columns_at
from engine.stream.scan_arrays import EVENTS_LAYOUT, Events
from engine.stream.table import TaskTable
from engine.types import Bool, EngineError, Int64


class SourceMoved(EngineError):
    """A task's events now come from another partition, or from a topic that was created anew."""


class TakenUp(NamedTuple):
    """The events that are to be folded, of N of U tasks."""

    fresh: Bool
    """[N] whether an event lies above its row's position: of others nothing is folded."""
    order: Int64
    """[folded] those that do, by task; of each in log order."""
    cursor: Int64
    """[U] of task u they are order[cursor:stop]."""
    stop: Int64


@compiled
def is_elsewhere(c: Any, e: Any, n: int) -> bool:
    """Whether event n is of another source than its row was folded from."""
    u, t = e.row[n], e.topic[n]
    return bool(c.incarnation[u, t] != e.incarnation[n] or c.partition[u, t] != e.partition[n])


@compiled
def claim(c: Any, e: Any, follows: bool, fresh: Any) -> int:
    """Write which events are `fresh` [N]: above their row's position; rows without a source are claimed by theirs.

    Returns the first event of another source than its row; N where there is none.
    """
    for n in range(len(e.row) if follows else 0):
        if is_elsewhere(c, e, n):
            c.position[e.row[n], e.topic[n]] = 0
    for n in range(len(e.row)):
        u, t = e.row[n], e.topic[n]
        if c.position[u, t] == 0:
            c.incarnation[u, t], c.partition[u, t] = e.incarnation[n], e.partition[n]
    for n in range(len(e.row)):
        if is_elsewhere(c, e, n):
            return n
        fresh[n] = e.offset[n] >= c.position[e.row[n], e.topic[n]]
    return len(e.row)


@compiled
def by_task(row: Any, fresh: Any, order: Any, cursor: Any, stop: Any) -> int:
    """Sort the events that are `fresh` by task, as `TakenUp` says; returns how many are. `stop` comes in as zeros."""
    for n in range(len(row)):
        stop[row[n]] += fresh[n]
    begin = 0
    for u in range(len(stop)):
        cursor[u] = begin
        begin += stop[u]
        stop[u] = cursor[u]
    for n in range(len(row)):
        if fresh[n]:
            order[stop[row[n]]] = n
            stop[row[n]] += 1
    return begin


@compiled_as(LOCATED, EVENTS_LAYOUT, "boolean", "boolean[]", *vectors(3))
def claim_and_sort(
    located: Located, e: Events, follows: bool, fresh: Bool, order: Int64, cursor: Int64, stop: Int64
) -> tuple[int, int]:
    """Claim rows and sort what is fresh: the first event of another source than its row, and how many are fresh."""
    moved = claim(columns_at(located), e, follows, fresh)
    return moved, by_task(e.row, fresh, order, cursor, stop) if moved == len(e.row) else 0


def taken_up(states: TaskTable, events: Events, follows: bool) -> TakenUp:
    """What of events lies above their rows' positions; rows without a source are claimed by their first event's.

    With `follows`, a row that was folded from another source goes on from this one, from its start.

    Raises:
        SourceMoved: an event is of another source than its row.

    """
    count = len(events.row)
    fresh, order, (cursor, stop) = (
        np.zeros(count, np.bool_),
        np.empty(count, np.int64),
        np.zeros((2, len(states)), np.int64),
    )
    moved, folded = claim_and_sort(states.located, events, follows, fresh, order, cursor, stop)
    if moved < count:
        raise SourceMoved(_moved(states, events, moved))
    return TakenUp(fresh, order[:folded], cursor, stop)


def each_alone(events: Events) -> TakenUp:
    """All of the events, of which each task has one, in the order of the table: task u has events.row[u] = u."""
    order = events.row
    return TakenUp(events.has_x, order, order.copy(), order + 1)


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
