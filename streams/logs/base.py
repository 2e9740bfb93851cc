"""Where events come from: ordered, partitioned logs with committed positions. Kafka's words, unchanged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf, nan
from typing import Any, NamedTuple, Protocol

from engine.types import Kind

Place = tuple[int, int]
"""One partition of one input topic: (index of the topic, number of the partition)."""

Offsets = Mapping[Place, int]
"""The next offset of each place."""


class SourcePosition(NamedTuple):
    """A place in a log, for good: a topic created anew has the same partitions and offsets, with other events."""

    incarnation: int
    """63 bits: another number where the topic was created anew, or the file is another."""
    partition: int
    offset: int


UNTOLD = 0
"""Incarnation of a line that does not tell it: an earlier version wrote it."""


def incarnation_text(incarnation: int) -> str:
    """An incarnation as outputs and checkpoints write it: not every reader of JSON holds 63 bits of a number."""
    return f"{incarnation:016x}"


def told_incarnation(line: Mapping[str, Any]) -> int:
    """The incarnation that a line or a checkpoint tells; `UNTOLD` where it tells none."""
    return int(line.get("incarnation", "0"), 16)


NULL_VALUE = "the message has no value"
"""The fault of a message whose value is null: its raw bytes are empty, which an empty value's are too."""


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
    topic: int = 0
    """Index of the input topic."""
    partition: int = 0
    key: bytes | None = None
    """The message's key, where there is one."""
    headers: Sequence[tuple[str, bytes]] = ()
    """The message's headers."""
    appended_s: float = nan
    """When the log took it, wall clock; NaN where a log does not say."""
    latest_s: float = inf
    """An event time after this one is refused; NaN and infinity refuse none."""


class Polled(NamedTuple):
    """The next records of one partition, in the order to fold them; with two input topics, of both."""

    partition: int
    incarnations: tuple[int, ...]
    """Of each input topic: another number where the topic was created anew."""
    position: int
    """The first topic's next offset before these records."""
    records: Sequence[Record]
    partitions: int = 0
    """Of each input topic, now; 0: the log has but this one."""

    def source(self, offset: int) -> SourcePosition:
        """An offset of the first topic, with its partition and incarnation."""
        return SourcePosition(self.incarnations[0], self.partition, offset)

    def after(self) -> dict[Place, int]:
        """The next offsets once these records are folded."""
        return {(record.topic, record.partition): record.offset + 1 for record in self.records}


class EventLog(Protocol):
    """A partitioned log, read in order within each partition."""

    def poll(self, max_events: int, timeout_s: float = 0.0) -> Sequence[Polled]:
        """At most that many next records in all; nothing where there are none (yet)."""
        ...

    def commit(self, offsets: Offsets) -> None:
        """Everything below these offsets has taken effect and need not be read again."""
        ...

    def origin(self, record: Record) -> str:
        """Where a record comes from, in words: file and line, or topic, partition and offset."""
        ...


class ReplayLog(EventLog, Protocol):
    """A log of one topic and one partition that this process reads alone."""

    def position(self) -> int:
        """Offset of the next record to poll."""
        ...

    def seek(self, offset: int) -> None:
        """Poll from here on."""
        ...

    def committed(self) -> int:
        """Where a new reader starts: the offset after the last one committed."""
        ...

    def end(self) -> int:
        """The offset after the last record, as far as known."""
        ...


class GroupLog(EventLog, Protocol):
    """A log whose partitions are shared among the members of a consumer group."""

    def wait(self, timeout_s: float) -> None:
        """Stay a member of the group for so long without reading on."""
        ...

    def rewind(self) -> None:
        """Hand out again whatever was not committed: the store may have forgotten what took effect since."""
        ...

    def assigned(self) -> set[int]:
        """The partitions that are this member's."""
        ...

    def lag(self) -> Mapping[Place, int]:
        """How many events of each place assigned were not polled yet, as far as known."""
        ...

    @property
    def skipped(self) -> Mapping[Place, int]:
        """How many events of each place were passed over, since the log no longer held them."""
        ...

    def close(self) -> None:
        """Leave the group."""
        ...


ONLY: Place = (0, 0)
"""The one place of a `ReplayLog`."""
