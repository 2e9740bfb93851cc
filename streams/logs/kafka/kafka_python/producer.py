"""Writing to Kafka with kafka-python."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from itertools import count, islice

from kafka import KafkaProducer, errors
from kafka.partitioner.default import murmur2

from streams.logs.kafka.group import Connection
from streams.logs.kafka.kafka_python.batches import BATCH_BYTES, Batch, put, split_nothing
from streams.logs.kafka.kafka_python.client import in_our_words, made, require
from streams.logs.kafka.outputs import MAX_MESSAGE_BYTES, Sent

REQUEST_SHARE = 0.5
"""Of the delivery timeout, for one request: so that a delivery is tried at least twice."""

AT_ONCE = 4_096
"""Messages that are parted by partition together."""

KEPT_BYTES = 256
"""The hash of a longer key is not remembered: messages to be refused may have keys of any length."""

UNSETTLED = 256
"""So many batches are sent before their deliveries are waited for."""


class KafkaPythonProducer:
    """A `Producer` on kafka-python, which is handed whole batches (`streams.logs.kafka.kafka_python.batches`).

    Raises:
        InputError: there is no such topic, or the brokers refuse.
        Unavailable: no broker answers.

    """

    def __init__(
        self, connection: Connection, topics: Iterable[str], delivery_timeout_s: float = 120.0
    ) -> None:
        self._connection = connection
        self._timeout_s = delivery_timeout_s
        self._pending: list[Batch] = []
        self._turns = count()
        require(connection, tuple(topics))
        delivery_ms = round(delivery_timeout_s * 1000)
        with in_our_words(connection, "producing", "Write"):
            self._producer = made(
                KafkaProducer,
                connection,
                acks="all",
                enable_idempotence=True,
                compression_type="lz4",
                linger_ms=20,
                batch_size=BATCH_BYTES,
                max_request_size=MAX_MESSAGE_BYTES,
                delivery_timeout_ms=delivery_ms,
                request_timeout_ms=round(delivery_ms * REQUEST_SHARE),
                max_block_ms=delivery_ms,
                metrics_enabled=False,
            )
        split_nothing(self._producer)

    def send(self, topic: str, messages: Iterable[Sent]) -> None:
        """Hand messages over, to go out soon; those of one key to one partition, in order."""
        left = iter(messages)
        with in_our_words(self._connection, topic, "Write"):
            while portion := [*islice(left, AT_ONCE)]:
                put(self._producer, topic, self._parted(topic, portion), self._pending)
                if len(self._pending) >= UNSETTLED:
                    self._settle()

    def flush(self) -> None:
        """Wait until all that was sent is acknowledged."""
        with in_our_words(self._connection, "producing", "Write"):
            self._settle()

    def _parted(self, topic: str, messages: Iterable[Sent]) -> dict[int, list[Sent]]:
        """Messages by partition, as Java's producer chooses it; those without a key in each in turn, together."""
        partitions, parted = len(self._producer.partitions_for(topic)), dict[int, list[Sent]]()
        keyless = next(self._turns)
        for message in messages:
            partition = (keyless if message.key is None else key_hash(message.key)) % partitions
            parted.setdefault(partition, []).append(message)
        return parted

    def _settle(self) -> None:
        self._producer.flush(self._timeout_s + 1)
        failed = next(filter(None, (batch.failure for batch in self._pending)), None)
        self._pending.clear()
        if failed is not None:
            raise failed

    def close(self) -> None:
        """Let go at once: a producer of kafka-python 3.0 that timed out never sends again."""
        self._pending.clear()
        try:
            self._producer.close(timeout=0)
        except errors.KafkaTimeoutError:
            # Its own close gives up here, with a thread that goes on trying.
            self._producer._sender.force_close()  # noqa: SLF001


def key_hash(key: bytes) -> int:
    """The number whose remainder is the partition, as Java's and kafka-python's producers have it."""
    return _kept_hash(key) if len(key) <= KEPT_BYTES else _hash(key)


def _hash(key: bytes) -> int:
    return int(murmur2(key)) & 0x7FFFFFFF


_kept_hash = lru_cache(maxsize=65_536)(_hash)
