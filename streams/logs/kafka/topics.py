"""The topics of a stream: creating them, and checking what goes wrong silently.

A partition count, a retention or a producer's partitioner that does not fit loses nothing at once: labels
merely stop finding their observations. So it is looked for here.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType

from streams.errors import InputError
from streams.events.reading import Rejected
from streams.logs.kafka import refusals
from streams.logs.kafka.group import Connection
from streams.logs.kafka.kafka_python.client import describe, in_our_words, made
from streams.logs.kafka.kafka_python.producer import key_hash
from streams.logs.kafka.last_messages import sample
from streams.logs.kafka.reader import Message
from streams.settings.places import FOR_EVER_S

DEAD_LETTER_BYTES = 2 << 20
"""`max.message.bytes` of the dead-letter topic: its messages are longer than those of the input by three headers."""

TIMESTAMPS, BY_BROKER = "message.timestamp.type", "LogAppendTime"
"""Event times are bounded by the timestamps of messages, which the clock of a producer should not decide; nor should
that of a worker decide how long its outputs are kept, or whether they are taken at all."""

SNAPSHOT_S, SPARE_S = 86_400.0, 7 * 86_400.0
"""A snapshot is taken once a day; a restore, or workers that were all away, may take a week."""

TOPIC_EXISTS, TOPIC_AUTHORIZATION_FAILED = 36, 29


@dataclass(frozen=True)
class Topics:
    """The topics of one stream, by name."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    dead_letter: str

    def all(self) -> tuple[str, ...]:
        """Every topic."""
        return (*self.inputs, *self.outputs, self.dead_letter)


class Finding(NamedTuple):
    """Something found about a topic."""

    severity: Literal["error", "warning", "unknown"]
    """unknown: the broker does not say."""
    sentence: str


class Sampled(NamedTuple):
    """Where a message was found."""

    topic: str
    partition: int
    key: bytes | None


def create(
    connection: Connection, topics: Topics, partitions: int, replication: int, pending_ttl_s: float
) -> list[str]:
    """Create the topics that do not exist yet, and return their names; those that do are left as they are.

    The inputs keep their events as long as labels are waited for, and a week longer.
    """
    there = describe(connection, topics.all())
    missing = [name for name in topics.all() if name not in there]
    wanted = {
        name: {
            "num_partitions": partitions,
            "replication_factor": replication,
            "configs": _made_with(name, topics, pending_ttl_s),
        }
        for name in missing
    }
    if not wanted:
        return []
    with in_our_words(connection, ", ".join(missing), "Create"):
        admin = made(KafkaAdminClient, connection)
        try:
            answers = admin.create_topics(wanted, raise_errors=False)["topics"]
            admin.wait_for_topics([topic["name"] for topic in answers if topic["error_code"] == 0])
        finally:
            admin.close()
    for topic in answers:
        if topic["error_code"] == TOPIC_AUTHORIZATION_FAILED:
            raise refusals.denied(connection, "Create", f"topic {topic['name']}")
    failed = [
        f"{topic['name']}: {topic['error_message']}"
        for topic in answers
        if topic["error_code"] not in (0, TOPIC_EXISTS)
    ]
    if failed:
        raise InputError(f"{connection.servers}: {'; '.join(failed)}")
    return [topic["name"] for topic in answers if topic["error_code"] == 0]


def _made_with(name: str, topics: Topics, pending_ttl_s: float) -> dict[str, str]:
    stamped = {TIMESTAMPS: BY_BROKER}
    if name in topics.inputs:
        return {**stamped, "retention.ms": str(round((pending_ttl_s + SPARE_S) * 1000))}
    return {**stamped, "max.message.bytes": str(DEAD_LETTER_BYTES)} if name == topics.dead_letter else stamped


def check(
    connection: Connection,
    topics: Topics,
    pending_ttl_s: float,
    tombstone_ttl_s: float,
    judge: Callable[[int, Sequence[Message]], Sequence[Rejected]] = lambda *_: (),
) -> list[Finding]:
    """Everything that would go wrong silently; nothing where all is well.

    `judge` says which of the messages of an input topic, by its number, would be dead letters.
    """
    described = describe(connection, topics.all())
    counts = {name: len(topic["partitions"]) for name, topic in described.items()}
    there = Topics(
        tuple(name for name in topics.inputs if name in counts),
        tuple(name for name in topics.outputs if name in counts),
        topics.dead_letter,
    )
    settings = _settings(connection, sorted(counts))
    sampled = {name: sample(connection, name) for name in there.inputs}
    return [
        *_missing(topics, counts),
        *_unpaired(there, counts),
        *_retention(there, settings, pending_ttl_s, tombstone_ttl_s),
        *_sizes(there, settings),
        *_timestamps(there, settings),
        *partitioning(
            [Sampled(name, m.partition, m.key) for name, some in sampled.items() for m in some], counts
        ),
        *_dead_letters(
            {name: (some, judge(topics.inputs.index(name), some)) for name, some in sampled.items()}
        ),
    ]


def partitioning(sampled: Sequence[Sampled], counts: Mapping[str, int]) -> Iterator[Finding]:
    """Whether the keys of messages lie where one partitioner would have put them all."""
    keyed = [message for message in sampled if message.key is not None]
    if len(keyed) < len(sampled):
        yield Finding("error", f"{len(sampled) - len(keyed)} of {len(sampled)} recent messages have no key: events "
                      "of one task lie in several partitions. Send the task's id as key")  # fmt: skip
    places: dict[bytes | None, set[int]] = {}
    for message in keyed:
        places.setdefault(message.key, set()).add(message.partition)
    split = sorted(key for key, found in places.items() if key is not None and len(found) > 1)
    if split:
        yield Finding("error", f"{len(split)} of {len(places)} keys lie in several partitions, {split[0][:40]!r} in "
                      f"{sorted(places[split[0]])}: producers partition differently, or partitions were added. Give "
                      "all of them murmur2 (librdkafka: partitioner=murmur2_random)")  # fmt: skip
    elsewhere = _elsewhere(keyed, counts, key_hash)
    if elsewhere and not split:
        by = (
            "as CRC32, librdkafka's default, puts them"
            if not _elsewhere(keyed, counts, zlib.crc32)
            else "otherwise"
        )
        yield Finding("warning", f"{elsewhere} of {len(keyed)} recent messages are not where murmur2 puts their "
                      f"key, but {by}: any other producer must do the same, and `reptide produce` uses murmur2. "
                      "librdkafka does with partitioner=murmur2_random")  # fmt: skip


