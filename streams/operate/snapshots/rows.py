"""Rows in a file of a snapshot: length of the key, key, row; each row as long as the layout says."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from streams.errors import InputError

LENGTH_BYTES = 2
AT_ONCE = 256


def packed(rows: Iterable[tuple[str, bytes]]) -> bytes:
    """Rows by key, as they lie in the file."""
    return b"".join(
        len(name := key.encode()).to_bytes(LENGTH_BYTES, "little") + name + row for key, row in rows
    )


def pages(pieces: Iterable[bytes], row_bytes: int) -> Iterator[list[tuple[str, bytes]]]:
    """The rows of a file that is read piece by piece, a page at a time.

    Raises:
        InputError: it ends within a row.
    """
    rows = _rows(pieces, row_bytes)
    while page := list(islice(rows, AT_ONCE)):
        yield page


def _rows(pieces: Iterable[bytes], row_bytes: int) -> Iterator[tuple[str, bytes]]:
    held, at = b"", 0
    for piece in pieces:
        held, at = held[at:] + piece, 0
        while len(held) >= at + LENGTH_BYTES:
            begins = at + LENGTH_BYTES + int.from_bytes(held[at : at + LENGTH_BYTES], "little")
            if len(held) < begins + row_bytes:
                break
            name, at = held[at + LENGTH_BYTES : begins], begins + row_bytes
            yield name.decode("ascii", "replace"), held[begins:at]
    if at != len(held):
        raise InputError("the snapshot's rows end within one: it is of another program; take another one")
