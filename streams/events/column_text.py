"""Columns as JSON text, laid out by compiled code: N texts lie in one array of bytes, and no object is made for any.

The text of each value is what `orjson.dumps` of that value alone would be.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self, overload

import numpy as np
import numpy.typing as npt
import orjson

from engine.text.lines import PAST, write_lines
from engine.text.numbers import BEYOND, DOUBLE, LONGEST, SINGLE, WHOLE, write_numbers
from engine.types import Int64, UInt8, UInt64
from streams.events.joined import Joined
from streams.events.record import incarnation_text

LINE_END = b"\n"

BLANK: UInt8 = np.zeros(PAST, np.uint8)


@dataclass(frozen=True, eq=False)
class Texts(Sequence[bytes]):
    """N texts: the n-th is `content[begins[n] : ends[n]]`."""

    content: UInt8
    begins: Int64
    ends: Int64

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, index: int) -> bytes: ...

    @overload
    def __getitem__(self, index: slice) -> Texts: ...

    def __getitem__(self, index: int | slice) -> bytes | Texts:
        """One of them, or a stretch."""
        if isinstance(index, slice):
            return Texts(self.content, self.begins[index], self.ends[index])
        return self.content[self.begins[index] : self.ends[index]].tobytes()

    def __iter__(self) -> Iterator[bytes]:
        content = self.content.tobytes()
        return (
            content[begin:end] for begin, end in zip(self.begins.tolist(), self.ends.tolist(), strict=True)
        )

    def take(self, index: Int64) -> Texts:
        """Some of them, each as often as it is named."""
        return Texts(self.content, self.begins[index], self.ends[index])

    def among(self, index: Int64, count: int) -> Texts:
        """These at places [N], and empty ones at all others of so many."""
        begins, ends = np.zeros((2, count), np.int64)
        begins[index], ends[index] = self.begins, self.ends
        return Texts(self.content, begins, ends)


class JoinedLines(Texts, Joined):
    """Texts one after the other, each with the end of a line behind it: what a file holds of them is `content`."""

    @classmethod
    def of(cls, lines: Texts) -> Self:
        """Lines that were `filled` in, with their ends."""
        return cls(lines.content, lines.begins, lines.ends - len(LINE_END))


def texts_of(texts: Sequence[bytes]) -> Texts:
    """Put texts together.

    >>> [*texts_of([b"one", b"two"]).take(np.array([1, 1, 0]))]
    [b'two', b'two', b'one']
    """
    return _end_to_end(_bytes(b"".join(texts)), np.cumsum([len(text) for text in texts], dtype=np.int64))


def numbers_text(column: npt.NDArray[Any]) -> Texts:
    """Write each number of a column [N]; or the numbers of each row [N, K], with commas and without brackets.

    >>> [*numbers_text(np.array([[0.5, np.nan], [1e-9, 2.0]]))], [*numbers_text(np.array([True, False]))]
    ([b'0.5,null', b'1e-9,2.0'], [b'true', b'false'])
    """
    if column.dtype == np.bool_:
        return TRUTHS.take(column.astype(np.int64))
    width = 1 if column.ndim == 1 else column.shape[1]
    return stretches_text(column, np.arange(len(column) + 1) * width)


def stretches_text(numbers: npt.NDArray[Any], bounds: Int64) -> Texts:
    """Write each stretch of numbers [M], or of the numbers of rows [R, K], these with brackets between two rows.

    `bounds` [N + 1] count numbers.

    >>> [*stretches_text(np.array([1, 2, 3]), np.array([0, 2, 3]))]
    [b'1,2', b'3']
    >>> [*stretches_text(np.array([[1, 2], [3, 4]]), np.array([0, 4]))]
    [b'1,2],[3,4']
    """
    kind, bits = _bits(np.ascontiguousarray(numbers).reshape(-1))
    into, ends = np.empty(len(bits) * LONGEST + BEYOND, np.uint8), np.empty(len(bounds) - 1, np.int64)
    width = numbers.shape[1] if numbers.ndim == 2 else len(bits)
    write_numbers(bits, kind, bounds, width, into, ends)
    return _end_to_end(into, ends)


def values_text(values: Sequence[Any]) -> Texts:
    """Write each of N texts or numbers.

    >>> [*values_text(["a, b", 5])]
    [b'"a, b"', b'5']
    """
    try:
        # Indented, each lies on a line of its own, and no text holds the end of a line as it is.
        content = _bytes(orjson.dumps(values, option=orjson.OPT_INDENT_2))
    except TypeError:
        return texts_of([orjson.dumps(writable(value), default=str) for value in values])
    line_ends = np.flatnonzero(content == ord(LINE_END)) if len(values) else np.zeros(1, np.int64)
    commas = np.arange(len(values)) < len(values) - 1
    return Texts(content, line_ends[:-1] + len("\n  "), line_ends[1:] - commas)


def incarnations_text(incarnations: UInt64) -> Texts:
    """Write incarnations [N], of which there are few, without quotes."""
    each, which = np.unique(incarnations, return_inverse=True)
    return texts_of([incarnation_text(one).encode() for one in each.tolist()]).take(which)


def writable(value: Any) -> Any:
    """A value as it is, or as text where it holds a whole number of more than 64 bits, of which orjson writes none.

    >>> writable(2**64 - 1), writable(2**64)
    (18446744073709551615, '18446744073709551616')
    """
    try:
        orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS)
    except TypeError:
        return str(value)
    return value


def filled(template: bytes, *columns: Texts) -> Texts:
    """Fill a template in once for each row of columns.

    >>> [*filled(b"%b is %b", texts_of([b"1", b"2"]), texts_of([b"one", b"two"]))]
    [b'1 is one', b'2 is two']
    """
    fixed, rows = template.split(b"%b"), len(columns[0])
    pages = {id(column.content): column.content for column in columns}
    starts = dict(zip(pages, np.cumsum([0, *map(len, pages.values())]).tolist(), strict=False))
    begins, ends = np.empty((2, len(columns), rows), np.int64)
    for p, column in enumerate(columns):
        np.add(column.begins, starts[id(column.content)], out=begins[p])
        np.add(column.ends, starts[id(column.content)], out=ends[p])
    content = np.concatenate([*pages.values(), BLANK])
    room = rows * sum(map(len, fixed)) + int((ends - begins).sum())
    into, line_ends = np.empty(room + len(BLANK), np.uint8), np.empty(rows, np.int64)
    bounds = np.cumsum([0, *map(len, fixed)])
    write_lines(_bytes(b"".join(fixed) + bytes(BLANK)), bounds, content, begins, ends, into, line_ends)
    return _end_to_end(into, line_ends)


def lines_text(template: bytes, *columns: Texts) -> JoinedLines:
    """The same, with the end of a line behind each."""
    return JoinedLines.of(filled(template + LINE_END, *columns))


def _end_to_end(content: UInt8, ends: Int64) -> Texts:
    """Texts that lie one after the other."""
    begins = np.zeros_like(ends)
    begins[1:] = ends[:-1]
    return Texts(content[: ends[-1] if len(ends) else 0], begins, ends)


def _bytes(text: bytes) -> UInt8:
    return np.frombuffer(text, np.uint8)


def _bits(numbers: npt.NDArray[Any]) -> tuple[int, UInt64]:
    """What kind of numbers they are, and the bits of each."""
    if numbers.dtype == np.float32:
        return SINGLE, numbers.view(np.uint32).astype(np.uint64)
    if numbers.dtype == np.float64:
        return DOUBLE, numbers.view(np.uint64)
    return WHOLE, numbers.astype(np.int64, casting="safe", copy=False).view(np.uint64)


NONE = texts_of([])

TRUTHS = texts_of([b"false", b"true"])
