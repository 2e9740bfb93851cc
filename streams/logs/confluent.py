"""Kafka with confluent-kafka (librdkafka), an optional extra: the same log and outputs for a fraction of the CPU."""

# ruff: noqa: SLF001 - the codes of librdkafka's own errors begin with an underscore

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec

from streams.errors import InputError, ReptideError, SettingsError, Unavailable
from streams.logs.base import Offsets, Place, Record
from streams.logs.envelope import Envelope
from streams.logs.group import Connection, Fetched, OffsetOutOfRange, incarnation
from streams.logs.kafka_outputs import MAX_MESSAGE_BYTES, Sent

ANSWER_S = 5.0
"""How long one question to a broker may take."""

NAMES = {
    "ssl_cafile": "ssl.ca.location", "ssl_certfile": "ssl.certificate.location", "ssl_keyfile": "ssl.key.location",
    "ssl_password": "ssl.key.password", "ssl_ciphers": "ssl.cipher.suites", "ssl_crlfile": "ssl.crl.location",
    "security_protocol": "security.protocol", "sasl_mechanism": "sasl.mechanism",
    "sasl_plain_username": "sasl.username", "sasl_plain_password": "sasl.password",
    "sasl_kerberos_service_name": "sasl.kerberos.service.name",
}  # fmt: skip
"""Settings of TLS and SASL as librdkafka names them."""

REFUSED = {
    KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED, KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED,
}  # fmt: skip
UNKNOWN_TOPIC = {KafkaError._UNKNOWN_TOPIC, KafkaError.UNKNOWN_TOPIC_OR_PART}
TOO_LARGE = {KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE}
OUT_OF_RANGE = {KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE}


