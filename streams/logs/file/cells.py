"""Cells of CSV as values: of one row by column, or of many rows in columns.

A row is taken apart as RFC 4180 has it. An empty cell is absent; of a number, it is a float.
"""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from math import nan
from typing import Any

import numpy as np
import polars as pl
from polars import selectors as cs

from engine.features.columns import Cyclic, Numeric
from engine.features.encoder import Features
from streams.events.numbers import number_of
from streams.events.reading import MAX_RECORD_BYTES
from streams.logs.file.gathered import FrameRows, MixedRows, ParsedRows
from streams.logs.file.tables import Rows, TableColumns, or_none

NOT_A_NUMBER = {"nan": nan, "NaN": nan}
"""How numpy, pandas and polars write a number that is missing."""

LONE_CR = "a carriage return (CR) without a line feed: end every line in LF, or in CR and LF"

FEW = 256
"""So many records are parsed one by one: polars takes 3 ms to begin, and what it cannot read spoils the rest."""

PASSED_OVER = (b" ", b"\t", b"\xef\xbb\xbf")
"""What polars leaves out at the beginning of a number, or of all."""

PADDED = (b", ", b",\t", b"\n ", b"\n\t")

csv.field_size_limit(MAX_RECORD_BYTES)  # of the process: Python's own limit is an eighth of ours


def cells_of(record: bytes) -> list[str]:
    """Take a record apart.

    Raises:
        ValueError: it is no record of CSV; says why.

    """
    text = record.decode()
    # The csv module takes a line apart five times slower, and differs only where there is one of these.
    if '"' in text or "\r" in text:
        try:
            return next(csv.reader([text], strict=True))
        except csv.Error as error:
            raise ValueError(LONE_CR if str(error).startswith("new-line") else str(error)) from error
    return text.split(",")


@dataclass(frozen=True)
class Cells:
    """How the rows of one file are read."""

    header: Sequence[str]
    used: Collection[str]
    numeric: Collection[str]
    """Those that are read as numbers."""

    @classmethod
    def of(cls, header: Sequence[str], columns: TableColumns, features: Features) -> Cells:
        """Read the columns that are named, and features."""
        numeric = {column.name for column in features.columns if isinstance(column, Numeric | Cyclic)}
        return cls(header, features.names | set(columns.names()), numeric)

    def parse(self, record: bytes) -> Mapping[str, Any]:
        """The cells of a record that are used, by column; refuses one of another length than the header's."""
        return {
            name: self.value(name, cell)
            for name, cell in zip(self.header, self.apart(record), strict=True)
            if cell and name in self.used
        }

    def apart(self, record: bytes) -> list[str]:
        """The cells of a record, as many as the header has."""
        cells = cells_of(record)
        if len(cells) != len(self.header):
            raise ValueError(f"{len(cells)} cells, the header has {len(self.header)}")
        return cells

    def value(self, name: str, cell: str) -> float | str:
        """A cell of a column; the encoder refuses the text of a number that is none."""
        if name not in self.numeric:
            return cell
        number = number_of(cell)
        return NOT_A_NUMBER.get(cell, cell) if number is None else number

    def rows(self, records: Sequence[bytes]) -> Rows:
        """Many records: in columns where these tell of each cell what `parse` does, the others one by one."""
        plain = [n for n, record in enumerate(records) if self._is_plain(record)]
        read = [*self._frames(plain, records)]
        columnar = np.array([n for part, _ in read for n in part], np.int64)
        others = np.setdiff1d(np.arange(len(records)), columnar)
        parsed = ParsedRows([or_none(self.parse, records[n]) for n in others.tolist()])
        if not len(columnar):
            return parsed
        in_columns = FrameRows(pl.concat(frame for _, frame in read), np.arange(len(columnar)))
        return MixedRows([(columnar, in_columns), (others, parsed)]) if len(others) else in_columns

    def _is_plain(self, record: bytes) -> bool:
        """Whether cells begin and end at commas, and are as many as there should be."""
        return record.count(b",") == len(self.header) - 1 and b'"' not in record and b"\r" not in record

    def _frames(
        self, plain: Sequence[int], records: Sequence[bytes]
    ) -> Iterator[tuple[Sequence[int], pl.DataFrame]]:
        """The records that could be read in columns, by their places; not those around one that could not."""
        if len(plain) <= FEW:
            return
        frame = self._frame([records[n] for n in plain])
        if frame is not None:
            finite = cs.float().is_finite() | cs.float().is_null()
            sound = frame.select(pl.all_horizontal(pl.repeat(value=True, n=pl.len()), finite)).to_series()
            yield [*compress(plain, sound)], frame.filter(sound)
        elif len(plain) > 1:
            half = len(plain) // 2
            yield from self._frames(plain[:half], records)
            yield from self._frames(plain[half:], records)

    def _frame(self, plain: Sequence[bytes]) -> pl.DataFrame | None:
        """The columns that are used, numbers as such; None where one of the records has something else there."""
        text = b"\n".join(plain)
        if text.startswith(PASSED_OVER) or any(padded in text for padded in PADDED):
            return None
        used = {n: name for n, name in enumerate(self.header) if name in self.used}
        kinds = {
            str(n): pl.Float64 if name in self.numeric else pl.String for n, name in enumerate(self.header)
        }
        try:
            text.decode()
            frame = pl.read_csv(text, has_header=False, quote_char=None, schema=kinds, columns=[*used])
        except (UnicodeDecodeError, pl.exceptions.PolarsError):
            return None
        return frame.rename({str(n): name for n, name in used.items()}) if len(frame) == len(plain) else None
