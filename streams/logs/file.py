"""A table in a file as an event log, replayed in event-time order.

A row is an observation and, where its label is not null, also a label event. At equal times
observations come before labels, and rows in their order in the file; without a label-time column a label
directly follows its own observation, and no label comes before its own. An event's offset is its rank in that
order, so offsets are dense and the same after a restart. A row that cannot be parsed is one event with a fault,
in the place of the row before it.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path

import numpy as np
import orjson

from engine.features import Features
from engine.types import Int64, Kind
from streams.errors import InputError
from streams.files import write_whole
from streams.identity import joined_task
from streams.logs.base import ONLY, Offsets, Polled, Record
from streams.logs.lines import open_csv, open_jsonl
from streams.logs.parquet import ParquetTable, parts_of
from streams.logs.placing import Placed, placed, suspicious
from streams.logs.tables import Row, Table, TableColumns

__all__ = ["FileLog", "TableColumns", "open_table"]

IDENTITY_BYTES = 65_536
"""How much of a file's start and end decides whether it is the same file."""

KINDS = tuple(Kind)  # a look-up costs a tenth of Kind(number)


class FileLog:
    """A CSV, JSONL or Parquet file as an `EventLog` of one topic and one partition.

    The committed position lies in the directory `state`; without one it is forgotten with the object.
    The log ends where the file ended when it was opened.

    Raises:
        InputError: there is no such file, its kind is unknown, or a column is missing.

    """

    def __init__(
        self, path: Path, columns: TableColumns, features: Features, state: Path | None = None
    ) -> None:
        self._path = path
        self._columns = columns
        self._table = open_table(path, columns, features)
        written_s = _written_s(path)
        clock = placed(self._table.clock(), written_s)
        self._rows = len(clock.times)
        self._early, self._latest_s = clock.early, clock.latest_s
        self._remarks = [*clock.remarks(), *suspicious(clock.times, written_s)]
        self._order = _event_order(clock, labels_follow=columns.label_time is None)
        self.incarnation = _incarnation(path, columns)
        """Another number where the file is another."""
        self._commits = None if state is None else state / "position.json"
        self._committed = self._read_committed()
        self._position = self._committed

    def poll(self, max_events: int, timeout_s: float = 0.0) -> list[Polled]:  # noqa: ARG002 - a file never grows
        """At most that many next records; nothing at the end."""
        position = self._position
        events = self._order[position : position + max_events]
        if not len(events):
            return []
        kinds, rows = np.divmod(events, self._rows)
        needed, place = np.unique(
            rows, return_inverse=True
        )  # an observation and its label are often neighbours
        read = self._table.read(needed.tolist())
        records = [
            self._record(offset, KINDS[kind], read[at])
            for offset, (kind, at) in enumerate(zip(kinds.tolist(), place.tolist(), strict=True), position)
        ]
        self._position += len(records)
        return [Polled(0, (self.incarnation,), position, records)]

    def _record(self, offset: int, kind: Kind, row: Row) -> Record:
        values, c = row.values, self._columns
        if row.fault is not None:
            return Record(offset, kind, None, None, None, line=row.line, raw=row.raw, fault=row.fault)
        task = values.get(c.task[0]) if len(c.task) == 1 else joined_task([values.get(n) for n in c.task])
        identity = row.number if c.id is None else values.get(c.id)
        latest_s, where = self._latest_s, (row.line, row.raw)
        if kind == Kind.OBSERVATION or c.label is None:
            time = values.get(c.time)
            return Record(offset, kind, task, identity, time, None, values, *where, latest_s=latest_s)
        early = self._early[row.number - 1]
        time = values.get(c.time if early else c.label_time or c.time)
        return Record(offset, kind, task, identity, time, values[c.label], None, *where, latest_s=latest_s)

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
        return self._committed

    def commit(self, offsets: Offsets) -> None:
        """Everything below this offset has taken effect; kept over a crash."""
        offset = offsets[ONLY]
        if self._commits is not None:
            content = {"incarnation": self.incarnation, "offset": offset}
            write_whole(self._commits, orjson.dumps(content))
        self._committed = offset

    def _read_committed(self) -> int:
        """Start anew where the position is lost: rows know what was folded into them."""
        try:
            content = orjson.loads(b"" if self._commits is None else self._commits.read_bytes())
            same = content["incarnation"] == self.incarnation
            return int(content["offset"]) if same else 0
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return 0

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


def _incarnation(path: Path, columns: TableColumns) -> int:
    """63 bits that change when the file, or what its columns mean, does: offsets hang on both."""
    digest = blake2b(repr((path.name, columns)).encode(), digest_size=8)
    for part in parts_of(path):
        size = part.stat().st_size
        digest.update(repr((part.name, size)).encode())
        with part.open("rb") as file:
            digest.update(file.read(IDENTITY_BYTES))
            file.seek(max(0, size - IDENTITY_BYTES))
            digest.update(file.read(IDENTITY_BYTES))
    return int.from_bytes(digest.digest(), "little") >> 1