class ConfluentGroup:
    """A `GroupClient` on confluent-kafka.

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
    ) -> None:
        self._servers, self._group = connection.servers, group
        self._topics = tuple(topics)
        self._envelope = envelope
        self._numbers = {topic: number for number, topic in enumerate(topics)}
        self._revoked: set[Place] = set()
        self._positions: dict[Place, int | None] = {}
        self._failed: list[Exception] = []
        self._cooperative = len(topics) == 1
        _described(connection, self._topics)
        with _in_our_words(self._servers, f"group {group}"):
            self._admin = AdminClient(_common(connection))
            self._consumer = Consumer({
                "group.id": group,
                "enable.auto.commit": False,
                "auto.offset.reset": "error",
                "partition.assignment.strategy": "cooperative-sticky" if self._cooperative else "range",
                "session.timeout.ms": round(session_timeout_s * 1000),
                "heartbeat.interval.ms": round(heartbeat_s * 1000),
                "enable.partition.eof": True,  # tells the end of a log that ends in no record
                "fetch.queue.backoff.ms": 10,  # the default of a second stalls whoever reads fast
                "fetch.wait.max.ms": 100,  # a partition that is resumed waits for the fetch under way
                "error_cb": self._notice,
                **_common(connection),
            })  # fmt: skip
            self._consumer.subscribe(
                list(topics), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_revoke
            )
        self._connection = connection

    def fetch(self, max_records: int, timeout_s: float) -> Fetched:
        """At most that many next records."""
        if self._failed:
            raise self._failed.pop(0)
        with _in_our_words(self._servers, f"group {self._group}"):
            # Asked for many, it waits for as many until the time is over; one alone comes at once.
            messages = self._consumer.consume(max_records, 0)
            if not messages and (messages := self._consumer.consume(1, timeout_s)) and max_records > 1:
                messages += self._consumer.consume(max_records - 1, 0)
        records = self._opened(messages)
        revoked, self._revoked = self._revoked, set()
        return Fetched(revoked, records)

    def _opened(self, messages: Sequence[Message]) -> dict[Place, list[Record]]:
        records: dict[tuple[str, int], list[Record]] = {}
        take_apart, numbers = self._envelope.open, self._numbers
        for message in messages:
            error = message.error()
            if error is not None:
                self._notice(error, message)
                continue
            topic, partition = message.topic(), message.partition()
            record = take_apart(
                (numbers[topic], partition),
                message.offset(),
                message.key(),
                message.value(),
                message.headers(),
                message.timestamp()[1],
            )
            records.setdefault((topic, partition), []).append(record)
        opened = {(numbers[topic], partition): found for (topic, partition), found in records.items()}
        self._positions.update({place: found[-1].offset + 1 for place, found in opened.items()})
        return opened

    def _notice(self, error: KafkaError, message: Message | None = None) -> None:
        """Keep what must be raised at the next fetch: records that came with it are handed out first."""
        code = error.code()
        if message is not None and code == KafkaError._PARTITION_EOF:
            self._positions[self._numbers[message.topic()], message.partition()] = message.offset()
        elif message is not None and code in OUT_OF_RANGE:
            place = (self._numbers[message.topic()], message.partition())
            self._failed.append(OffsetOutOfRange(place, self._positions.get(place) or 0))
        elif code in REFUSED | UNKNOWN_TOPIC:
            self._failed.append(_translated(error, self._servers, f"group {self._group}"))

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Start each partition at its commit, else at its beginning."""
        for partition in consumer.committed(partitions, timeout=ANSWER_S) if partitions else ():
            known = partition.offset >= 0
            self._positions[self._place(partition)] = partition.offset if known else None
            wanted = next(p for p in partitions if self._place(p) == self._place(partition))
            wanted.offset = partition.offset if known else OFFSET_BEGINNING
        (consumer.incremental_assign if self._cooperative else consumer.assign)(partitions)

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Note what was taken away."""
        for partition in partitions:
            self._revoked.add(self._place(partition))
            self._positions.pop(self._place(partition), None)
        if self._cooperative:
            consumer.incremental_unassign(partitions)
        else:
            consumer.unassign()

    def assigned(self) -> frozenset[Place]:
        """What this member reads."""
        return frozenset(self._positions)

    def partitions(self) -> list[int]:
        """Number of partitions of each input topic."""
        described = _described(self._connection, self._topics)
        return [len(described[topic].partitions) for topic in self._topics]

    def incarnations(self) -> tuple[int, ...]:
        """Of each input topic, from its id."""
        described = _described(self._connection, self._topics)
        return tuple(incarnation(topic, _id_bytes(described[topic])) for topic in self._topics)

    def position(self, place: Place) -> int | None:
        """The offset to fetch next, where it is known."""
        return self._positions.get(place)

    def highwater(self, place: Place) -> int | None:
        """The end of the log as the last fetch told it."""
        _, end = self._consumer.get_watermark_offsets(self._partition(place), cached=True)
        return end if end >= 0 else None

    def start(self, place: Place) -> int:
        """The first offset of the log."""
        with _in_our_words(self._servers, f"group {self._group}"):
            return int(self._consumer.get_watermark_offsets(self._partition(place), timeout=ANSWER_S)[0])

    def end(self, places: Collection[Place]) -> dict[Place, int]:
        """The end of the log now."""
        asked = {self._partition(place): OffsetSpec.latest() for place in places}
        with _in_our_words(self._servers, f"group {self._group}"):
            answers = self._admin.list_offsets(asked, request_timeout=ANSWER_S)
            return {self._place(partition): answer.result().offset for partition, answer in answers.items()}

    def seek(self, place: Place, offset: int) -> None:
        """Fetch from here on. Assigned anew, since librdkafka seeks in no partition that it stopped fetching."""
        self._positions[place] = offset
        with _in_our_words(self._servers, f"group {self._group}"):
            if self._cooperative:
                self._consumer.incremental_unassign([self._partition(place)])
                self._consumer.incremental_assign([TopicPartition(self._topics[place[0]], place[1], offset)])
            else:
                self._consumer.assign([
                    TopicPartition(self._topics[topic], number, OFFSET_BEGINNING if at is None else at)
                    for (topic, number), at in self._positions.items()
                ])  # fmt: skip

    def pause(self, places: Collection[Place]) -> None:
        """Fetch nothing of these places."""
        self._consumer.pause([self._partition(place) for place in self.assigned().intersection(places)])

    def resume(self, places: Collection[Place]) -> None:
        """Fetch again."""
        self._consumer.resume([self._partition(place) for place in self.assigned().intersection(places)])

    def commit(self, offsets: Offsets) -> None:
        """Keep the offsets with the group, if it still knows this member. Does not wait: no limit could be set."""
        told = [
            TopicPartition(self._topics[topic], number, offset) for (topic, number), offset in offsets.items()
        ]
        with _in_our_words(self._servers, f"group {self._group}"):
            self._consumer.commit(offsets=told, asynchronous=True)

    def close(self) -> None:
        """Leave the group."""
        self._consumer.close()

    def _place(self, partition: TopicPartition) -> Place:
        return self._numbers[partition.topic], partition.partition

    def _partition(self, place: Place) -> TopicPartition:
        return TopicPartition(self._topics[place[0]], place[1])


class ConfluentProducer:
    """A `Producer` on confluent-kafka; partitions by murmur2, which is not librdkafka's default.

    Raises:
        InputError: there is no such topic, or the brokers refuse.
        Unavailable: no broker answers.

    """

    def __init__(
        self, connection: Connection, topics: Iterable[str], delivery_timeout_s: float = 120.0
    ) -> None:
        self._servers = connection.servers
        self._timeout_s = delivery_timeout_s
        self._failed: list[KafkaError] = []
        _described(connection, tuple(topics))
        with _in_our_words(self._servers, "producing"):
            self._producer = Producer({
                "acks": "all",
                "enable.idempotence": True,
                "compression.type": "lz4",
                "linger.ms": 20,
                "batch.size": 131_072,
                "message.max.bytes": MAX_MESSAGE_BYTES,
                "message.timeout.ms": round(delivery_timeout_s * 1000),
                "partitioner": "murmur2_random",
                "delivery.report.only.error": True,
                "on_delivery": self._on_delivery,
                **_common(connection),
            })  # fmt: skip

    def send(self, topic: str, messages: Iterable[Sent]) -> None:
        """Hand messages over, to go out soon."""
        produce = self._producer.produce
        with _in_our_words(self._servers, topic):
            for key, value, headers in messages:
                while True:
                    try:
                        produce(topic, value, key, headers=list(headers)) if headers else produce(
                            topic, value, key
                        )
                        break
                    except BufferError:
                        self._producer.poll(0.1)
                        self._raise_failed(topic)

    def flush(self) -> None:
        """Wait until all that was sent is acknowledged."""
        with _in_our_words(self._servers, "producing"):
            unsent = self._producer.flush(self._timeout_s + 1)
        self._raise_failed("producing")
        if unsent:
            raise Unavailable(f"{self._servers} does not answer for producing ({unsent} messages unsent)")

    def close(self) -> None:
        """Let go at once."""
        self._producer.purge()
        self._failed.clear()

    def _on_delivery(self, error: KafkaError | None, _: Message) -> None:
        if error is not None:
            self._failed.append(error)

    def _raise_failed(self, subject: str) -> None:
        failed, self._failed = self._failed, []
        if failed:
            raise _translated(failed[0], self._servers, subject)


def _common(connection: Connection) -> dict[str, Any]:
    """Settings of every client."""
    unknown = sorted(set(connection.security) - set(NAMES))
    if unknown:
        raise SettingsError(f"kafka.security: confluent-kafka has no {', '.join(unknown)}; kafka-python has")
    named = {NAMES[name]: value for name, value in connection.security.items()}
    return {"bootstrap.servers": connection.servers, "log_level": 0, **named}


def _described(connection: Connection, topics: tuple[str, ...]) -> Mapping[str, Any]:
    """Metadata of topics, all of which must exist."""
    with _in_our_words(connection.servers, ", ".join(topics)):
        admin = AdminClient(_common(connection))
        asked = admin.describe_topics(TopicCollection(list(topics)), request_timeout=ANSWER_S)
        return {topic: answer.result() for topic, answer in asked.items()}


def _id_bytes(described: Any) -> bytes | None:
    """A topic's id; None where the broker gives none."""
    number = (described.topic_id.get_most_significant_bits() << 64) | (
        described.topic_id.get_least_significant_bits() & (1 << 64) - 1
    )
    return (number & (1 << 128) - 1).to_bytes(16, "big") if number else None


@contextmanager
def _in_our_words(servers: str, subject: str) -> Iterator[None]:
    """Raise what confluent-kafka raises as an error of ours; see `streams.logs.kafka_client`."""
    try:
        yield
    except KafkaException as error:
        raise _translated(error.args[0], servers, subject) from None
    except (ValueError, TypeError) as error:
        raise SettingsError(
            f"kafka: a setting for {servers} is not accepted ({type(error).__name__})"
        ) from None


def _translated(error: KafkaError, servers: str, subject: str) -> ReptideError:
    code, name = error.code(), error.name()
    if code in REFUSED:
        return InputError(f"{servers} refuses {subject}: {name}. Check kafka.security and the access rules")
    if code in UNKNOWN_TOPIC:
        return InputError(f"{servers}: no topic {subject}; `reptide topics create` creates it")
    if code in TOO_LARGE:
        return InputError(
            f"{servers}: a message for {subject} is larger than its limit: raise max.message.bytes of the topic "
            "(`reptide topics check` compares it)"
        )
    if code == KafkaError._INVALID_ARG:
        return SettingsError(f"kafka: a setting for {servers} is not accepted ({name}): check kafka.security")
    return Unavailable(f"{servers} does not answer for {subject} ({name})")
