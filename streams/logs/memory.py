"""A log and an output in memory, for tests: yours as much as ours. A crash is a value in a test's input.

`before(effect)` is called before each effect takes place, with "poll", "commit", "append" or "sync"; a
test raises `Crash` from it. What the objects hold then is what a process that died there leaves behind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from streams.events.record import ONLY, Offsets, Polled, Record

Before = Callable[[str], None]

INCARNATION = 1


class Crash(BaseException):
    """The process dies here. No `except Exception` survives it."""


def no_crash(effect: str) -> None:
    """Let every effect take place."""


class MemoryLog:
    """A list of records as an `EventLog`; a record's offset is its place in the list.

    >>> from engine.types import Kind
    >>> log = MemoryLog([Record(0, Kind.OBSERVATION, "ann", "1", 0.0, fields={"amount": 2.5})])
    >>> [polled] = log.poll(10)
    >>> polled.records[0].task, log.poll(10)
    ('ann', [])
    """

    def __init__(self, records: Iterable[Record] = (), before: Before = no_crash) -> None:
        self.records: list[Record] = []
        self.before = before
        self._position = 0
        self._committed = 0
        self.extend(records)

    def extend(self, records: Iterable[Record]) -> None:
        """Add records at the end."""
        for record in records:
            self.records.append(record._replace(offset=len(self.records)))

    def poll(self, max_events: int, timeout_s: float = 0.0) -> list[Polled]:  # noqa: ARG002 - nobody to wait for
        """At most that many next records; nothing at the end."""
        self.before("poll")
        position = self._position
        records = self.records[self._position : self._position + max_events]
        self._position += len(records)
        return [Polled(0, (INCARNATION,), position, records)] if records else []

    def position(self) -> int:
        """Offset of the next record to poll."""
        return self._position

    def seek(self, offset: int) -> None:
        """Poll from here on."""
        self._position = offset

    def committed(self) -> int:
        """Where a new reader starts."""
        return self._committed

    def commit(self, offsets: Offsets) -> None:
        """Everything below this offset has taken effect."""
        self.before("commit")
        self._committed = offsets[ONLY]

    def end(self) -> int:
        """Offset after the last record."""
        return len(self.records)

    def origin(self, record: Record) -> str:
        """Offset of a record."""
        return f"memory, offset {record.offset}"


class MemoryOutput:
    """A list of lines as an `OutputLog`; positions are places in the list."""

    def __init__(self, before: Before = no_crash) -> None:
        self.lines: list[bytes] = []
        self.before = before

    def append(self, lines: Sequence[bytes], keys: Sequence[bytes] = ()) -> None:  # noqa: ARG002 - one partition
        """Add lines."""
        self.before("append")
        self.lines += lines

    def sync(self) -> None:
        """Nothing to do: the object outlives the crash."""
        self.before("sync")

    def holds(self, position: int) -> bool:
        """Whether a position is one of this output: its start, or the end of one of its lines."""
        return 0 <= position <= len(self.lines)

    def read(self, position: int, max_lines: int) -> tuple[list[bytes], int]:
        """At most that many lines from a position, and the position after them."""
        lines = self.lines[position : position + max_lines]
        return lines, position + len(lines)

    def end(self) -> int:
        """The position after the last line."""
        return len(self.lines)

    def place(self, position: int) -> str:
        """Place in the list."""
        return f"memory, line {position + 1}"
