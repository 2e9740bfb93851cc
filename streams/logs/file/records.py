"""The events of a table as records: columns for whoever looks at many together, a `Record` where one is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from engine.features.encoder import Features
from engine.types import Bool, Float64, Int64, Kind
from streams.events.columns import LazyRecords, RecordColumns, seconds_of
from streams.events.identity import identities_of, joined_task
from streams.events.record import ONLY, Place, Record
from streams.logs.file.tables import Row, Rows, Table, TableColumns

KINDS = tuple(Kind)  # a look-up costs a tenth of Kind(number)


@dataclass(frozen=True)
class TableEvents:
    """Two events for each of R rows: number r is the observation of row r, R + r its label."""

    table: Table
    columns: TableColumns
    early: Bool
    """[R] whether the label is dated before its observation, and takes its time."""
    latest_s: float
    """No event can take place after it."""

    def record(self, offset: int, kind: Kind, row: Row) -> Record:
        """One event as it came."""
        values, c = row.values, self.columns
        if row.fault is not None:
            return Record(offset, kind, None, None, None, line=row.line, raw=row.raw, fault=row.fault)
        task = values.get(c.task[0]) if len(c.task) == 1 else joined_task([values.get(n) for n in c.task])
        identity = row.number if c.id is None else values.get(c.id)
        latest_s, where = self.latest_s, (row.line, row.raw)
        if kind == Kind.OBSERVATION or c.label is None:
            time = values.get(c.time)
            return Record(offset, kind, task, identity, time, None, values, *where, latest_s=latest_s)
        early = self.early[row.number - 1]
        time = values.get(c.time if early else c.label_time or c.time)
        return Record(offset, kind, task, identity, time, values[c.label], None, *where, latest_s=latest_s)

    def split(self, numbers: Int64) -> tuple[Int64, Int64]:
        """[N] which kind of event each is, and of which row."""
        return np.divmod(numbers, len(self.early))

    def columns_of(self, numbers: Int64, offsets: Int64, features: Features) -> RecordColumns:
        """Events [N] by column."""
        (kind, row), c = self.split(numbers), self.columns
        needed, place = np.unique(
            row, return_inverse=True
        )  # an observation and its label are often neighbours
        rows, is_label, at = self.table.rows(needed), kind == Kind.LABEL, place.tolist()
        tasks = self._tasks(rows)
        ids = identities_of((needed + 1).tolist() if c.id is None else rows.values(c.id))
        labels = rows.values(c.label) if c.label else ()
        carries = rows.whole[place] & ~is_label
        zeros = np.zeros(len(at), np.int64)
        return RecordColumns(
            whole=rows.whole[place],
            kind=kind.astype(np.uint8),
            topic=zeros,
            partition=zeros,
            offset=offsets,
            task=[tasks[n] for n in at],
            id=[ids[n] for n in at],
            time_s=self._seconds(rows, place, is_label & ~self.early[row]),
            latest_s=np.full(len(at), self.latest_s),
            label=[labels[n] for n in place[is_label].tolist()],
            carries=carries,
            encoded=rows.encoded(features, place[carries]),
        )

    def _tasks(self, rows: Rows) -> Sequence[str | None]:
        """The task of each row as text; None, or an empty text, where it has none."""
        parts = [identities_of(rows.values(name)) for name in self.columns.task]
        if len(parts) == 1:
            return parts[0]
        together = [*zip(*parts, strict=True)]
        joined = {texts: joined_task(texts) for texts in set(together)}
        return [joined[texts] for texts in together]

    def _seconds(self, rows: Rows, place: Int64, at_own_time: Bool) -> Float64:
        """When events take place, labels that have a time of their own at that; NaN where it cannot be read."""
        times = seconds_of(rows.values(self.columns.time))[place]
        if self.columns.label_time is None:
            return times
        return np.where(at_own_time, seconds_of(rows.values(self.columns.label_time))[place], times)


class TableRecords(LazyRecords):
    """The N events of a table by number, and their offsets in the log."""

    def __init__(self, events: TableEvents, numbers: Int64, offsets: Int64) -> None:
        self._events, self._numbers, self._offsets = events, numbers, offsets

    def __len__(self) -> int:
        return len(self._numbers)

    def __iter__(self) -> Iterator[Record]:
        kinds, rows = self._events.split(self._numbers)
        needed, place = np.unique(rows, return_inverse=True)
        read = self._events.table.read(needed.tolist())
        for offset, kind, at in zip(self._offsets.tolist(), kinds.tolist(), place.tolist(), strict=True):
            yield self._events.record(offset, KINDS[kind], read[at])

    def backwards(self) -> Iterator[tuple[Place, int]]:
        """The offset of each, the last first."""
        return ((ONLY, int(offset)) for offset in reversed(self._offsets))

    def take(self, index: Int64) -> Self:
        """Some of them."""
        return type(self)(self._events, self._numbers[index], self._offsets[index])

    def ids(self) -> Sequence[Any]:
        """[N] the id of each as it came: the number of its row, from 1, where no column is named for it."""
        column = self._events.columns.id
        return (self._events.split(self._numbers)[1] + 1).tolist() if column is None else self.values(column)

    def values(self, name: str) -> Sequence[Any]:
        """[N] one field of each as it came; None where there is none."""
        needed, place = np.unique(self._events.split(self._numbers)[1], return_inverse=True)
        values = self._events.table.rows(needed).values(name)
        return [values[at] for at in place.tolist()]

    def columns(self, features: Features) -> RecordColumns:
        """What they hold, features encoded."""
        return self._events.columns_of(self._numbers, self._offsets, features)
