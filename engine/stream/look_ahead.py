"""Every adaptation of a batch found ahead of time, so that all of them can run together.

What a task adapts on is made of labels and does not depend on what was predicted. So the scan, run without hedge and
detector over a copy of the rows, finds each adaptation that the batch brings, the support set it reads, and which
of them every later observation is to be served by. It knows the row as it will be at each event, so it
writes the task's history as well, before anything is predicted. One task with many events would otherwise
adapt alone, block after block. Only an alarm cuts a support set: from there its task is looked ahead again.

A task with one event has nothing ahead of it: it is left out, and no row is copied for it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from engine.detectors import detectors
from engine.stream import scan, scan_arrays
from engine.stream.layout import Layout
from engine.stream.support import ROW, Left, Support, episodes_of, room_for, weighed
from engine.stream.table import taken
from engine.types import Bool, Episode, Float32, Int64

EARLY = np.array([1, 2, 4, 8])
"""Labels at which a task adapts beside every n-th."""


class Ahead(NamedTuple):
    """The A adaptations of some tasks; those of each follow each other."""

    left: Left
    first: Support
    """What tasks had adapted on before,"""
    due: Support
    """[A] and what they adapt on."""
    begin: Int64
    """[tasks] the first adaptation of each."""
    serves: Int64
    """[N] the adaptation that serves each event, or ROW."""


class Foreseen(NamedTuple):
    """Adaptations found ahead, and run."""

    ahead: Ahead
    values: Float32
    """[A, F] fast parameters."""
    unsound: Int64
    """[A + 1] how many of the first n were not finite."""

    def episodes(self, tasks: Bool, taken: Int64) -> list[Episode]:
        """What the adaptations left that some tasks [U] have come to: of each those before number taken[u]."""
        left, first, due = self.ahead[:3]
        task = left.task[: len(self.values)]
        come = (np.arange(len(task)) < taken[task]) & tasks[task]
        return episodes_of(left, first, due, np.flatnonzero(come).tolist())


def foreseen(ahead: Ahead, values: Float32, fast: Float32) -> Foreseen:
    """What was found ahead with its fast parameters; what is not finite keeps those before, or of the row [U, F]."""
    task, broken = ahead.left.task, ~np.isfinite(values).all(axis=1)
    for n in np.flatnonzero(broken).tolist():
        values[n] = values[n - 1] if n and task[n] == task[n - 1] else fast[task[n]]
    return Foreseen(ahead, values, np.concatenate([[0], np.cumsum(broken)]))


def look_ahead(
    layout: Layout,
    rows: Any,
    events: scan_arrays.Events,
    out: scan_arrays.Results,
    rules: scan_arrays.Rules,
    version: scan_arrays.Version,
    tasks: Int64,
    order: Int64,
    cursor: Int64,
    stop: Int64,
) -> Ahead:
    """Find the adaptations of some tasks of a batch, of each those before its event order[stop].

    Writes the history of each observation into its features, and to `out` what the fold will write again.
    """
    cursor, stop = cursor[tasks], stop[tasks]
    rows = taken(rows, tasks)
    labels = np.concatenate([[0], np.cumsum(events.kind[order] == scan_arrays.LABEL)])
    left = room_for(most(rows["seq"], labels[stop] - labels[cursor], rules.every), len(tasks), rows)
    work = scan_arrays.Work(
        looks_ahead=True,
        foreseen=np.ones(len(tasks), np.bool_),
        number=np.full(len(tasks), ROW),
        serves=np.full(len(events.kind), ROW),
        present=np.empty(rules.outputs, np.int64),
        left=left,
    )
    quiet = rules._replace(detector_kind=detectors.NEVER, hedges=False)
    reason, last = np.empty((2, len(tasks)), np.int64)
    scan.scan(
        layout.located(rows), events, out, quiet, version, work, np.arange(len(tasks)), order, cursor, stop, reason,
        last,
    )  # fmt: skip
    count, before = left.number.tolist()
    begin = np.searchsorted(left.task[:count], np.arange(len(tasks)))
    left.task[:count] = tasks[left.task[:count]]
    slots = rows.dtype["support_seq"].shape[0]
    first = weighed(left.first, before, slots, rules.balanced)
    due = weighed(left.due, count, slots, rules.balanced)
    return Ahead(left, first, due, begin, work.serves)


def most(seq: Int64, labels: Int64, every: int) -> int:
    """How many adaptations tasks come to at most, of label counts `seq` [U] before so many labels each."""
    after = seq + labels
    early = (seq[:, None] < EARLY) & (after[:, None] >= EARLY)
    return int((after // every - seq // every + early.sum(axis=1)).sum())
