"""What `reptide topics` creates and finds."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import partial

import pytest
from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType

from engine.features.columns import Numeric
from engine.features.encoder import Features
from engine.problem import Problem
from engine.targets import Classification
from streams.events.envelope import Envelope
from streams.logs.kafka.group import Connection
from streams.logs.kafka.kafka_python.producer import key_hash
from streams.logs.kafka.last_messages import unreadable
from streams.logs.kafka.topics import Finding, Sampled, Topics, check, create, partitioning
from streams.settings.places import FOR_EVER_S
from tests.kafka_brokers import Broker, append, noida, topic_of

__all__ = ["noida"]

DAY_S = 86_400.0
COUNTS = {"in": 7}
KEYS = [f"task{n}".encode() for n in range(20)]


def topics(name: str, inputs: int = 1) -> Topics:
    return Topics(tuple(f"{name}-in{n}" for n in range(inputs)), (f"{name}-out",), f"{name}-dead")


class TestCreate:
    def test_again_creates_nothing_more_and_all_is_well(self, noida: Broker) -> None:
        connection, ours = Connection(noida.servers), topics("well")
        assert sorted(create(connection, ours, 3, 1, DAY_S)) == sorted(ours.all())
        assert create(connection, ours, 5, 1, DAY_S) == []
        assert check(connection, ours, DAY_S, 30 * DAY_S) == []


class TestCheck:
    def test_a_missing_topic_is_found(self, noida: Broker) -> None:
        found = check(Connection(noida.servers), topics("nobody"), DAY_S, 30 * DAY_S)
        assert [f.severity for f in found] == ["error"] * 3
        assert "nobody-in0" in found[0].sentence

    def test_inputs_that_do_not_pair_are_found_with_their_counts(self, noida: Broker) -> None:
        ours = topics("odd", inputs=2)
        topic_of(noida, 2, name=ours.inputs[0])
        create(Connection(noida.servers), ours, 3, 1, DAY_S)
        found, _ = check(Connection(noida.servers), ours, DAY_S, 30 * DAY_S)
        assert "odd-in0 has 2 and odd-in1 has 3 partitions" in found.sentence

    def test_timestamps_of_producers_are_found(self, noida: Broker) -> None:
        ours = topics("stamped")
        topic_of(noida, 3, name=ours.inputs[0])
        create(Connection(noida.servers), ours, 3, 1, DAY_S)
        [found] = check(Connection(noida.servers), ours, DAY_S, 30 * DAY_S)
        assert found.severity == "warning"
        assert "stamped-in0 takes the timestamps of producers" in found.sentence
        assert "message.timestamp.type=LogAppendTime" in found.sentence

    @pytest.mark.parametrize(("null_values", "severity"), [(False, "warning"), (True, "error")])
    def test_events_that_would_be_dead_letters_are_found(
        self, noida: Broker, null_values: bool, severity: str
    ) -> None:
        ours = topics(f"read-{severity}")
        create(Connection(noida.servers), ours, 1, 1, DAY_S)
        event = b'{"task": "ann", "id": %d, "time": 1, "features": {"a": "x"}}'
        append(noida, ours.inputs[0], [(b"ann", value) for value in (event % 1, None, event % 2)])
        problem = Problem(Features((Numeric("a"),)), Classification(("no", "yes")))
        judge = partial(unreadable, Envelope(), problem, null_values)
        [found] = check(Connection(noida.servers), ours, DAY_S, 30 * DAY_S, judge)
        assert found.severity == severity
        told = f"{2 + null_values} of 3 recent messages of {ours.inputs[0]} would be dead letters"
        assert f"{told}, 2 of them bad_feature, such as partition 0 offset 2: " in found.sentence

    def test_timestamps_of_workers_are_found(self, noida: Broker) -> None:
        ours = topics("stamps")
        topic_of(noida, 3, name=ours.dead_letter)
        create(Connection(noida.servers), ours, 3, 1, DAY_S)
        found = check(Connection(noida.servers), ours, DAY_S, 30 * DAY_S)
        assert "stamps-dead takes the timestamps of workers" in found[-1].sentence

    @pytest.mark.parametrize(
        ("kept_s", "pending_s", "tombstone_s", "expected"),
        [
            (8 * DAY_S, 8 * DAY_S, 60 * DAY_S, "with a snapshot a day"),
            (8 * DAY_S, DAY_S, DAY_S, "bring them back"),
            (None, 30 * DAY_S, 400 * DAY_S, "leave out redis.tombstone_s"),
        ],
    )
    def test_retention_is_held_against_both_lives(
        self, noida: Broker, kept_s: float | None, pending_s: float, tombstone_s: float, expected: str
    ) -> None:
        ours = topics("kept")
        self.created(noida, ours, kept_s)
        [found] = check(Connection(noida.servers), ours, pending_s, tombstone_s)
        assert found.severity == "error"
        assert expected in found.sentence

    @pytest.mark.parametrize("kept_s", [None, 9 * DAY_S, 30 * DAY_S])
    def test_retention_that_is_long_enough_or_infinite_is_well(
        self, noida: Broker, kept_s: float | None
    ) -> None:
        ours = topics("kept")
        self.created(noida, ours, kept_s)
        assert check(Connection(noida.servers), ours, 8 * DAY_S, FOR_EVER_S) == []

    def created(self, noida: Broker, ours: Topics, kept_s: float | None) -> None:
        """Create topics, and give the inputs a retention; None: for ever."""
        create(Connection(noida.servers), ours, 1, 1, DAY_S)
        admin = KafkaAdminClient(bootstrap_servers=noida.servers)
        kept_ms = "-1" if kept_s is None else str(round(kept_s * 1000))
        wanted = {"retention.ms": kept_ms, "message.timestamp.type": "LogAppendTime"}
        admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, wanted) for name in ours.inputs])
        admin.close()

    def test_messages_without_a_key_are_found_in_the_log(self, noida: Broker) -> None:
        ours = topics("keyless")
        create(Connection(noida.servers), ours, 1, 1, DAY_S)
        append(noida, ours.inputs[0], [(None, b"{}"), (b"k", b"{}")])
        [found] = check(Connection(noida.servers), ours, DAY_S, 30 * DAY_S)
        assert found.sentence.startswith("1 of 2 recent messages have no key")


class TestPartitioning:
    def found(self, hashed: Callable[[bytes], int]) -> list[Finding]:
        return list(partitioning([Sampled("in", hashed(key) % 7, key) for key in KEYS], COUNTS))

    def test_murmur2_is_well(self) -> None:
        assert self.found(key_hash) == []

    def test_crc32_is_recognised_and_the_setting_named(self) -> None:
        [found] = self.found(zlib.crc32)
        assert found.severity == "warning"
        assert "CRC32" in found.sentence
        assert "partitioner=murmur2_random" in found.sentence

    def test_any_other_partitioner_is_told_too(self) -> None:
        [found] = self.found(len)
        assert "otherwise" in found.sentence

    def test_a_key_in_two_partitions_is_an_error(self) -> None:
        [found] = partitioning([Sampled("in", 1, b"ann"), Sampled("in", 2, b"ann")], COUNTS)
        assert found.severity == "error"
        assert "b'ann' in [1, 2]" in found.sentence
