"""A member of a consumer group, on kafka-python."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from typing import Any

from kafka import ConsumerRebalanceListener, KafkaConsumer, OffsetAndMetadata, TopicPartition, errors
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.coordinator.assignors.range import RangePartitionAssignor

from engine.types import Kind
from streams.errors import InputError, Unavailable
from streams.events.envelope import Envelope
from streams.events.record import Offsets, Place, Record
from streams.logs.kafka.group import POLL_INTERVAL_S, Connection, Fetched, InputTopic, OffsetOutOfRange
from streams.logs.kafka.kafka_python.client import (
    ANSWER_MS,
    consumer_of,
    in_our_words,
    input_topics,
    require,
)
from streams.logs.kafka.kafka_python.rebalances import read_on_in_rebalances, take_joins_that_are_done

UNREADABLE = (
    "kafka-python cannot read the message: its frame, or a header's name, is no UTF-8; its bytes are lost"
)


class KafkaGroup:
    """A `GroupClient` on kafka-python.

    Raises:
        InputError: there is no such topic, or the brokers refuse.
        Unavailable: no broker answers.

    """

    def __init__(
        self,
        connection: Connection,
        group: str,
        topics: Sequence[str],
        envelope: Envelope,
        session_timeout_s: float = 45.0,
        heartbeat_s: float = 3.0,
        instance: str | None = None,
        poll_interval_s: float = POLL_INTERVAL_S,
    ) -> None:
        self._connection = connection
        self._group = group
        self._topics = tuple(topics)
        self._envelope = envelope
        self._numbers = {topic: number for number, topic in enumerate(topics)}
        self._changes = _Changes()
        self._refused: dict[Place, int] = {}
        require(connection, self._topics)
        with self._our_words():
            self._consumer = consumer_of(
                connection,
                group_id=group,
                group_instance_id=instance,
                enable_auto_commit=False,
                partition_assignment_strategy=[_assignor(len(topics))],
                session_timeout_ms=round(session_timeout_s * 1000),
                heartbeat_interval_ms=round(heartbeat_s * 1000),
                max_poll_interval_ms=round(1000 * max(poll_interval_s, session_timeout_s)),
            )
            self._consumer.subscribe(topics=list(topics), listener=self._changes)
            for topic in topics:  # a leader that does not know it yet assigns nothing, and all join again
                self._consumer.partitions_for_topic(topic)
            take_joins_that_are_done(self._consumer, self._changes.note_shared)
            if len(topics) == 1:
                read_on_in_rebalances(self._consumer)

    def fetch(self, max_records: int, timeout_s: float) -> Fetched:
        """At most that many next records."""
        let_resumed_go_on(self._consumer)
        with self._our_words():
            try:
                fetched = self._consumer.poll(timeout_ms=round(timeout_s * 1000), max_records=max_records)
            except errors.NoOffsetForPartitionError as error:
                self._consumer.seek_to_beginning(*error.args[0])
                fetched = {}
            except errors.OffsetOutOfRangeError as error:
                [(partition, offset)] = error.args[0].items()
                raise OffsetOutOfRange(self._place(partition), offset) from None
            except errors.LogTruncationError as error:
                place = self._place(next(iter(error.divergent_offsets)))
                raise OffsetOutOfRange(place, self.position(place) or 0, cut=True) from None
            except errors.CorruptRecordError as error:
                return self._unreadable(error)
        take_apart = self._envelope.open
        records = {}
        for partition, messages in fetched.items():
            place = self._place(partition)
            records[place] = [take_apart(place, *message) for message in messages]
        refused, self._refused = self._refused, {}
        revoked, shared = self._changes.since()
        return Fetched(set(map(self._place, revoked)), records, refused, shared)

    def _unreadable(self, error: errors.CorruptRecordError) -> Fetched:
        """Go on behind it: kafka-python would never return from the next poll."""
        fetcher = self._consumer._fetcher  # noqa: SLF001 - no public way reaches it
        partition = fetcher._next_partition_records.topic_partition  # noqa: SLF001
        fetcher._next_partition_records.drain()  # noqa: SLF001
        offset, (topic, number) = self._consumer.position(partition), self._place(partition)
        if "crc" in str(error):
            raise InputError(
                f"topic {partition.topic} partition {number} offset {offset}: its checksum is wrong"
            )
        self._consumer.seek(partition, offset + 1)
        record = Record(
            offset, Kind(topic), None, None, None, raw=b"", fault=UNREADABLE, topic=topic, partition=number
        )
        return Fetched((), {(topic, number): [record]})

    def assigned(self) -> frozenset[Place]:
        """What this member reads."""
        return frozenset(map(self._place, self._consumer.assignment()))

    def topics(self) -> tuple[InputTopic, ...]:
        """Each input topic as it is now."""
        return input_topics(self._connection, self._topics)

    def position(self, place: Place) -> int | None:
        """The offset to fetch next, where it is known."""
        if place not in self.assigned():
            return None
        with self._our_words(), suppress(errors.NoOffsetForPartitionError):
            position: int | None = self._consumer.position(self._partition(place), timeout_ms=ANSWER_MS)
            return position
        return None

    def highwater(self, place: Place) -> int | None:
        """The end of the log as the last fetch told it."""
        known: int | None = None
        if place in self.assigned():
            known = self._consumer.highwater(self._partition(place))
        return known

    def start(self, place: Place) -> int:
        """The first offset of the log."""
        with self._our_words():
            partition = self._partition(place)
            return int(self._consumer.beginning_offsets([partition], timeout_ms=ANSWER_MS)[partition])

    def end(self, places: Collection[Place]) -> dict[Place, int]:
        """The end of the log now."""
        with self._our_words():
            ends = self._consumer.end_offsets(list(map(self._partition, places)), timeout_ms=ANSWER_MS)
        return {self._place(partition): end for partition, end in ends.items()}

    def seek(self, place: Place, offset: int) -> None:
        """Fetch from here on."""
        with self._our_words():
            self._consumer.seek(self._partition(place), offset)

    def pause(self, places: Collection[Place]) -> None:
        """Fetch nothing of these places."""
        with self._our_words():
            self._consumer.pause(*map(self._partition, self.assigned().intersection(places)))

    def resume(self, places: Collection[Place]) -> None:
        """Fetch again."""
        with self._our_words():
            self._consumer.resume(*map(self._partition, self.assigned().intersection(places)))

    def commit(self, offsets: Offsets) -> None:
        """Keep the offsets with the group, if it still knows this member."""
        told = {
            self._partition(place): OffsetAndMetadata(offset, "", -1) for place, offset in offsets.items()
        }
        with self._our_words():
            try:
                self._consumer.commit(told, timeout_ms=ANSWER_MS)
            except (errors.CommitFailedError, errors.RebalanceInProgressError):  # the next poll joins again
                self._refused.update(offsets)

    def close(self) -> None:
        """Leave the group; what it did not take in the middle of a rebalance is told first, once that is over."""
        try:
            with suppress(Unavailable):
                self._tell_what_was_refused()
        finally:
            with self._our_words():
                self._consumer.close(autocommit=False, timeout_ms=ANSWER_MS)

    def _tell_what_was_refused(self) -> None:
        """Commit it again, as far as it was not taken away meanwhile."""
        coordinator = self._consumer._coordinator  # noqa: SLF001 - no public way ends a rebalance
        if not self._refused or not coordinator.rebalance_in_progress():
            return
        with self._our_words():
            coordinator.ensure_active_group(ANSWER_MS)
        kept = self.assigned().difference(map(self._place, self._changes.since()[0]))
        if told := {place: at for place, at in self._refused.items() if place in kept}:
            self.commit(told)

    def _our_words(self) -> Any:
        return in_our_words(self._connection, f"group {self._group}", "Read", ", ".join(self._topics))

    def _place(self, partition: TopicPartition) -> Place:
        return self._numbers[partition.topic], partition.partition

    def _partition(self, place: Place) -> TopicPartition:
        return TopicPartition(self._topics[place[0]], place[1])


class _Changes(ConsumerRebalanceListener):  # type: ignore[misc]
    """Notes which partitions were taken away. It is called on the thread that does the I/O, and does none."""

    def __init__(self) -> None:
        self._revoked: set[TopicPartition] = set()
        self._shared = False

    def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Called while a rebalance is under way; lost partitions come here too."""
        self._revoked.update(revoked)

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Nothing to do: the consumer knows."""

    def note_shared(self) -> None:
        """Called where the group has shared its partitions anew."""
        self._shared = True

    def since(self) -> tuple[set[TopicPartition], bool]:
        """Those taken away since the last call, and whether the group has shared its partitions anew."""
        (revoked, self._revoked), (shared, self._shared) = (self._revoked, set()), (self._shared, False)
        return revoked, shared


def let_resumed_go_on(consumer: KafkaConsumer) -> None:
    """Work around a fault of kafka-python 3.0.12, on any broker: a partition paused half read may stand still.

    Its records are taken up again only while this is None, and an exhausted one is left in its place.
    """
    fetcher = consumer._fetcher  # noqa: SLF001 - no public way reaches it
    if not fetcher._next_partition_records:  # noqa: SLF001
        fetcher._next_partition_records = None  # noqa: SLF001


def _assignor(topics: int) -> Any:
    """With two topics range, which never parts a pair; cooperative-sticky moves fewer partitions, but does."""
    return CooperativeStickyAssignor if topics == 1 else RangePartitionAssignor
