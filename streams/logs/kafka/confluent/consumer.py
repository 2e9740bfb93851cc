"""A member of a consumer group, on confluent-kafka (librdkafka): a fraction of the CPU that kafka-python takes."""

# ruff: noqa: SLF001 - the codes of librdkafka's own errors begin with an underscore

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from contextlib import AbstractContextManager, suppress
from functools import partial
from typing import Literal

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec

from streams.errors import Unavailable
from streams.events.envelope import Envelope
from streams.events.record import Offsets, Place, Record
from streams.logs.kafka.broker_errors import refused
from streams.logs.kafka.confluent.client import (
    ANSWER_S,
    LOGIN,
    common,
    describe,
    in_our_words,
    input_topics,
    tell_throttled,
    translated,
)
from streams.logs.kafka.confluent.messages import opened
from streams.logs.kafka.group import POLL_INTERVAL_S, Connection, Fetched, InputTopic, OffsetOutOfRange

OUT_OF_RANGE = {KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE}
CUT = {KafkaError._LOG_TRUNCATION}


class ConfluentGroup:
    """A `GroupClient` on confluent-kafka.

    With `protocol` "consumer" (KIP-848) brokers share out the partitions, and say how long a session lasts and how
    often a heart beats: `session_timeout_s` and `heartbeat_s` are those of "classic".

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
        protocol: Literal["classic", "consumer"] = "classic",
    ) -> None:
        self._connection, self._group = connection, group
        self._topics = tuple(topics)
        self._envelope = envelope
        self._numbers = {topic: number for number, topic in enumerate(topics)}
        self._positions: dict[Place, int | None] = {}  # of what is assigned; None: at its beginning
        self._unbegun: set[Place] = set()  # given to this member while the broker did not say where to begin
        self._revoked: set[Place] = set()
        self._shared = self._leaving = False
        self._arrived: dict[Place, list[Record]] = {}  # and not handed out yet
        self._refused: dict[Place, int] = {}
        self._failed: dict[Hashable, Exception] = {}
        alone = len(topics) == 1
        self._incremental = alone or protocol == "consumer"
        describe(connection, self._topics)
        with self._our_words():
            self._admin = AdminClient(common(connection))
            self._consumer = Consumer({
                "group.id": group,
                **({"group.instance.id": instance} if instance else {}),
                "enable.auto.commit": False,
                "auto.offset.reset": "error",
                **(
                    {"group.protocol": "consumer", "group.remote.assignor": "uniform" if alone else "range"}
                    if protocol == "consumer"
                    else {
                        "partition.assignment.strategy": "cooperative-sticky" if alone else "range",
                        "session.timeout.ms": round(session_timeout_s * 1000),
                        "heartbeat.interval.ms": round(heartbeat_s * 1000),
                    }
                ),
                "max.poll.interval.ms": round(1000 * max(poll_interval_s, session_timeout_s)),
                "enable.partition.eof": True,  # tells the end of a log that ends in no record
                "fetch.queue.backoff.ms": 10,  # the default of a second stalls whoever reads fast
                "fetch.wait.max.ms": 100,  # a partition that is resumed waits for the fetch under way
                "error_cb": self._notice,
                "throttle_cb": tell_throttled,
                "on_commit": self._on_commit,
                **common(connection),
            })  # fmt: skip
            self._consumer.subscribe(
                list(topics), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_revoke
            )

    def fetch(self, max_records: int, timeout_s: float) -> Fetched:
        """At most that many next records."""
        if self._failed:
            raise self._failed.pop(next(iter(self._failed)))
        with self._our_words():
            if self._unbegun:
                self._begin()
            # Asked for many, it waits for as many until the time is over; one alone comes at once.
            if not self._take(max_records, 0) and self._take(1, timeout_s) and max_records > 1:
                self._take(max_records - 1, 0)
        records, self._arrived = self._arrived, {}
        revoked, self._revoked = self._revoked, set()
        (refused, self._refused), (shared, self._shared) = (self._refused, {}), (self._shared, False)
        return Fetched(revoked, records, refused, shared)

    def _take(self, max_records: int, timeout_s: float) -> bool:
        """Take what comes; false where nothing did. What is revoked meanwhile is dropped, even if it came before."""
        messages = self._consumer.consume(max_records, timeout_s)
        come: dict[tuple[str, int], list[Message]] = {}
        for message in messages:
            error = message.error()
            if error is None:
                come.setdefault((message.topic(), message.partition()), []).append(message)
            else:
                self._notice(error, message)
        for (topic, partition), some in come.items():
            place = (self._numbers[topic], partition)
            if place in self._positions:
                self._arrived.setdefault(place, []).extend(map(partial(opened, self._envelope, place), some))
                self._positions[place] = some[-1].offset() + 1
        return bool(messages)

    def _notice(self, error: KafkaError, message: Message | None = None) -> None:
        """Keep what must be raised at the next fetch: records that came with it are handed out first."""
        code = error.code()
        if message is not None and code in OUT_OF_RANGE | CUT | {KafkaError._PARTITION_EOF}:
            place = (self._numbers[message.topic()], message.partition())
            if place not in self._positions:
                return
            if code in OUT_OF_RANGE | CUT:
                self._failed[place] = OffsetOutOfRange(place, self._positions[place] or 0, cut=code in CUT)
            else:
                self._positions[place] = message.offset()
            return
        subject = f"group {self._group}"
        if code == KafkaError._FATAL:  # a heartbeat told of it: of a member, it is nothing else
            error = KafkaError(KafkaError.FENCED_INSTANCE_ID, fatal=True)
        failure = translated(error, self._connection, subject, "Read", ", ".join(self._topics))
        if error.fatal() and isinstance(failure, Unavailable):
            failure = refused(self._connection, subject, error.name(), "start this worker again")
        if not isinstance(failure, Unavailable) or code in LOGIN:
            self._failed[code] = failure

    def _on_assign(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        """Begin with what was given; where the broker is away, at the next fetch."""
        if self._leaving:  # a broker does not answer a member that leaves, which would wait for it
            self._assign([])
            return
        self._shared = True
        self._unbegun.update(map(self._place, partitions))
        try:
            self._begin()
        except KafkaException:
            self._assign([])  # else librdkafka would begin by itself, as its own settings say

    def _begin(self) -> None:
        """Start each partition at its commit, else at its beginning."""
        begun = self._consumer.committed(list(map(self._partition, self._unbegun)), timeout=ANSWER_S)
        for partition in begun:
            if partition.error is not None:
                raise KafkaException(partition.error)
        for partition in begun:
            known = partition.offset >= 0
            self._positions[self._place(partition)] = partition.offset if known else None
            partition.offset = partition.offset if known else OFFSET_BEGINNING
        self._assign(begun)
        self._unbegun.clear()

    def _on_commit(self, error: KafkaError | None, partitions: list[TopicPartition]) -> None:
        """Note what the group did not take, and what it never will."""
        if error is not None:
            self._notice(error)
        failed = [partition for partition in partitions if error is not None or partition.error is not None]
        self._refused.update({self._place(partition): partition.offset for partition in failed})

    def _assign(self, partitions: list[TopicPartition]) -> None:
        (self._consumer.incremental_assign if self._incremental else self._consumer.assign)(partitions)

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Drop what was taken away, and note it."""
        begun = [partition for partition in partitions if self._place(partition) in self._positions]
        for place in map(self._place, partitions):
            self._revoked.add(place)
            self._unbegun.discard(place)
            self._positions.pop(place, None)
            self._arrived.pop(place, None)
            self._failed.pop(place, None)
        if self._incremental:
            consumer.incremental_unassign(begun)
        else:
            consumer.unassign()

    def assigned(self) -> frozenset[Place]:
        """What this member reads."""
        return frozenset(self._positions)

    def topics(self) -> tuple[InputTopic, ...]:
        """Each input topic as it is now."""
        return input_topics(self._connection, self._topics)

    def position(self, place: Place) -> int | None:
        """The offset to fetch next, where it is known."""
        return self._positions.get(place)

    def highwater(self, place: Place) -> int | None:
        """The end of the log as the last fetch told it."""
        with suppress(KafkaException):
            end = int(self._consumer.get_watermark_offsets(self._partition(place), cached=True)[1])
            return end if end >= 0 else None
        return None

    def start(self, place: Place) -> int:
        """The first offset of the log."""
        with self._our_words():
            return int(self._consumer.get_watermark_offsets(self._partition(place), timeout=ANSWER_S)[0])

    def end(self, places: Collection[Place]) -> dict[Place, int]:
        """The end of the log now."""
        asked = {self._partition(place): OffsetSpec.latest() for place in places}
        with self._our_words():
            answers = self._admin.list_offsets(asked, request_timeout=ANSWER_S)
            return {self._place(partition): answer.result().offset for partition, answer in answers.items()}

    def seek(self, place: Place, offset: int) -> None:
        """Fetch from here on. Assigned anew, since librdkafka seeks in no partition that it stopped fetching."""
        self._positions[place] = offset
        with self._our_words():
            if self._incremental:
                self._consumer.incremental_unassign([self._partition(place)])
                self._consumer.incremental_assign([TopicPartition(self._topics[place[0]], place[1], offset)])
            else:
                self._consumer.assign([
                    TopicPartition(self._topics[topic], number, OFFSET_BEGINNING if at is None else at)
                    for (topic, number), at in self._positions.items()
                ])  # fmt: skip

    def pause(self, places: Collection[Place]) -> None:
        """Fetch nothing of these places."""
        with self._our_words():
            self._consumer.pause([self._partition(place) for place in self.assigned().intersection(places)])

    def resume(self, places: Collection[Place]) -> None:
        """Fetch again."""
        with self._our_words():
            self._consumer.resume([self._partition(place) for place in self.assigned().intersection(places)])

    def commit(self, offsets: Offsets) -> None:
        """Keep the offsets with the group, if it still knows this member. Does not wait: no limit could be set."""
        told = [
            TopicPartition(self._topics[topic], number, offset) for (topic, number), offset in offsets.items()
        ]
        with self._our_words():
            self._consumer.commit(offsets=told, asynchronous=True)

    def close(self) -> None:
        """Leave the group. While brokers still hold back the answer to its joining, this takes up to 5 s."""
        self._leaving = True
        with self._our_words():
            self._consumer.close()

    def _our_words(self) -> AbstractContextManager[None]:
        return in_our_words(self._connection, f"group {self._group}", "Read", ", ".join(self._topics))

    def _place(self, partition: TopicPartition) -> Place:
        return self._numbers[partition.topic], partition.partition

    def _partition(self, place: Place) -> TopicPartition:
        return TopicPartition(self._topics[place[0]], place[1])
