"""What a table holds, as a digest: how a file that grew is told from one that was changed.

Text is compared byte by byte; Parquet value by value, since it is written anew as a whole whenever it grows.
"""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import polars as pl

BYTES_AT_ONCE = 1 << 20
ROWS_AT_ONCE = 1 << 16
DIGEST_BYTES = 16
LINE_ENDS = (b"", b"\r", b"\n")


class Content(NamedTuple):
    """What a table holds up to a place."""

    extent: int
    """Bytes of a text, without the end of its last line; rows of Parquet."""
    digest: str


def text_content(path: Path, known: int, size: int) -> tuple[Content | None, Content]:
    """The first `known` of `size` bytes of a text, None where no line ends there, and all of them."""
    digest, start, end = _digest(), None, _text_end(path, size)
    with path.open("rb") as file:
        if known <= end:
            _read_into(digest, file, known)
            if file.read(1) in LINE_ENDS:
                start = Content(known, digest.hexdigest())
            file.seek(known)
        _read_into(digest, file, end)
    return start, Content(end, digest.hexdigest())


def table_content(frame: pl.DataFrame, known: int) -> tuple[Content | None, Content]:
    """The first `known` rows of a table, None where there are not so many, and all of them."""
    columns, start, rows = [_Column(frame[name]) for name in sorted(frame.columns)], None, len(frame)
    if known <= rows:
        start = _combined(columns, 0, known)
    return start, _combined(columns, known if start else 0, rows)


class _Column:
    """The digest of a column so far: which values are there, how long each is, and the values."""

    def __init__(self, values: pl.Series) -> None:
        self._values = values
        self._lengths, self._content = _digest(), _digest()
        self._lengths.update(values.name.encode())

    def add(self, begin: int, end: int) -> None:
        """Take in further values; a number that is missing may be null or NaN, as writers have it."""
        for at in range(begin, end, ROWS_AT_ONCE):
            values = self._values.slice(at, min(ROWS_AT_ONCE, end - at))
            if values.dtype.is_numeric() or values.dtype in (pl.Boolean, pl.Null):
                numbers = values.cast(pl.Float64).fill_nan(None)
                lengths, content = numbers.is_null(), numbers.drop_nulls().to_numpy().tobytes()
                self._lengths.update(np.where(lengths.to_numpy(), -1, 0).astype("<i8").tobytes())
            else:
                texts = [None if value is None else str(value).encode() for value in values.to_list()]
                self._lengths.update(np.array([-1 if t is None else len(t) for t in texts], "<i8").tobytes())
                content = b"".join(text for text in texts if text)
            self._content.update(content)

    @property
    def digest(self) -> bytes:
        """Of all that was taken in."""
        return self._lengths.digest() + self._content.digest()


def _combined(columns: list[_Column], begin: int, end: int) -> Content:
    for column in columns:
        column.add(begin, end)
    return Content(end, _digest(b"".join(column.digest for column in columns)).hexdigest())


def _digest(content: bytes = b"") -> blake2b:
    return blake2b(content, digest_size=DIGEST_BYTES)


def _read_into(digest: blake2b, file: BinaryIO, end: int) -> None:
    """Take in a file from where it stands to `end`."""
    while chunk := file.read(min(BYTES_AT_ONCE, end - file.tell())):
        digest.update(chunk)


def _text_end(path: Path, end: int) -> int:
    """Where the last line before `end` ends, without its line break."""
    with path.open("rb") as file:
        while end:
            begin = max(0, end - BYTES_AT_ONCE)
            file.seek(begin)
            kept = len(file.read(end - begin).rstrip(b"\r\n"))
            if kept:
                return begin + kept
            end = begin
    return 0