def _dead_letters(
    judged: Mapping[str, tuple[Sequence[Message], Sequence[Rejected]]],
) -> Iterator[Finding]:
    """Messages that no worker could read, with the newest of those of the most frequent reason."""
    for name, (messages, rejected) in judged.items():
        if not rejected:
            continue
        ((reason, count),) = Counter(letter.reason for letter in rejected).most_common(1)
        newest = next(letter for letter in reversed(rejected) if letter.reason == reason)
        severity: Literal["error", "warning"] = "error" if len(rejected) == len(messages) else "warning"
        where = f"partition {newest.record.partition} offset {newest.record.offset}"
        yield Finding(severity, f"{len(rejected)} of {len(messages)} recent messages of {name} would be dead "
                      f"letters, {count} of them {reason}, such as {where}: {newest.detail}")  # fmt: skip


def _elsewhere(keyed: Sequence[Sampled], counts: Mapping[str, int], hashed: Callable[[bytes], int]) -> int:
    return sum(hashed(m.key) % counts[m.topic] != m.partition for m in keyed if m.key is not None)


def _missing(topics: Topics, counts: Mapping[str, int]) -> Iterator[Finding]:
    for name in topics.all():
        if name not in counts:
            yield Finding("error", f"there is no topic {name}; `reptide topics create` creates it")


def _unpaired(topics: Topics, counts: Mapping[str, int]) -> Iterator[Finding]:
    if len({counts[name] for name in topics.inputs}) > 1:
        said = " and ".join(f"{name} has {counts[name]}" for name in topics.inputs)
        yield Finding("error", f"{said} partitions: observations and labels of a task lie in different ones")


def _retention(
    topics: Topics, settings: Mapping[str, Mapping[str, str]], pending_ttl_s: float, tombstone_ttl_s: float
) -> Iterator[Finding]:
    for name in topics.inputs:
        policy, kept_ms = settings[name].get("cleanup.policy"), settings[name].get("retention.ms")
        if policy is None or kept_ms is None:
            yield Finding("unknown", f"{name}: the broker does not tell its retention and cleanup policy; where "
                          "it has ACLs, allow DescribeConfigs on this topic")  # fmt: skip
            continue
        if "compact" in policy:
            yield Finding("error", f"{name} is compacted, which removes events: set cleanup.policy=delete")
        kept_s = float("inf") if int(kept_ms) < 0 else int(kept_ms) / 1000
        if kept_s < pending_ttl_s + SNAPSHOT_S:
            yield Finding("error", f"{name} keeps events {kept_s:g} s; labels are waited for {pending_ttl_s:g} s, "
                          f"and with a snapshot a day what comes after it must be there for {SNAPSHOT_S:g} s: raise "
                          "retention.ms to more than both together; -1, for ever, is as good")  # fmt: skip
        if min(kept_s, FOR_EVER_S) > tombstone_ttl_s:
            yield Finding("error", f"{name} keeps events {kept_s:g} s, forgotten tasks are remembered as such for "
                          f"{tombstone_ttl_s:g} s: a replay could bring them back. Lower retention.ms, or leave out "
                          "redis.tombstone_s: they are then remembered for ever")  # fmt: skip


def _sizes(topics: Topics, settings: Mapping[str, Mapping[str, str]]) -> Iterator[Finding]:
    dead_letter = settings.get(topics.dead_letter, {}).get("max.message.bytes")
    for name in topics.inputs:
        taken = settings[name].get("max.message.bytes")
        if taken is not None and dead_letter is not None and int(dead_letter) <= int(taken):
            yield Finding("error", f"{topics.dead_letter} takes messages of {dead_letter} bytes, {name} of {taken}: "
                          "the largest could not be refused. Raise max.message.bytes of the former")  # fmt: skip


def _timestamps(topics: Topics, settings: Mapping[str, Mapping[str, str]]) -> Iterator[Finding]:
    for name, known in settings.items():
        if known.get(TIMESTAMPS, BY_BROKER) == BY_BROKER:
            continue
        harm = (
            "takes the timestamps of producers, and a clock that runs ahead moves its tasks' time for good"
            if name in topics.inputs
            else "takes the timestamps of workers: of one whose clock runs ahead it takes nothing, and what one "
            "writes whose clock is behind expires before its time"
        )
        yield Finding("warning", f"{name} {harm}: set {TIMESTAMPS}={BY_BROKER}")


def _settings(connection: Connection, names: Sequence[str]) -> dict[str, dict[str, str]]:
    """Settings of topics, as far as the broker tells them."""
    if not names:
        return {}
    with in_our_words(connection, "settings of topics", "DescribeConfigs", ", ".join(names)):
        admin = made(KafkaAdminClient, connection)
        try:
            said = admin.describe_configs(
                [ConfigResource(ConfigResourceType.TOPIC, name) for name in names], config_filter="all"
            )
        finally:
            admin.close()
    told = said.get("topic", {})
    return {name: {key: entry["value"] for key, entry in told.get(name, {}).items()} for name in names}
