"""Where events come from: ordered, partitioned logs with committed positions. Kafka's words, unchanged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from streams.events.record import Offsets, Place, Polled, Record


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
