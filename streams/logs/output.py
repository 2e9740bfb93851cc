"""Where outcomes go in one process: append-only files of JSON lines, one for each kind of output."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from itertools import islice, takewhile
from pathlib import Path
from typing import Any, Protocol

from streams.events.joined import Joined
from streams.system.files import writing

DEAD_LETTER = "dead-letter"
TOPICS = ("predictions", "scores", "drifts", "episodes", DEAD_LETTER)
"""The kinds of output."""

BLOCK_BYTES = 65_536


class OutputWriter(Protocol):
    """Takes lines in order."""

    def append(self, lines: Sequence[bytes], keys: Sequence[bytes] = ()) -> None:
        """Add lines, not blank and without line breaks; of several partitions, lines of one key go to the same."""
        ...

    def sync(self) -> None:
        """Keep what was appended over a crash of the machine."""
        ...


class OutputLog(OutputWriter, Protocol):
    """Lines in order of appending. Positions are opaque but for 0, the start."""

    def read(self, position: int, max_lines: int) -> tuple[list[bytes], int]:
        """At most that many whole lines from a position, and the position after them."""
        ...

    def end(self) -> int:
        """The position after the last line."""
        ...

    def place(self, position: int) -> str:
        """Where the next line from a position lies, in words."""
        ...


class OutputFile:
    """An `OutputLog` in a file; positions are bytes. One writer at a time, any number of readers.

    A last line without its end, left by a crash, is cut off when the file is opened: what it reported
    was not yet committed and comes again.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab", buffering=0)
        self._size = _whole_lines(path)
        self._file.truncate(self._size)
        self._synced = -1
        """Up to where it is kept over a crash: what an earlier process appended may not be."""

    def append(self, lines: Sequence[bytes], keys: Sequence[bytes] = ()) -> None:  # noqa: ARG002 - one partition
        """Add lines in one write; where it fails, as on a full disk, none of them."""
        content: Any = lines.content if isinstance(lines, Joined) else b"\n".join((*lines, b""))
        with writing(self._path):
            try:
                if self._file.write(content) != len(content):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                self._file.truncate(self._size)
                raise
        self._size += len(content)

    def sync(self) -> None:
        """Keep what was appended over a crash of the machine."""
        if self._size > self._synced:
            with writing(self._path):
                os.fsync(self._file.fileno())
            self._synced = self._size

    def read(self, position: int, max_lines: int) -> tuple[list[bytes], int]:
        """At most that many whole lines from a position, and the position after them."""
        lines: list[bytes] = []
        with self._path.open("rb", BLOCK_BYTES) as file:
            file.seek(position)
            while found := [*islice(file, max_lines - len(lines))]:
                content = b"".join(found)
                # Not the last alone: what a line lacked may be there by the time that the next is read.
                if is_cut := content.count(b"\n") < len(found):
                    content = b"".join([*takewhile(_ends, found)])
                position += len(content)
                lines += [line for line in content.split(b"\n") if line and not line.isspace()]
                if is_cut:
                    break
        return lines, position

    def end(self) -> int:
        """The position after the last line."""
        return self._size

    def holds(self, position: int) -> bool:
        """Whether a position is one of this file: its start, or the end of one of its lines."""
        with self._path.open("rb") as file:
            file.seek(max(position - 1, 0))
            return position == 0 or file.read(1) == b"\n"

    def place(self, position: int) -> str:
        """The file, and the number of the next line from a position that is not blank."""
        number = at = 0
        with self._path.open("rb") as file:
            for line in file:
                number += 1
                at += len(line)
                if at > position and not line.isspace():
                    break
        return f"{self._path}, line {number}"

    def erase(self, condemned: Callable[[bytes], bool]) -> int:
        """Overwrite lines with blanks, which readers pass over, so that no position moves; returns how many."""
        erased = position = 0
        with self._path.open("r+b") as file:
            for line in iter(file.readline, b""):
                if not line.isspace() and condemned(line):
                    file.seek(position)
                    file.write(b" " * (len(line) - 1))
                    file.seek(position + len(line))
                    erased += 1
                position += len(line)
            file.flush()
            os.fsync(file.fileno())
        return erased

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


def _ends(line: bytes) -> bool:
    return line.endswith(b"\n")


def _whole_lines(path: Path) -> int:
    """Size of a file up to the end of its last whole line; looked for from the end."""
    end = path.stat().st_size
    with path.open("rb") as file:
        while end > 0:
            start = max(0, end - BLOCK_BYTES)
            file.seek(start)
            found = file.read(end - start).rfind(b"\n")
            if found >= 0:
                return start + found + 1
            end = start
    return 0
