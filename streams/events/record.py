"""A record as it lies in a log, and its place there, for good. Kafka's words, unchanged."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from math import inf, nan
from typing import Any, NamedTuple

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


class PlacedRecords(Sequence[Record], ABC):
    """Records whose places are known before they are made."""

    @abstractmethod
    def backwards(self) -> Iterator[tuple[Place, int]]:
        """Topic and partition, and offset, of each; the last first."""


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
        offsets: dict[Place, int] = {}
        for place, offset in self.backwards():
            offsets.setdefault(place, offset + 1)
            if len(offsets) == len(self.incarnations):
                break
        return offsets

    def backwards(self) -> Iterator[tuple[Place, int]]:
        """Topic and partition, and offset, of each record, the last first; none is made for it."""
        if isinstance(self.records, PlacedRecords):
            return self.records.backwards()
        return (((record.topic, record.partition), record.offset) for record in reversed(self.records))


ONLY: Place = (0, 0)
"""The one place of a `ReplayLog`."""
