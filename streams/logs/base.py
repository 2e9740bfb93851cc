"""Where events come from: an ordered, replayable log with committed positions. Kafka's words, unchanged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from engine.types import Kind, Source


class Record(NamedTuple):
    """One event as it lies in the log: raw values, nothing checked yet."""

    offset: int
    kind: Kind
    task: Any
    id: Any
    """The observation's id; a label carries the id of its observation."""
    time: Any
    """Event time: seconds since the epoch, an ISO 8601 text, or a datetime."""
    label: Any = None
    fields: Mapping[str, Any] | None = None
    """What the encoder reads; None for a label without features."""
    line: int = 0
    """Line (or row) of the file, from 1."""
    raw: bytes | None = None
    """The bytes as they came, where there are any."""
    fault: str | None = None
    """Why the record could not even be parsed."""


class Polled(NamedTuple):
    """The next records of one partition of one topic, in offset order."""

    topic: int
    """Index of the input topic."""
    source: Source
    records: Sequence[Record]


class EventLog(Protocol):
    """A partitioned log, read in order. Embedded logs have one topic and one partition."""

    def poll(self, max_events: int, timeout_s: float = 0.0) -> Polled | None:
        """At most that many next records, or None where there are none (yet)."""
        ...

    def position(self) -> int:
        """Offset of the next record to poll."""
        ...

    def seek(self, offset: int) -> None:
        """Poll from here on."""
        ...

    def committed(self) -> int:
        """Where a new reader starts: the offset after the last one committed."""
        ...

    def commit(self, offset: int) -> None:
        """Everything below this offset has taken effect and need not be read again."""
        ...

    def end(self) -> int:
        """The offset after the last record, as far as known."""
        ...

    def origin(self, record: Record) -> str:
        """Where a record comes from, in words: file and line, or topic, partition and offset."""
        ...
