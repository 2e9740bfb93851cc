"""CSV and JSONL files as tables: one row a record, parsed on demand from a memory map.

A record of JSONL is a line; one of CSV (RFC 4180) may hold line breaks, commas and quotes in its quoted cells.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from engine.features.encoder import Features
from engine.types import Int64
from streams.errors import InputError
from streams.events.reading import MAX_RECORD_BYTES
from streams.events.wording import shown
from streams.logs.file.cells import LONE_CR, Cells, cells_of
from streams.logs.file.content import Content, text_content
from streams.logs.file.gathered import ParsedRows
from streams.logs.file.tables import (
    Clock,
    Parse,
    Row,
    Rows,
    TableColumns,
    clock_of,
    or_none,
    require,
    required,
)
from streams.logs.file.text_records import TextRecords

SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}

ROWS_AT_ONCE = 4096

Gather = Callable[[Sequence[bytes]], Rows]
"""Many records in columns."""


def open_csv(path: Path, columns: TableColumns, features: Features) -> TextTable:
    """Open a file of comma-separated cells whose first record names the columns."""
    records = TextRecords(path, quoted=True)
    header = _header(path, records)
    require(path, required(columns, features), header)
    records.drop_first()
    cells = Cells.of(header, columns, features)
    return TextTable(path, records, cells.parse, cells.rows, columns, needed=())


def _header(path: Path, records: TextRecords) -> list[str]:
    if not len(records):
        raise InputError(f"{path}: the file is empty: its first line has to name the columns")
    try:
        header = cells_of(records.text(0))
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
    return TextTable(path, records, _parse_json, _parsed_rows, columns, required(columns, features))


class TextTable:
    """A file of one row a record; a row's line is that which its record begins in."""

    unit = "line"

    def __init__(
        self,
        path: Path,
        records: TextRecords,
        parse: Parse,
        gather: Gather,
        columns: TableColumns,
        needed: Collection[str],
    ) -> None:
        self._path = path
        self._records = records
        self._parse, self._gather = parse, gather
        self._columns = columns
        self._needed = needed

    def clock(self) -> Clock:
        """Read every record once; a required column may be missing in any, but not in all."""
        self._check_needed()
        count = len(self._records)
        begins = range(0, max(count, 1), ROWS_AT_ONCE)
        parts = (self.rows(np.arange(begin, min(begin + ROWS_AT_ONCE, count))) for begin in begins)
        clocks = [clock_of(rows, self._columns) for rows in parts]
        return Clock(*map(np.concatenate, zip(*clocks, strict=True)))

    def _check_needed(self) -> None:
        """Refuse a file none of whose records has a column."""
        missing, there = set(self._needed), list[str]()
        for index in range(len(self._records)):
            if not missing:
                return
            values = self._row(index).values
            missing.difference_update(values)
            there = [*values] or there
        if there:
            require(self._path, sorted(missing), there)

    def read(self, indexes: Sequence[int]) -> list[Row]:
        """Parse records again; a label next to its own observation shares the parsed record."""
        rows: list[Row] = []
        for index in indexes:
            again = bool(rows) and rows[-1].number == index + 1
            rows.append(rows[-1] if again else self._row(index))
        return rows

    def rows(self, indexes: Int64) -> Rows:
        """Parse records again, in columns."""
        texts = [self._records.text(index) for index in indexes.tolist()]
        short = [len(text) <= MAX_RECORD_BYTES for text in texts]
        rows = self._gather([text if is_short else b"" for text, is_short in zip(texts, short, strict=True)])
        rows.whole &= np.array(short, np.bool_)
        return rows

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


def _parse_json(line: bytes) -> Mapping[str, Any]:
    try:
        value = orjson.loads(line)
    except ValueError as error:
        raise ValueError(LONE_CR if b"\r" in line else str(error)) from error
    if not isinstance(value, dict):
        raise ValueError(f"expected a JSON object, got {type(value).__name__}")
    return value


def _parsed_rows(lines: Sequence[bytes]) -> ParsedRows:
    return ParsedRows([or_none(_parse_json, line) for line in lines])
