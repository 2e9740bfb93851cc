"""The last messages of a topic, looked at before a worker reads them: `reptide topics check` says what is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan

from engine.problem import Problem
from streams.events.decoding import decode
from streams.events.envelope import Envelope
from streams.events.reading import Rejected
from streams.events.record import NULL_VALUE, Polled
from streams.logs.kafka.group import Connection
from streams.logs.kafka.reader import KafkaTopicReader, Message

SAMPLED = 200
"""Recent messages looked at in each partition."""


def sample(connection: Connection, topic: str) -> list[Message]:
    """The last messages of each partition."""
    reader = KafkaTopicReader(connection, topic)
    try:
        end, positions = reader.end(), reader.start()
        positions = {number: max(start, end[number] - SAMPLED) for number, start in positions.items()}
        sampled: list[Message] = []
        while any(positions[number] < end[number] for number in end):
            messages, positions = reader.read(positions, SAMPLED, timeout_s=1.0)
            sampled += messages
            if not messages:
                break
        return sampled
    finally:
        reader.close()


def unreadable(
    envelope: Envelope, problem: Problem, null_values: bool, topic: int, messages: Sequence[Message]
) -> Sequence[Rejected]:
    """Those of the messages of an input topic, by its number, that would be dead letters wherever they lay.

    `null_values`: whether a message without a value is one of them.
    """
    records = [
        envelope.open(
            (topic, m.partition), m.offset, m.key, m.value, m.headers,
            -1 if isnan(m.appended_s) else round(1000 * m.appended_s),
        )
        for m in messages
    ]  # fmt: skip
    judged = [record for record in records if null_values or record.fault != NULL_VALUE]
    incarnations = (0,) * envelope.topics
    parts = [Polled(record.partition, incarnations, record.offset, [record]) for record in judged]
    return decode(parts, problem).rejected
