"""CSV and JSONL files as tables: one row a record, parsed on demand from a memory map.

A record of JSONL is a line; one of CSV (RFC 4180) may hold line breaks, commas and quotes in its quoted cells.
"""

from __future__ import annotations

import csv
from array import array
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from engine.features.columns import Cyclic, Encoded, Numeric
from engine.features.encoder import Features
from engine.types import Int64
from streams.errors import InputError
from streams.events.numbers import number_of
from streams.events.reading import MAX_RECORD_BYTES
from streams.events.wording import shown
from streams.logs.file.content import Content, text_content
from streams.logs.file.tables import Clock, Row, TableColumns, moments, require, required
from streams.logs.file.text_records import TextRecords

NOT_A_NUMBER = {"nan": nan, "NaN": nan}
"""How numpy, pandas and polars write a number that is missing."""

SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}

LONE_CR = "a carriage return (CR) without a line feed: end every line in LF, or in CR and LF"

csv.field_size_limit(MAX_RECORD_BYTES)  # of the process: Python's own limit is an eighth of ours

Parse = Callable[[bytes], Mapping[str, Any]]
"""The values of a record by column; raises ValueError."""


def open_csv(path: Path, columns: TableColumns, features: Features) -> TextTable:
    """Open a file of comma-separated cells whose first record names the columns."""
    records = TextRecords(path, quoted=True)
    header = _header(path, records)
    require(path, required(columns, features), header)
    records.drop_first()
    return TextTable(path, records, _csv_parser(header, columns, features), columns, needed=())


def _header(path: Path, records: TextRecords) -> list[str]:
    if not len(records):
        raise InputError(f"{path}: the file is empty: its first line has to name the columns")
    try:
        header = _cells(records.text(0))
    except ValueError as error:
        raise InputError(
            f"{path}: the header cannot be read: {error}; save the table as CSV in UTF-8, not packed"
        ) from error
    if len(set(header)) < len(header):
        raise InputError(f"{path}: the header names a column twice: {', '.join(header)}")
    if len(header) == 1 and (other := [name for sign, name in SEPARATORS.items() if sign in header[0]]):
        raise InputError(
            f"{path}: the header {shown(header[0])} is one cell: separate cells by commas, not {other[0]}"
        )
    return header


def open_jsonl(path: Path, columns: TableColumns, features: Features) -> TextTable:
    """Open a file of one JSON object a line."""
    records = TextRecords(path, quoted=False)
    return TextTable(path, records, _parse_json, columns, required(columns, features))


class TextTable:
    """A file of one row a record; a row's line is that which its record begins in."""

    unit = "line"

    def __init__(
        self, path: Path, records: TextRecords, parse: Parse, columns: TableColumns, needed: Collection[str]
    ) -> None:
        self._path = path
        self._records = records
        self._parse = parse
        self._columns = columns
        self._needed = needed

    def clock(self) -> Clock:
        """Read every record once; a required column may be missing in any, but not in all."""
        times, label_times = array("d"), array("d")
        missing = set(self._needed)
        parsed: Mapping[str, Any] = {}
        for index in range(len(self._records)):
            row = self._row(index)
            if missing and row.values:
                missing.difference_update(row.values)
                parsed = row.values
            time, label_time = moments(row.values, self._columns)
            times.append(time)
            label_times.append(label_time)
        if parsed:
            require(self._path, sorted(missing), parsed)
        return Clock(np.array(times), np.array(label_times))

    def read(self, indexes: Sequence[int]) -> list[Row]:
        """Parse records again; a label next to its own observation shares the parsed record."""
        rows: list[Row] = []
        for index in indexes:
            again = bool(rows) and rows[-1].number == index + 1
            rows.append(rows[-1] if again else self._row(index))
        return rows

    def rows(self, indexes: Int64) -> ParsedRows:
        """Parse records again."""
        return ParsedRows([self._row(index) for index in indexes.tolist()])

    def remarks(self) -> Iterator[str]:
        """What a user should know of how it was read, in sentences."""
        if len(self._records) and not self._records.ends_whole:
            yield (
                f"the last row of {self._path} has no line break at its end, and is read as it stands: where the "
                "file is still being written, let whole lines alone be there"
            )

    def content(self, known: int) -> tuple[Content | None, Content]:
        """What the file holds up to a size that it once had, None where it cannot have had it; and all of it."""
        return text_content(self._path, known, self._records.size)

    def _row(self, index: int) -> Row:
        raw, line = self._records.text(index), self._records.line(index)
        if len(raw) > MAX_RECORD_BYTES:
            return Row(line, index + 1, {}, raw, f"longer than {MAX_RECORD_BYTES} bytes")
        try:
            return Row(line, index + 1, self._parse(raw), raw)
        except ValueError as error:
            return Row(line, index + 1, {}, raw, str(error))


class ParsedRows:
    """Some rows of a text."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = rows
        self.whole = np.array([row.fault is None for row in rows], np.bool_)

    def values(self, name: str) -> Sequence[Any]:
        """One column; None where a cell is empty or a member is not there."""
        return [row.values.get(name) for row in self._rows]

    def encoded(self, features: Features, index: Int64) -> Encoded:
        """The features of some of them."""
        return features.encode([self._rows[n].values for n in index.tolist()])


def _parse_json(line: bytes) -> Mapping[str, Any]:
    try:
        value = orjson.loads(line)
    except ValueError as error:
        raise ValueError(LONE_CR if b"\r" in line else str(error)) from error
    if not isinstance(value, dict):
        raise ValueError(f"expected a JSON object, got {type(value).__name__}")
    return value


def _cells(record: bytes) -> list[str]:
    text = record.decode()
    # The csv module takes a line apart five times slower, and differs only where there is one of these.
    if '"' in text or "\r" in text:
        try:
            return next(csv.reader([text], strict=True))
        except csv.Error as error:
            raise ValueError(LONE_CR if str(error).startswith("new-line") else str(error)) from error
    return text.split(",")


def _csv_parser(header: Sequence[str], columns: TableColumns, features: Features) -> Parse:
    """Build what reads the columns that are used; an empty cell is absent, a numeric one a float."""
    numeric = {c.name for c in features.columns if isinstance(c, Numeric | Cyclic)}
    used = features.names | set(columns.names())
    plan = [(i, name, name in numeric) for i, name in enumerate(header) if name in used]

    def parse(record: bytes) -> Mapping[str, Any]:
        """The cells of a record that are used, by column; refuses one of another length than the header's."""
        cells = _cells(record)
        if len(cells) != len(header):
            raise ValueError(f"{len(cells)} cells, the header has {len(header)}")
        return {name: _cell_number(cells[i]) if number else cells[i] for i, name, number in plan if cells[i]}

    return parse


def _cell_number(cell: str) -> float | str:
    """Read a cell as a number; the encoder refuses the text of one that is none."""
    number = number_of(cell)
    return NOT_A_NUMBER.get(cell, cell) if number is None else number
