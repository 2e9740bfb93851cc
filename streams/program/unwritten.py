"""A batch that is folded and not written yet, and the rows that the next one is folded onto meanwhile."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from engine.stream.in_progress import Folded
from engine.stream.layout import Layout
from engine.stream.table import TaskTable, in_one_piece
from engine.types import Int64, Meta, Outcome
from streams.events.decoding import Decoded
from streams.events.reading import Rejected
from streams.stores.base import RecordStore


@dataclass(frozen=True)
class Unwritten:
    """A batch that is folded; nothing that comes of it is written yet."""

    part: Decoded
    """What was folded."""
    rejected: Sequence[Rejected]
    """What was not."""
    forgets: Set[str]
    """Tasks to be forgotten once it is written."""
    meta: Meta
    """What it was folded under."""
    folded: Folded
    changed: Int64
    """[C] tasks whose rows are to be written."""
    states: TaskTable
    """[C] those."""
    revision: Int64
    """[C] of each once it is written."""

    @cached_property
    def place(self) -> dict[str, int]:
        """Where the row of each task lies in `states`."""
        return {task: u for u, task in enumerate(self.states.ids)}


def unwritten(
    part: Decoded, rejected: Sequence[Rejected], forgets: Set[str], meta: Meta, folded: Folded
) -> Unwritten:
    """What a fold came to."""
    changed = np.unique(part.events.row[folded.outcomes.code != Outcome.DUPLICATE])
    states = folded.states if len(changed) == len(folded.states) else folded.states.take(changed)
    return Unwritten(part, rejected, forgets, meta, folded, changed, states, states.rows["revision"] + 1)


def loaded(store: RecordStore, layout: Layout, tasks: Sequence[str], behind: Unwritten | None) -> TaskTable:
    """The rows of tasks as they are once `behind` is written, which another thread may be about.

    Raises as `store.load`.
    """
    if behind is None:
        return store.load(layout, tasks)
    others = store.load(layout, [task for task in tasks if task not in behind.place])
    known = {*others.ids} | behind.place.keys()
    ids = [task for task in tasks if task in known]
    rows = np.empty(len(ids), layout.dtype)
    place = np.array([behind.place.get(task, -1) for task in ids], np.int64)
    is_behind = place >= 0
    # Sealing changes revision and checksum of a row in place while it is copied here: nothing reads either as copied.
    in_one_piece(rows)[is_behind] = in_one_piece(behind.states.rows)[place[is_behind]]
    in_one_piece(rows)[~is_behind] = in_one_piece(others.rows)
    rows["revision"][is_behind] = behind.revision[place[is_behind]]
    return TaskTable(layout, tuple(ids), rows)
