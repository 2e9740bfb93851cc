"""Writing to Kafka with kafka-python."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from kafka import KafkaProducer, errors
from kafka.partitioner.default import murmur2

from streams.logs.kafka.group import Connection
from streams.logs.kafka.kafka_python.client import in_our_words, made, require
from streams.logs.kafka.outputs import MAX_MESSAGE_BYTES, Sent

REQUEST_SHARE = 0.5
"""Of the delivery timeout, for one request: so that a delivery is tried at least twice."""

UNSETTLED = 32_768
"""So many messages are sent before their deliveries are waited for: kafka-python keeps 570 bytes of each."""


class KafkaPythonProducer:
    """A `Producer` on kafka-python.

    Measured a message of 170 bytes: 19 us of CPU as `send` chooses the partition, 13 with the partition
    given, which is the hash of the key, remembered for keys met lately.

    Raises:
        InputError: there is no such topic, or the brokers refuse.
        Unavailable: no broker answers.

    """

    def __init__(
        self, connection: Connection, topics: Iterable[str], delivery_timeout_s: float = 120.0
    ) -> None:
        self._connection = connection
        self._timeout_s = delivery_timeout_s
        self._pending: list[Any] = []
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
                batch_size=131_072,
                max_request_size=MAX_MESSAGE_BYTES,
                delivery_timeout_ms=delivery_ms,
                request_timeout_ms=round(delivery_ms * REQUEST_SHARE),
                max_block_ms=delivery_ms,
                metrics_enabled=False,
            )

    def send(self, topic: str, messages: Iterable[Sent]) -> None:
        """Hand messages over, to go out soon."""
        send, keep = self._producer.send, self._pending.append
        with in_our_words(self._connection, topic, "Write"):
            partitions = len(self._producer.partitions_for(topic))
            for key, value, headers in messages:
                partition = None if key is None else key_hash(key) % partitions
                if value is None or headers:
                    key, headers = _acceptable(key, value, headers)
                keep(send(topic, value, key, headers or None, partition))
                if len(self._pending) >= UNSETTLED:
                    self._settle()

    def flush(self) -> None:
        """Wait until all that was sent is acknowledged."""
        with in_our_words(self._connection, "producing", "Write"):
            self._settle()

    def _settle(self) -> None:
        self._producer.flush(self._timeout_s + 1)
        # After a flush all are done; asking each for its value costs as much as sending a tenth of it.
        failed = next(filter(None, (sent.exception for sent in self._pending)), None)
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


@lru_cache(maxsize=65_536)
def key_hash(key: bytes) -> int:
    """The number whose remainder is the partition, as Java's and kafka-python's producers have it."""
    return int(murmur2(key)) & 0x7FFFFFFF


def _acceptable(
    key: bytes | None, value: bytes | None, headers: Any
) -> tuple[bytes | None, list[tuple[str, bytes]]]:
    """What kafka-python takes: no null header, and not both key and value null; an empty one stands for it."""
    return b"" if key is None and value is None else key, [(name, text or b"") for name, text in headers]
