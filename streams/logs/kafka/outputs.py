"""Writing to Kafka: the output topics of one worker over one producer, whatever client library it is of.

Where a delivery fails, the producer and all it may still hold are thrown away and a new one is made: the worker
folds and produces its batch again, so nothing is remembered as sent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import NamedTuple, Protocol

from streams.errors import Unavailable
from streams.events.envelope import Headers, value_of
from streams.events.reading import Rejected
from streams.events.record import Record

DETAIL_BYTES = 2_000

MAX_MESSAGE_BYTES = 4 << 20
"""A dead letter is an input message with three headers more; what the topic takes is the topic's setting."""


class Sent(NamedTuple):
    """One message to send."""

    key: bytes | None
    value: bytes | None
    headers: Headers = ()


class Producer(Protocol):
    """A producer as a client library provides it: acks of all replicas, idempotent, in order of sending by key."""

    def send(self, topic: str, messages: Iterable[Sent]) -> None:
        """Hand messages over, to go out soon."""
        ...

    def flush(self) -> None:
        """Wait until all that was sent is acknowledged.

        Raises:
            Unavailable: something was not, within the delivery timeout.
            InputError: the broker refuses something for good.

        """
        ...

    def close(self) -> None:
        """Let go, with whatever is still unsent."""
        ...


class KafkaOutputs:
    """The output topics of one worker.

    Args:
        connect: makes a producer; called again whenever one had to be thrown away.

    """

    def __init__(self, connect: Callable[[], Producer]) -> None:
        self._connect = connect
        self._producer: Producer | None = connect()

    def topic(self, name: str) -> KafkaOutput:
        """An output topic, for lines."""
        return KafkaOutput(self, name)

    def dead_letters(self, name: str, origin: Callable[[Record], str]) -> KafkaDeadLetters:
        """An output topic, for what was refused; `origin` as in `EventLog`."""
        return KafkaDeadLetters(self, name, origin)

    def send(self, topic: str, messages: Iterable[Sent]) -> None:
        """Hand messages over, to go out soon."""
        self._attempt(lambda producer: producer.send(topic, messages))

    def sync(self) -> None:
        """Wait until all that was sent is acknowledged."""
        if self._producer is not None:
            self._attempt(lambda producer: producer.flush())

    def close(self) -> None:
        """Let go of the producer; what was not synced may be lost."""
        if self._producer is not None:
            self._producer.close()
            self._producer = None

    def _attempt(self, effect: Callable[[Producer], None]) -> None:
        if self._producer is None:
            self._producer = self._connect()
        try:
            effect(self._producer)
        except Unavailable:
            self.close()
            raise


@dataclass(frozen=True)
class KafkaOutput:
    """One topic, for writing lines."""

    outputs: KafkaOutputs
    name: str

    def append(self, lines: Sequence[bytes], keys: Sequence[bytes] = ()) -> None:
        """Send lines; those of one key stay in order."""
        self.outputs.send(self.name, map(Sent, keys or repeat(None), lines))

    def sync(self) -> None:
        """Wait until everything sent is acknowledged, on the other topics too."""
        self.outputs.sync()


@dataclass(frozen=True)
class KafkaDeadLetters:
    """Dead letters as the messages they were, with three headers more: `reptide_reason`, `_detail` and `_origin`."""

    outputs: KafkaOutputs
    name: str
    origin: Callable[[Record], str]

    def append(self, rejected: Sequence[Rejected]) -> None:
        """Send dead letters: bytes, key and headers as they came."""
        if rejected:
            self.outputs.send(self.name, map(self._message, rejected))

    def sync(self) -> None:
        """Wait until everything sent is acknowledged, on the other topics too."""
        self.outputs.sync()

    def _message(self, rejected: Rejected) -> Sent:
        record = rejected.record
        why = {"reason": rejected.reason, "detail": rejected.detail, "origin": self.origin(record)}
        added = [
            (f"reptide_{name}", text.encode(errors="backslashreplace")[:DETAIL_BYTES])
            for name, text in why.items()
        ]
        return Sent(record.key, value_of(record), [*record.headers, *added])
