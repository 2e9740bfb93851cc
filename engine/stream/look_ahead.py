"""Every adaptation of a batch found ahead of time, so that all of them can run together in full blocks.

What a task adapts on is made of labels and does not depend on what was predicted. So the scan, run without
its detector over a copy of the rows, finds each adaptation that the batch brings, the support set it reads,
and which of them every later observation is to be served by. It knows the row as it will be at each event, so it
writes the task's history as well, before anything is predicted. One task with many events would otherwise
adapt alone, block after block. Only an alarm cuts a support set: from there on its task is on its own.

A task with one event has nothing ahead of it: it is left out, and no row is copied for it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from engine.detectors import detectors
from engine.stream import scan, scan_arrays
from engine.stream.support import Support, joined, support_of
from engine.stream.table import columns_of, taken
from engine.types import Int64

ROW = -1
"""In place of an adaptation's number: what the row holds already."""


class Ahead(NamedTuple):
    """The A adaptations of a batch of N events."""

    task: Int64
    """[A] row of the table; a task's adaptations follow each other in order."""
    support: Support | None
    """[A] what each reads; None where that is not asked for."""
    serves: Int64
    """[N] the adaptation that serves each event, or ROW."""


def look_ahead(
    rows: Any,
    events: scan_arrays.Events,
    rules: scan_arrays.Rules,
    version: scan_arrays.Version,
    tasks: Int64,
    order: Int64,
    cursor: Int64,
    stop: Int64,
    reads: bool,
) -> Ahead:
    """Find the adaptations of some tasks of a batch, and what they read, if `reads`.

    Writes the history of each observation into its features, and changes nothing else that it is given.
    """
    cursor, stop = cursor[tasks], stop[tasks]
    rows = taken(rows, np.append(tasks, tasks[0]))  # one more, as in `FoldInProgress`
    c = columns_of(rows)
    out = scan_arrays.blank_results(len(events.kind), rules.outputs, events.x.shape[1])
    quiet = rules._replace(detector_kind=detectors.NEVER)
    latest = np.full(len(tasks), ROW)
    serves = np.full(len(events.kind), ROW)
    reason, last = np.zeros((2, len(tasks)), np.int64)
    adapting: list[Int64] = []
    sets: list[Support] = []
    while len(active := np.flatnonzero(cursor < stop)):
        before = cursor[active]
        scan.scan(c, events, out, quiet, version, active, order, cursor, stop, reason, last)
        serves[order[scan.runs(before, cursor[active])]] = np.repeat(latest[active], cursor[active] - before)
        due = active[reason[active] != scan_arrays.NOT_DUE]
        if len(due):
            c.adapted_through[due], c.adapted_counts[due] = c.seq[due], c.class_counts[due]
            latest[due] = sum(map(len, adapting)) + np.arange(len(due))
            adapting.append(due)
            if reads:
                sets.append(support_of(c, due, rules.balanced))
    return Ahead(tasks[np.concatenate([tasks[:0], *adapting])], joined(sets) if sets else None, serves)
