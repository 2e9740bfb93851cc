"""Which records are sound, looked at together: column by column where columns tell, else by themselves.

A record that does not fit its columns is read alone (`streams.events.reading`); that alone refuses, and says why.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import NamedTuple

import numpy as np

from engine.problem import Problem
from engine.types import Bool, Float32, Float64, Int64, UInt64
from streams.events.columns import RecordColumns, columns_of, taken
from streams.events.labels import labels_of
from streams.events.reading import LABEL, MAX_ID_BYTES, Event, Rejected, event_hash, read
from streams.events.record import Record

LONGEST_CHARACTER = 4
"""Bytes in UTF-8."""


@dataclass(frozen=True)
class Sound:
    """The S of N records that are sound, and the others."""

    columns: RecordColumns
    """Of all N."""
    index: Int64
    """[S] which are sound."""
    tasks: tuple[str, ...]
    """[U] in order of first appearance."""
    row: Int64
    """[S] whose each is."""
    id: UInt64
    """[S] hashed."""
    time_s: Float64
    y: Float32
    x: Float32
    """[S, own width] features in stored form, zeros where there are none."""
    has_x: Bool
    rejected: Sequence[Rejected]
    """In the order of the log."""


def sound_of(records: Sequence[Record], problem: Problem) -> Sound:
    """Check and encode records [N]; each comes back, as one that is sound or as `Rejected`."""
    columns = columns_of(records, problem.features)
    found = _by_column(columns, problem)
    rejected = _by_themselves(records, found, problem)
    (index,) = found.sound.nonzero()
    if len(index) < len(found.task):
        found = found.taken(index)
    tasks = found.task
    rows = dict(zip(dict.fromkeys(tasks), count(), strict=False))
    return Sound(
        columns=columns,
        index=index,
        row=np.fromiter(map(rows.__getitem__, tasks), np.int64, len(tasks)),
        tasks=tuple(task for task in rows if task is not None),
        id=found.id,
        time_s=found.time_s,
        y=found.y,
        x=found.x,
        has_x=found.has_x,
        rejected=rejected,
    )


class _Found(NamedTuple):
    """N records as events, as far as they are known to be `sound`."""

    sound: Bool
    task: list[str | None]
    id: UInt64
    time_s: Float64
    y: Float32
    x: Float32
    has_x: Bool

    def taken(self, index: Int64) -> _Found:
        """Some of them."""
        return _Found(
            self.sound[index], [self.task[n] for n in index.tolist()], self.id[index], self.time_s[index],
            self.y[index], self.x[index], self.has_x[index],
        )  # fmt: skip


def _by_column(columns: RecordColumns, problem: Problem) -> _Found:
    """What is sound by its columns alone."""
    y = np.zeros(len(columns.kind))
    y[columns.kind == LABEL] = labels_of(problem.target, columns.label)
    x = np.zeros((len(y), problem.features.width), np.float32)
    (carrying,) = columns.carries.nonzero()
    x[carrying] = columns.encoded.x
    tasks, ids = {*columns.task}, {*columns.id}
    named = {text for text in tasks if _utf8(text)}
    hashes = {text: event_hash(written) for text in ids if (written := _utf8(text))}
    sound = columns.whole & np.isfinite(columns.time_s) & ~(columns.time_s > columns.latest_s) & ~np.isnan(y)
    if len(named) < len(tasks):
        sound &= np.array([text in named for text in columns.task], np.bool_)
    if len(hashes) < len(ids):
        sound &= np.array([text in hashes for text in columns.id], np.bool_)
    sound[carrying[[*columns.encoded.faults]]] = False
    known = dict.fromkeys(ids, 0) | hashes
    identities = np.fromiter(map(known.__getitem__, columns.id), np.uint64, len(columns.id))
    time_s, has_x = columns.time_s.copy(), columns.carries.copy()
    return _Found(sound, [*columns.task], identities, time_s, y.astype(np.float32), x, has_x)


def _utf8(text: str | None) -> bytes:
    """An id as it is hashed; nothing where it has to be looked at by itself."""
    if type(text) is not str or len(text) > MAX_ID_BYTES // LONGEST_CHARACTER:
        return b""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return b""


def _by_themselves(records: Sequence[Record], found: _Found, problem: Problem) -> Sequence[Rejected]:
    """Read the records that are left one by one, and put those that are sound among what was found."""
    (left,) = (~found.sound).nonzero()
    if not len(left):
        return []
    one_by_one = read([*taken(records, left)], problem)
    for n, verdict in zip(left.tolist(), one_by_one.verdicts, strict=True):
        if isinstance(verdict, Event):
            found.sound[n] = True
            found.task[n], found.id[n], found.time_s[n], found.y[n] = verdict
    found.x[left], found.has_x[left] = one_by_one.x, one_by_one.has_x
    return one_by_one.rejected
