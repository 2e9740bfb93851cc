"""The input topics read again from their start, without a group: what `rebuild` folds.

Partitions are merged by the time at which the log took each record. So a task whose events moved to another
partition, because partitions were added, is read in the order in which it was written, and observations on a
topic of their own come before their labels.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from math import isnan
from time import monotonic

from kafka import KafkaConsumer, OffsetAndMetadata, TopicPartition, errors

from streams.errors import InputError, Unavailable
from streams.events.envelope import Envelope
from streams.events.record import Offsets, Place, Polled, Record
from streams.logs.kafka.group import Connection, origin
from streams.logs.kafka.kafka_python.client import (
    ANSWER_MS,
    consumer_of,
    in_our_words,
    require,
    topic_incarnations,
)
from streams.logs.kafka.kafka_python.consumer import let_resumed_go_on

SKEW_S = 5.0
"""By so much the clocks of who sends observations and who sends their labels may differ."""
QUIET_S = 60.0
"""Without a message for so long, no more are waited for."""
LEAST_WAIT_S = 0.01
"""Of each fetch, which is repeated until a record comes."""
KEPT = 4096
"""At most about so many records of a partition wait for those of others."""


class KafkaReplay:
    """An `EventLog` of everything below `through`, which names every partition; commits nothing.

    Args:
        connection: where the brokers are.
        topics: one, or observations and labels.
        envelope: how messages are taken apart.
        through: where it ends, of each place.
        since: where it begins; 0 where nothing is given.

    Raises:
        InputError: there is no such topic, or it does not hold what it is to begin with.

    """

    def __init__(
        self,
        connection: Connection,
        topics: Sequence[str],
        envelope: Envelope,
        through: Offsets,
        since: Offsets | None = None,
    ) -> None:
        self._topics, self._envelope, self._connection = tuple(topics), envelope, connection
        self._since = since or {}
        self.position = {
            place: at for place, end in through.items() if end > (at := self._since.get(place, 0))
        }
        self.through = {place: through[place] for place in self.position}
        self._incarnations = topic_incarnations(connection, self._topics)
        self._partitions = 1 + max((partition for _, partition in through), default=0)
        with self._our_words():
            self._consumer = consumer_of(connection)
            self._places = {TopicPartition(topics[place[0]], place[1]): place for place in self.through}
            self._consumer.assign(list(self._places))
            self._rewind()
        self._waiting: dict[Place, deque[Record]] = {place: deque() for place in self.through}

    def poll(self, max_events: int, timeout_s: float = 0.0) -> list[Polled]:
        """The next records of all partitions, no task of them in two; nothing at the end."""
        before, taken = dict(self.position), dict[int, list[Record]]()
        homes: dict[str, int] = {}
        for _ in range(max_events):
            self._wait_for_each(max(timeout_s, LEAST_WAIT_S))
            place = min(self._unread(), key=self._due, default=None)
            if place is None:
                break
            record = self._waiting[place][0]
            if record.task is not None and homes.setdefault(str(record.task), place[1]) != place[1]:
                break
            self._waiting[place].popleft()
            self.position[place] = record.offset + 1
            taken.setdefault(place[1], []).append(record)
        return [
            Polled(
                partition,
                self._incarnations,
                before.get((0, partition), self._first(partition)),
                records,
                self._partitions,
            )
            for partition, records in taken.items()
        ]

    def commit(self, offsets: Offsets) -> None:
        """Nothing to commit: the group goes on where it was."""

    def origin(self, record: Record) -> str:
        """Topic, partition, offset and incarnation of a record."""
        return origin(self._topics[record.topic], record, self._incarnations[record.topic])

    def close(self) -> None:
        """Let go of the connections."""
        with self._our_words():
            self._consumer.close(timeout_ms=ANSWER_MS)

    def _unread(self) -> list[Place]:
        return [place for place, end in self.through.items() if self.position[place] < end]

    def _due(self, place: Place) -> tuple[float, Place]:
        """When the next record of a place has its turn."""
        appended_s = self._waiting[place][0].appended_s
        return (0.0 if isnan(appended_s) else appended_s) + SKEW_S * place[0], place

    def _first(self, partition: int) -> int:
        return self._since.get((0, partition), 0)

    def _wait_for_each(self, timeout_s: float) -> None:
        """Fetch until a record of each place waits that was not read to its end.

        Raises:
            Unavailable: none comes.

        """
        quiet_s = monotonic()
        while any(not self._waiting[place] for place in self._unread()):
            if self._fetch(timeout_s):
                quiet_s = monotonic()
            elif monotonic() - quiet_s > QUIET_S:
                raise Unavailable(
                    f"{self._connection.servers} gave nothing of {', '.join(self._topics)} for {QUIET_S:g} s, and "
                    "their end was not reached: it is away, or a topic was cut meanwhile; run this again"
                )

    def _fetch(self, timeout_s: float) -> bool:
        """Put the next records where they wait; false where none came."""
        full = [tp for tp, place in self._places.items() if len(self._waiting[place]) >= KEPT]
        with self._our_words():
            let_resumed_go_on(self._consumer)
            self._consumer.pause(*full)
            fetched = self._consumer.poll(timeout_ms=round(timeout_s * 1000), max_records=KEPT)
            self._consumer.resume(*full)
        for partition, messages in fetched.items():
            place = self._places[partition]
            self._waiting[place] += [self._envelope.open(place, *message) for message in messages]
        for partition, place in self._places.items():
            self._pass_over_gap(place, partition)
        return bool(fetched)

    def _pass_over_gap(self, place: Place, partition: TopicPartition) -> None:
        """Offsets that hold no record, as a transaction's marker, may lie before the end."""
        if not self._waiting[place] and self._consumer.position(partition) >= self.through[place]:
            self.position[place] = self.through[place]

    def _rewind(self) -> None:
        starts = self._consumer.beginning_offsets(list(self._places), timeout_ms=ANSWER_MS)
        for partition, start in starts.items():
            position = self.position[self._places[partition]]
            if start > position:
                raise InputError(
                    f"topic {partition.topic} partition {partition.partition} begins at offset {start}: what came "
                    f"before, from {position} on, is gone by its retention"
                )
            self._consumer.seek(partition, position)

    def _our_words(self) -> AbstractContextManager[None]:
        return in_our_words(self._connection, ", ".join(self._topics), "Read")


