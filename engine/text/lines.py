"""Lines of texts that lie in columns."""

from __future__ import annotations

from engine.compiled import compiled, compiled_as, read_vector
from engine.text.words import WORD, load, store
from engine.types import Int64, UInt8

PAST = WORD - 1
"""Bytes behind the last that are read, or written to."""


@compiled
def write_part(source: UInt8, begin: int, end: int, into: UInt8, at: int) -> int:
    """A part of a text, and up to seven bytes more that are written over later; returns where it ends."""
    for n in range(0, end - begin, WORD):
        store(into, at + n, load(source, begin + n))
    return at + end - begin


BYTES = read_vector("uint8")


@compiled_as(BYTES, read_vector("int64"), BYTES, "int64[,]", "int64[,]", "uint8[]", "int64[]")
def write_lines(
    fixed: UInt8, bounds: Int64, content: UInt8, begins: Int64, ends: Int64, into: UInt8, line_ends: Int64
) -> None:
    """Write N lines of P columns, and where each ends: what is fixed, the text of column 0, what is fixed, and so on.

    What is fixed before column p is `fixed[bounds[p] : bounds[p + 1]]`, its text in line n
    `content[begins[p, n] : ends[p, n]]`. Behind all there have to be `PAST` bytes, to be read or written.
    """
    at, last = 0, len(begins)
    for n in range(len(line_ends)):
        for p in range(last):
            at = write_part(fixed, bounds[p], bounds[p + 1], into, at)
            at = write_part(content, begins[p, n], ends[p, n], into, at)
        at = write_part(fixed, bounds[last], bounds[last + 1], into, at)
        line_ends[n] = at
