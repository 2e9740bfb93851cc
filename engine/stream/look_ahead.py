"""Every adaptation of a batch found ahead of time, so that all of them can run together in full blocks.

What a task adapts on is made of labels and does not depend on what was predicted. So the scan, run without
its detector over a copy of the rows, finds each adaptation that the batch brings, the support set it reads,
and which of them every later observation is to be served by. It knows the row as it will be at each event, so it
writes the task's history as well, before anything is predicted. One task with many events would otherwise
adapt alone, block after block. Only an alarm cuts a support set: from there on its task is on its own.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from engine.detectors import detectors
from engine.stream import scan, scan_arrays
from engine.stream.layout import Columns
from engine.stream.support import Support, joined, support_of
from engine.types import Int64

ROW = -1
"""In place of an adaptation's number: what the row holds already."""


class Ahead(NamedTuple):
    """The A adaptations of a batch of N events."""

    task: Int64
    """[A] row of the table; a task's adaptations follow each other in order."""
    support: Support
    """[A] what each reads."""
    serves: Int64
    """[N] the adaptation that serves each event, or ROW."""


def look_ahead(
    rows: Any,
    events: scan_arrays.Events,
    rules: scan_arrays.Rules,
    version: scan_arrays.Version,
    order: Int64,
    cursor: Int64,
    stop: Int64,
) -> Ahead | None:
    """Find the adaptations of a batch; None where there are none.

    Writes the history of each observation into its features, and changes nothing else that it is given.
    """
    rows, cursor = rows.copy(), cursor.copy()
    c = Columns(*(rows[name] for name in Columns._fields))
    out = scan_arrays.blank_results(len(events.kind), rules.outputs, events.x.shape[1])
    quiet = rules._replace(detector_kind=detectors.NEVER)
    latest = np.full(len(cursor), ROW)
    serves = np.full(len(events.kind), ROW)
    reason, last = np.zeros((2, len(cursor)), np.int64)
    tasks: list[Int64] = []
    sets: list[Support] = []
    while len(active := np.flatnonzero(cursor < stop)):
        before = cursor[active]
        scan.scan(c, events, out, quiet, version, active, order, cursor, stop, reason, last)
        serves[order[scan.runs(before, cursor[active])]] = np.repeat(latest[active], cursor[active] - before)
        due = active[reason[active] != scan_arrays.NOT_DUE]
        if len(due):
            c.adapted_through[due], c.adapted_counts[due] = c.seq[due], c.class_counts[due]
            latest[due] = sum(map(len, tasks)) + np.arange(len(due))
            tasks.append(due)
            sets.append(support_of(c, due, rules.balanced))
    return Ahead(np.concatenate(tasks), joined(sets), serves) if tasks else None