class GroupOffsets:
    """The committed offsets of a group, seen and set from outside while it has no members."""

    def __init__(self, connection: Connection, group: str, topics: Sequence[str]) -> None:
        self._connection, self._group, self._topics = connection, group, tuple(topics)
        require(connection, self._topics)

    def read(self) -> dict[Place, int]:
        """The next offset of each place; 0 where nothing was committed."""
        with self._our_words(), self._consumer() as consumer:
            return {
                (number, p): consumer.committed(TopicPartition(topic, p), timeout_ms=ANSWER_MS) or 0
                for number, topic in enumerate(self._topics)
                for p in sorted(consumer.partitions_for_topic(topic))
            }

    def start(self) -> dict[Place, int]:
        """The first offset that each place still holds."""
        return self._asked(lambda consumer, places: consumer.beginning_offsets(places, timeout_ms=ANSWER_MS))

    def end(self) -> dict[Place, int]:
        """The end of each place now; less than was committed where a topic was cut or created anew."""
        return self._asked(lambda consumer, places: consumer.end_offsets(places, timeout_ms=ANSWER_MS))

    def _asked(
        self, question: Callable[[KafkaConsumer, list[TopicPartition]], Mapping[TopicPartition, int]]
    ) -> dict[Place, int]:
        with self._our_words(), self._consumer() as consumer:
            places = {
                TopicPartition(topic, partition): (number, partition)
                for number, topic in enumerate(self._topics)
                for partition in sorted(consumer.partitions_for_topic(topic))
            }
            return {places[partition]: at for partition, at in question(consumer, list(places)).items()}

    def write(self, offsets: Mapping[Place, int]) -> None:
        """Set the offsets.

        Raises:
            InputError: the group has members.

        """
        with self._our_words(), self._consumer() as consumer:
            wanted = {
                TopicPartition(self._topics[t], p): OffsetAndMetadata(at, "", -1)
                for (t, p), at in offsets.items()
            }
            try:
                consumer.commit(wanted, timeout_ms=ANSWER_MS)
            except errors.CommitFailedError:
                raise InputError(
                    f"group {self._group} has members; stop all workers, and wait out the session timeout of "
                    "any that died"
                ) from None

    def _our_words(self) -> AbstractContextManager[None]:
        return in_our_words(self._connection, f"group {self._group}", "Read", ", ".join(self._topics))

    def _consumer(self) -> KafkaConsumer:
        return consumer_of(self._connection, group_id=self._group, enable_auto_commit=False)
