"""Writing to Kafka with confluent-kafka."""

from __future__ import annotations

from collections.abc import Iterable

from confluent_kafka import KafkaError, Message, Producer

from streams.errors import Unavailable
from streams.logs.kafka.confluent.client import common, describe, in_our_words, tell_throttled, translated
from streams.logs.kafka.group import Connection
from streams.logs.kafka.outputs import MAX_MESSAGE_BYTES, Sent


class ConfluentProducer:
    """A `Producer` on confluent-kafka; partitions by murmur2, which is not librdkafka's default.

    Raises:
        InputError: there is no such topic, or the brokers refuse.
        Unavailable: no broker answers.

    """

    def __init__(
        self, connection: Connection, topics: Iterable[str], delivery_timeout_s: float = 120.0
    ) -> None:
        self._connection = connection
        self._timeout_s = delivery_timeout_s
        self._failed: tuple[KafkaError, str] | None = None
        """The first of the deliveries that failed since they were last asked for, and its topic."""
        describe(connection, tuple(topics))
        with in_our_words(connection, "producing"):
            self._producer = Producer({
                "acks": "all",
                "enable.idempotence": True,
                "compression.type": "lz4",
                "linger.ms": 20,
                "batch.size": 131_072,
                "message.max.bytes": MAX_MESSAGE_BYTES,
                "message.timeout.ms": round(delivery_timeout_s * 1000),
                "partitioner": "murmur2_random",
                "allow.auto.create.topics": False,
                "delivery.report.only.error": True,
                "on_delivery": self._on_delivery,
                "throttle_cb": tell_throttled,
                **common(connection),
            })  # fmt: skip

    def send(self, topic: str, messages: Iterable[Sent]) -> None:
        """Hand messages over, to go out soon."""
        produce = self._producer.produce
        with in_our_words(self._connection, topic, "Write"):
            for key, value, headers in messages:
                while True:
                    try:
                        produce(topic, value, key, headers=list(headers)) if headers else produce(
                            topic, value, key
                        )
                        break
                    except BufferError:
                        self._producer.poll(0.1)
                        self._raise_failed()

    def flush(self) -> None:
        """Wait until all that was sent is acknowledged."""
        with in_our_words(self._connection, "producing", "Write"):
            unsent = self._producer.flush(self._timeout_s + 1)
        self._raise_failed()
        if unsent:
            servers = self._connection.servers
            raise Unavailable(f"{servers} does not answer for producing ({unsent} messages unsent)")

    def close(self) -> None:
        """Let go at once."""
        self._producer.purge()
        self._failed = None

    def _on_delivery(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._failed = self._failed or (error, message.topic() or "producing")

    def _raise_failed(self) -> None:
        failed, self._failed = self._failed, None
        if failed is not None:
            error, topic = failed
            raise translated(error, self._connection, topic, "Write")
