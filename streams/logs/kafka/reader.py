"""Reads one topic whole and alone, with kafka-python: episodes for the trainer, outputs for whoever follows them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from math import nan
from typing import Any, NamedTuple

from kafka import TopicPartition, errors

from streams.errors import InputError
from streams.events.envelope import Headers
from streams.logs.kafka.group import Connection
from streams.logs.kafka.kafka_python.client import (
    ANSWER_MS,
    consumer_of,
    in_our_words,
    topic_incarnations,
)


class Message(NamedTuple):
    """One message of an output topic."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    appended_s: float


class KafkaTopicReader:
    """Reads one topic whole, without a group: whoever reads keeps the positions.

    Raises:
        InputError: there is no such topic, or the log no longer holds a position.
        Unavailable: no broker answers.

    """

    def __init__(self, connection: Connection, topic: str) -> None:
        self.skipped = 0
        """How many messages were passed over, since the log no longer held them."""
        self._connection = connection
        self._topic = topic
        self._open()

    def read(
        self, positions: Mapping[int, int], max_messages: int, timeout_s: float = 0.0
    ) -> tuple[list[Message], dict[int, int]]:
        """At most that many messages from these positions, and the positions after them.

        A partition without a position is read from its earliest message.
        """
        with self._our_words():
            self._go_to(positions)
            try:
                fetched = self._consumer.poll(timeout_ms=round(timeout_s * 1000), max_records=max_messages)
            except errors.OffsetOutOfRangeError as error:
                self._skip(*error.args[0].items())
                fetched = {}
        messages = [
            Message(place.partition, offset, key, value, headers, stamp_ms / 1000 if stamp_ms >= 0 else nan)
            for place, some in fetched.items()
            for offset, key, value, headers, stamp_ms in some
        ]
        self._at.update({message.partition: message.offset + 1 for message in messages})
        return messages, dict(self._at)

    def incarnation(self) -> int:
        """Of the topic as it is now; one that was created anew since it was opened is opened again."""
        (incarnation,) = topic_incarnations(self._connection, (self._topic,))
        if incarnation != self._incarnation:
            self.close()
            self._open()
        return incarnation

    def start(self) -> dict[int, int]:
        """The first offset of each partition."""
        with self._our_words():
            starts = self._consumer.beginning_offsets(self._partitions, timeout_ms=ANSWER_MS)
        return {partition.partition: start for partition, start in starts.items()}

    def end(self) -> dict[int, int]:
        """The end of each partition now."""
        with self._our_words():
            ends = self._consumer.end_offsets(self._partitions, timeout_ms=ANSWER_MS)
        return {partition.partition: end for partition, end in ends.items()}

    def close(self) -> None:
        """Let go of the connections."""
        with self._our_words():
            self._consumer.close(timeout_ms=ANSWER_MS)

    def _open(self) -> None:
        (self._incarnation,) = topic_incarnations(self._connection, (self._topic,))
        with self._our_words():
            self._consumer = consumer_of(self._connection)
            self._partitions = [
                TopicPartition(self._topic, number)
                for number in sorted(self._consumer.partitions_for_topic(self._topic))
            ]
            self._consumer.assign(self._partitions)
        self._at: dict[int, int] = {}

    def _go_to(self, positions: Mapping[int, int]) -> None:
        numbers = [partition.partition for partition in self._partitions]
        if any(number not in positions for number in numbers):
            positions = {**self.start(), **positions}
        for number, partition in zip(numbers, self._partitions, strict=True):
            if positions[number] != self._at.get(number):
                self._consumer.seek(partition, positions[number])
                self._at[number] = positions[number]

    def _skip(self, expired: tuple[TopicPartition, int]) -> None:
        """Go to the earliest message; not where the topic is another one by now."""
        partition, offset = expired
        start = self._consumer.beginning_offsets([partition], timeout_ms=ANSWER_MS)[partition]
        where = f"topic {self._topic} partition {partition.partition}: offset {offset} is to be read next"
        if offset > start:
            raise InputError(f"{where}, which the log does not reach: the topic was created anew or cut")
        warnings.warn(
            f"{where}, the log now starts at {start}: {start - offset} are lost", RuntimeWarning, stacklevel=3
        )
        self.skipped += start - offset
        self._consumer.seek(partition, start)
        self._at[partition.partition] = start

    def _our_words(self) -> Any:
        return in_our_words(self._connection, self._topic, "Read")
