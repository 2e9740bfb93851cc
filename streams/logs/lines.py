"""CSV and JSONL files as tables: one row a line, parsed on demand from a memory map.

Only where the lines start stays in memory, 16 bytes a row. A quoted CSV cell (RFC 4180) may hold commas
and quotes; one that holds a line break is a fault on each of its lines.
"""

from __future__ import annotations

import csv
import mmap
from array import array
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from engine.features import Cyclic, Features, Numeric
from streams.errors import InputError
from streams.logs.tables import Clock, Row, TableColumns, moments, placed, require, required
from streams.wire import MAX_RECORD_BYTES

BYTE_ORDER_MARK = b"\xef\xbb\xbf"

Parse = Callable[[bytes], Mapping[str, Any]]
"""The values of a line by column; raises ValueError or csv.Error."""


def open_csv(path: Path, columns: TableColumns, features: Features) -> TextTable:
    """Open a file of comma-separated cells whose first line names the columns."""
    lines = _Lines(path)
    try:
        header = _cells(lines.text(0)) if lines else []
    except (ValueError, csv.Error) as error:
        raise InputError(f"{path}: the header cannot be read: {error}") from error
    if len(set(header)) < len(header):
        raise InputError(f"{path}: the header names a column twice: {', '.join(header)}")
    require(path, required(columns, features), header)
    lines.drop_first()
    return TextTable(path, lines, _csv_parser(header, columns, features), columns, needed=())


def open_jsonl(path: Path, columns: TableColumns, features: Features) -> TextTable:
    """Open a file of one JSON object a line."""
    return TextTable(path, _Lines(path), _parse_json, columns, required(columns, features))


class _Lines:
    """The lines of a file that are not blank, behind a memory map.

    The file must not be cut short while it is open: reading a map past the end of its file ends the process.
    """

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            empty = path.stat().st_size == 0
            self._bytes = b"" if empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._starts, self._numbers = _line_starts(self._bytes)

    def __len__(self) -> int:
        return len(self._starts)

    def drop_first(self) -> None:
        """Forget the header."""
        del self._starts[:1], self._numbers[:1]

    def number(self, index: int) -> int:
        """Which line of the file it is, from 1."""
        return self._numbers[index]

    def text(self, index: int) -> bytes:
        """Read a line without its end; of one that is too long, one byte more than may be."""
        start = self._starts[index]
        limit = start + MAX_RECORD_BYTES + 1
        end = self._bytes.find(b"\n", start, limit)
        return self._bytes[start : limit if end < 0 else end].rstrip(b"\r")


def _line_starts(content: bytes | mmap.mmap) -> tuple[array[int], array[int]]:
    """Where the lines that are not blank start, and which lines they are."""
    starts, numbers = array("q"), array("q")
    start = len(BYTE_ORDER_MARK) if content[:3] == BYTE_ORDER_MARK else 0
    number = 0
    while start < len(content):
        number += 1
        end = content.find(b"\n", start) + 1 or len(content)
        if content[start] > ord(" ") or content[start:end].strip():
            starts.append(start)
            numbers.append(number)
        start = end
    return starts, numbers


class TextTable:
    """A file of one row a line."""

    unit = "line"

    def __init__(
        self, path: Path, lines: _Lines, parse: Parse, columns: TableColumns, needed: Collection[str]
    ) -> None:
        self._path = path
        self._lines = lines
        self._parse = parse
        self._columns = columns
        self._needed = needed

    def clock(self) -> Clock:
        """Read every line once; a required column may be missing in any line, but not in all."""
        times, label_times = array("d"), array("d")
        missing = set(self._needed)
        parsed: Mapping[str, Any] = {}
        for index in range(len(self._lines)):
            row = self._row(index)
            if missing and row.values:
                missing.difference_update(row.values)
                parsed = row.values
            time, label_time = moments(row.values, self._columns)
            times.append(time)
            label_times.append(label_time)
        if parsed:
            require(self._path, sorted(missing), parsed)
        return placed(np.array(times), np.array(label_times))

    def read(self, indexes: Sequence[int]) -> list[Row]:
        """Parse lines again; a label next to its own observation shares the parsed line."""
        rows: list[Row] = []
        for index in indexes:
            again = bool(rows) and rows[-1].number == index + 1
            rows.append(rows[-1] if again else self._row(index))
        return rows

    def _row(self, index: int) -> Row:
        raw, line = self._lines.text(index), self._lines.number(index)
        if len(raw) > MAX_RECORD_BYTES:
            return Row(line, index + 1, {}, raw, f"longer than {MAX_RECORD_BYTES} bytes")
        try:
            return Row(line, index + 1, self._parse(raw), raw)
        except (ValueError, csv.Error) as error:
            return Row(line, index + 1, {}, raw, str(error))


def _parse_json(line: bytes) -> Mapping[str, Any]:
    value = orjson.loads(line)
    if not isinstance(value, dict):
        raise ValueError(f"expected a JSON object, got {type(value).__name__}")
    return value


def _cells(line: bytes) -> list[str]:
    text = line.decode()
    # The csv module takes a line apart five times slower, and differs only where there is one of these.
    if '"' in text or "\r" in text:
        return next(csv.reader([text], strict=True))
    return text.split(",")


def _csv_parser(header: Sequence[str], columns: TableColumns, features: Features) -> Parse:
    """Build what reads the columns that are used; an empty cell is absent, a numeric one a float."""
    numeric = {c.name for c in features.columns if isinstance(c, Numeric | Cyclic)}
    used = features.names | set(columns.names())
    plan = [(i, name, name in numeric) for i, name in enumerate(header) if name in used]

    def parse(line: bytes) -> Mapping[str, Any]:
        """The cells of one line that are used, by column; refuses a line of another length than the header's."""
        cells = _cells(line)
        if len(cells) != len(header):
            raise ValueError(f"{len(cells)} cells, the header has {len(header)}")
        return {name: _cell_number(cells[i]) if number else cells[i] for i, name, number in plan if cells[i]}

    return parse


def _cell_number(cell: str) -> float | str:
    """Read a cell as a number; the encoder refuses the text of one that is none."""
    try:
        return float(cell)
    except ValueError:
        return cell
