"""Where the records of a text file begin: a line each, or, in CSV, what RFC 4180 takes for one.

Only where records begin, and in which line, stays in memory, 16 bytes a record. The file lies behind a memory map
and must not be cut short while it is open: reading a map past the end of its file ends the process.
"""

from __future__ import annotations

import mmap
import re
from array import array
from collections.abc import Iterator
from pathlib import Path

from streams.errors import InputError
from streams.events.reading import MAX_RECORD_BYTES

BYTE_ORDER_MARK = b"\xef\xbb\xbf"

_plain_cell = rb'[^",\n][^,\n]*+'
# Text after a closing quote is a fault, which the parser names; it does not make the cell go on in the next line.
_cell_of_a_line = rb'(?:"[^"\n]*+(?:""[^"\n]*+)*+"[^,\n]*+|' + _plain_cell + rb")?"
_cell_of_lines = rb'(?:"[^"]*+(?:""[^"]*+)*+"\r?|' + _plain_cell + rb")?"
_in_a_line, _over_lines = (
    re.compile(cell + rb"(?:," + cell + rb")*+(?:\n|\Z)").match for cell in (_cell_of_a_line, _cell_of_lines)
)


class TextRecords:
    """The records of a file that are not blank.

    Raises:
        InputError: a quoted cell is never closed, or is closed in another line and followed by text: nobody can
            tell where the next record begins, and text of a cell could be taken for an event.

    """

    def __init__(self, path: Path, *, quoted: bool) -> None:
        """`quoted` tells whether cells in quotes may hold line breaks, as in CSV."""
        self._path = path
        with path.open("rb") as file:
            empty = path.stat().st_size == 0
            self._bytes = b"" if empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._starts, self._lines = array("q"), array("q")
        self._may_span = False
        for start, line in self._begins(quoted):
            self._starts.append(start)
            self._lines.append(line)

    def __len__(self) -> int:
        return len(self._starts)

    @property
    def size(self) -> int:
        """Bytes of the file when it was opened; it may have grown since."""
        return len(self._bytes)

    @property
    def ends_whole(self) -> bool:
        """Whether the last line has its line break."""
        return self._bytes[-1:] == b"\n"

    def drop_first(self) -> None:
        """Forget the header."""
        del self._starts[:1], self._lines[:1]

    def line(self, index: int) -> int:
        """Which line of the file a record begins in, from 1."""
        return self._lines[index]

    def text(self, index: int) -> bytes:
        """Read a record without its end; of one that is too long, one byte more than may be."""
        start = self._starts[index]
        limit = start + MAX_RECORD_BYTES + 1
        end = self._bytes.find(b"\n", start, limit)
        if self._may_span and self._bytes.find(b'"', start, limit if end < 0 else end) >= 0:
            end = self._end_of_quoted(start, self._lines[index]) - 1
            end = end if self._bytes[end : end + 1] == b"\n" else end + 1
        return self._bytes[start : limit if end < 0 else min(end, limit)].rstrip(b"\r")

    def _begins(self, quoted: bool) -> Iterator[tuple[int, int]]:
        """Where each record begins, and in which line."""
        content, line = self._bytes, 1
        start = len(BYTE_ORDER_MARK) if content[:3] == BYTE_ORDER_MARK else 0
        quote = content.find(b'"') if quoted else -1
        while start < len(content):
            end = content.find(b"\n", start) + 1 or len(content)
            if content[start] > ord(" ") or content[start:end].strip():
                yield start, line
            line += 1
            if 0 <= quote < end:
                begin, end = end, self._end_of_quoted(start, line - 1)
                while begin < end:
                    self._may_span = True
                    begin, line = content.find(b"\n", begin) + 1 or len(content), line + 1
                quote = content.find(b'"', end)
            start = end

    def _end_of_quoted(self, start: int, line: int) -> int:
        """Where the record after one with quotes begins."""
        whole = _in_a_line(self._bytes, start) or _over_lines(self._bytes, start)
        if whole is None:
            raise InputError(
                f"{self._path}, line {line}: a quoted cell is not closed, or is closed in a later line and followed "
                "by text, so it is not known where the next row begins: write quotes within quotes twice"
            )
        return whole.end()
