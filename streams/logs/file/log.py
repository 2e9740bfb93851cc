"""A table in a file as an event log, replayed in event-time order.

A row is an observation and, where its label is not null, also a label event. At equal times
observations come before labels, and rows in their order in the file; without a label-time column a label
directly follows its own observation, and no label comes before its own. An event's offset is its rank in that
order, so offsets are dense and the same after a restart. A row that cannot be parsed is one event with a fault,
in the place of the row before it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from hashlib import blake2b
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import orjson

from engine.features.encoder import Features
from engine.types import Int64, Kind
from streams.errors import InputError
from streams.events.record import ONLY, Offsets, Polled, Record
from streams.events.wording import utc
from streams.logs.file.content import Content
from streams.logs.file.lines import open_csv, open_jsonl
from streams.logs.file.parquet import ParquetTable, parts_of
from streams.logs.file.placing import Placed, placed, suspicious
from streams.logs.file.position import (
    OWN_DIRECTORY,
    FilePosition,
    check_columns,
    check_content,
    read_position,
)
from streams.logs.file.records import TableEvents, TableRecords
from streams.logs.file.tables import Table, TableColumns

__all__ = ["FileLog", "TableColumns", "open_table"]

POSITION = "position.json"
AHEAD = 16_384
"""So many events further than was handed out is recorded as handed out, and not again for each batch."""


class FileLog:
    """A CSV, JSONL or Parquet file as an `EventLog` of one topic and one partition.

    The position lies in the directory `state`; without one it is forgotten with the object. The log ends where the
    file ended when it was opened; a file that grew since goes on where it was, if its new rows come later.

    Raises:
        InputError: there is no such file, its kind is unknown, or a column is missing; or it is not the file that was
            read before: no byte of `state` was touched.

    """

    def __init__(
        self, path: Path, columns: TableColumns, features: Features, state: Path | None = None
    ) -> None:
        self._path = path
        self._columns = columns
        self._table = open_table(path, columns, features)
        written_s = _written_s(path)
        clock = placed(self._table.clock(), written_s)
        self._events = TableEvents(self._table, columns, clock.early, clock.latest_s)
        self._rows = len(clock.times)
        self._untrue = clock.untrue
        self._remarks = [*self._table.remarks(), *clock.remarks(), *suspicious(clock.times, written_s)]
        self._order = _event_order(clock, labels_follow=columns.label_time is None)
        self._commits = None if state is None else state / POSITION
        self._digested = 0, blake2b(digest_size=8)
        self._keeping = Lock()
        self._kept = self._kept_before(clock)
        self._position = self._kept.offset

    @property
    def incarnation(self) -> int:
        """Another number where the file is another."""
        return self._kept.incarnation

    @property
    def content(self) -> Content:
        """What the file holds now."""
        return self._kept.content

    @property
    def is_begun(self) -> bool:
        """Whether an event was ever handed out."""
        return self._kept.through > 0

    def poll(self, max_events: int, timeout_s: float = 0.0) -> list[Polled]:  # noqa: ARG002 - a file never grows
        """At most that many next records; nothing at the end."""
        position = self._position
        numbers = self._order[position : position + max_events]
        if not len(numbers):
            return []
        self._position = position + len(numbers)
        self._hand_out(self._position)
        records = TableRecords(self._events, numbers, np.arange(position, self._position))
        return [Polled(0, (self.incarnation,), position, records)]

    def position(self) -> int:
        """Offset of the next record to poll."""
        return self._position

    def seek(self, offset: int) -> None:
        """Poll from here on.

        Raises:
            InputError: the log has no such offset.

        """
        if not 0 <= offset <= len(self._order):
            raise InputError(f"{self._path}: no offset {offset}, the log ends at {len(self._order)}")
        self._position = offset

    def committed(self) -> int:
        """Where a new reader starts: 0 where nothing was committed, or was of another file."""
        return self._kept.offset

    def commit(self, offsets: Offsets) -> None:
        """Everything below this offset has taken effect; kept over a crash. Another thread may poll meanwhile."""
        with self._keeping:
            self._keep(offsets[ONLY], offsets[ONLY])

    def _kept_before(self, clock: Placed) -> FilePosition:
        """Where it was read to, checked against the file as it is; the start where nothing was handed out."""
        columns = orjson.loads(orjson.dumps(asdict(self._columns)))
        before = None if self._commits is None else read_position(self._commits)
        if self._commits is None or before is None or not before.through:
            now = self._table.content(0)[1]
            return FilePosition(self._first_incarnation(columns), columns, self._rows, now)
        check_columns(before, columns, self._commits.parent)
        start, now = self._table.content(before.content.extent)
        check_content(before, start, now, self._path)
        if self._digest(before.through) != before.order:
            raise InputError(self._out_of_order(before, clock))
        return replace(before, rows=self._rows, content=now)

    def _first_incarnation(self, columns: dict[str, Any]) -> int:
        """63 bits of the first row and of what the columns mean: the same however far the file has grown."""
        first = self._table.read([0])[0] if self._rows else None
        row = None if first is None else first.raw or sorted(first.values.items())
        digest = blake2b(repr((columns, row)).encode(), digest_size=8)
        return int.from_bytes(digest.digest(), "little") >> 1

    def _out_of_order(self, before: FilePosition, clock: Placed) -> str:
        """Why offsets would mean other events, in a sentence."""
        kinds, rows = np.divmod(self._order, self._rows)
        earlier = np.flatnonzero(rows[: before.through] >= before.rows)
        if not len(earlier):
            return (
                f"{self._path}: its events come in another order than when they were streamed, or times that were "
                "refused then as of the future, or not, would be taken otherwise now that it was written later; put "
                f"it back as it was, its time of modification too, or {OWN_DIRECTORY}"
            )
        row = self._table.read([int(rows[earlier[0]])])[0]
        known = np.flatnonzero(rows < before.rows)[: before.through]
        last = known[-1]
        latest_s = (clock.label_times if kinds[last] else clock.times)[rows[last]]
        return (
            f"{self._path}, {self._table.unit} {row.line}: a new row takes place before events that were streamed "
            f"already, the last of them at {utc(float(latest_s))}; add rows that come after it alone, or "
            f"{OWN_DIRECTORY}"
        )

    def _hand_out(self, through: int) -> None:
        """Record that events below an offset may take effect, before any does."""
        with self._keeping:
            if self._commits is not None and through > self._kept.through:
                self._keep(self._kept.offset, through)

    def _keep(self, offset: int, through: int) -> None:
        """Keep both over a crash; `through` looks ahead, so that a batch seldom needs a write of its own."""
        ahead = max(self._kept.through, min(len(self._order), through + AHEAD))
        self._kept = replace(self._kept, offset=offset, through=ahead)
        if self._commits is not None:
            self._kept = replace(self._kept, order=self._digest(ahead))
            self._kept.write(self._commits)

    def _digest(self, through: int) -> str:
        """What each offset below one is, and whether its time was believed, as a digest; each is taken in once."""
        done, digest = self._digested
        kinds, rows = np.divmod(self._order[done:through], max(self._rows, 1))
        taken = 2 * rows + self._untrue[kinds, rows]
        digest.update(np.where(kinds == Kind.OBSERVATION, taken, ~taken).astype("<i8").tobytes())
        self._digested = max(done, through), digest
        return digest.hexdigest()

    def stop_at(self, offset: int) -> None:
        """Let the log end before this offset: nothing from there on is ever handed out."""
        self._order = self._order[:offset]

    def end(self) -> int:
        """Offset after the last record."""
        return len(self._order)

    def order(self) -> Int64:
        """[E] what each offset is: `r` the observation of row r, counted from 0, `~r` its label."""
        kinds, rows = np.divmod(self._order, self._rows)
        return np.where(kinds == Kind.OBSERVATION, rows, ~rows)

    def remarks(self) -> list[str]:
        """What was done with rows that are no fault but deserve a word, in sentences."""
        return self._remarks

    def origin(self, record: Record) -> str:
        """File and line (or row) of a record."""
        return f"{self._path}, {self._table.unit} {record.line}"


def open_table(path: Path, columns: TableColumns, features: Features) -> Table:
    """Open a table by its suffix; a folder is one of Parquet files."""
    kinds: dict[str, Callable[[Path, TableColumns, Features], Table]] = {
        ".csv": open_csv,
        ".jsonl": open_jsonl,
        ".parquet": ParquetTable,
    }
    kind = ".parquet" if path.is_dir() else path.suffix.lower()
    if kind not in kinds:
        known = ", ".join(kinds)
        raise InputError(
            f"{path}: unknown kind of file, expected one of {known}, unpacked, or a folder of .parquet files"
        )
    if not path.exists():
        raise InputError(f"{path}: there is no such file")
    return kinds[kind](path, columns, features)


def _event_order(clock: Placed, *, labels_follow: bool) -> Int64:
    """Put the events of R rows in log order: r is the observation of row r, R + r its label."""
    if labels_follow:
        rows = np.argsort(clock.times, kind="stable")
        pairs = np.stack([rows, rows + len(rows)], axis=1)
        return np.asarray(pairs[np.stack([rows >= 0, ~np.isnan(clock.label_times[rows])], axis=1)])
    # Observations stand first, so that a stable sort leaves them first at equal times; NaN sorts last.
    order = np.argsort(np.concatenate([clock.times, clock.label_times]), kind="stable")
    return order[: len(order) - np.isnan(clock.label_times).sum()].copy()


def _written_s(path: Path) -> float:
    return max(part.stat().st_mtime for part in parts_of(path))
