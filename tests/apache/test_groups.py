"""Groups on Apache Kafka: members of both clients side by side, members that leave, stand still and wake up.

And partitions that are added under them.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from kafka import KafkaAdminClient

from streams.errors import InputError
from streams.events.envelope import Envelope
from streams.events.record import Polled, Record
from streams.logs.kafka.group import Connection
from streams.logs.kafka.log import ASK_EVERY_S, KafkaLog
from streams.logs.kafka.replay import GroupOffsets
from tests.kafka_brokers import Broker, apache, append, group_of, topic_of
from tests.streams.test_kafka import PATIENCE_S, SESSION, Clock, joined, many, poll_until

__all__ = ["apache", "joined"]  # fixtures


@pytest.fixture(params=["kafka-python", "confluent", "confluent, consumer"])
def library(request: pytest.FixtureRequest) -> str:
    """Also where brokers share out the partitions."""
    return str(request.param)


def member(broker: Broker, client: str, topics: list[str]) -> KafkaLog:
    """A member on a client of its own, of the group that all members of these topics are in."""
    connection, envelope = Connection(broker.servers), Envelope(len(topics))
    return KafkaLog(group_of(client)(connection, f"of {topics[0]}", topics, envelope, *SESSION), topics, 0.0)


@pytest.mark.parametrize("comes", ["confluent", "confluent, consumer"])
@pytest.mark.parametrize("topics", [1, 2])
def test_members_on_both_clients_share_a_group_so_that_one_can_take_the_others_place(
    apache: Broker, topics: int, comes: str
) -> None:
    names = [topic_of(apache, 4) for _ in range(topics)]
    append(apache, names[0], many(40))
    logs = [member(apache, client, names) for client in ("kafka-python", comes)]
    records: list[Record] = []
    poll_until(logs, lambda: [len(log.assigned()) for log in logs] == [2, 2], records)
    append(apache, names[0], many(40, first=40))
    poll_until(logs, lambda: {record.id for record in records} == {f"e{n}" for n in range(80)}, records)
    logs[0].close()
    poll_until(logs[1:], lambda: len(logs[1].assigned()) == 4, records)
    append(apache, names[0], many(20, first=80))
    poll_until(logs[1:], lambda: {record.id for record in records} == {f"e{n}" for n in range(100)}, records)
    logs[1].close()


@pytest.mark.parametrize("topics", [1, 2])
def test_one_that_leaves_in_the_middle_of_a_rebalance_holds_up_nobody(
    apache: Broker, joined: Callable[..., KafkaLog], topics: int
) -> None:
    names = [topic_of(apache, 3) for _ in range(topics)]
    append(apache, names[0], many(10))
    stays, records = joined(apache, names, durability_lag_s=0.0), list[Record]()
    poll_until([stays], lambda: len(records) == 10, records)
    for n in range(3):
        leaves = joined(apache, names)
        deadline = time.monotonic() + 0.1 * n
        while time.monotonic() < deadline:
            leaves.poll(10, 0.01)
        leaves.close()
        append(apache, names[0], many(10, first=10 * n + 10))
        wanted = {f"e{i}" for i in range(10 * n + 20)}
        poll_until([stays], lambda: {r.id for r in records} == wanted, records)  # noqa: B023
    poll_until([stays], lambda: stays.assigned() == {0, 1, 2}, records)


def test_what_a_member_keeps_is_read_on_while_a_rebalance_waits_for_another(
    apache: Broker, joined: Callable[..., KafkaLog]
) -> None:
    topic, records = topic_of(apache, 2), list[Record]()
    reads, busy = (joined(apache, [topic], durability_lag_s=0.0) for _ in range(2))
    poll_until([reads, busy], lambda: all(len(log.assigned()) == 1 for log in (reads, busy)), records)
    comes, (kept,) = joined(apache, [topic]), reads.assigned()
    told = time.monotonic() + 3 * SESSION[1]  # heartbeats tell of the rebalance, which waits for the busy one
    while time.monotonic() < told:
        reads.poll(50, 0.05)
        comes.poll(50, 0.05)
    append(apache, topic, many(20), partition=kept)
    poll_until([reads, comes], lambda: len(records) == 20, records)
    poll_until([reads, comes, busy], lambda: sum(offsets_of(apache, topic)) == 20, records)


def test_partitions_that_were_added_are_told_to_members_once_the_group_shares_them(
    apache: Broker, joined: Callable[..., KafkaLog], library: str
) -> None:
    topic, clock = topic_of(apache, 1, many(5)), Clock()
    first, polled = joined(apache, [topic], clock=clock), list[Polled]()
    poll_into(polled, [first], lambda: bool(polled))
    assert polled[0].partitions == 1
    admin = KafkaAdminClient(bootstrap_servers=apache.servers)
    admin.create_partitions({topic: 3})
    admin.close()
    second = joined(apache, [topic])  # whoever leads the group then looks at the topic; else in five minutes
    poll_into(
        polled,
        [first, second],
        lambda: bool(second.assigned()) and first.assigned() | second.assigned() == {0, 1, 2},
    )
    for partition in range(3):
        append(apache, topic, many(1, first=10 + partition), partition=partition)
    polled.clear()
    if "consumer" in library:  # brokers say nothing to a member that keeps its own: it asks now and then
        clock.now += ASK_EVERY_S
    poll_into(polled, [first, second], lambda: {part.partition for part in polled} == {0, 1, 2})
    assert {part.partitions for part in polled} == {3}


def poll_into(polled: list[Polled], logs: list[KafkaLog], done: Callable[[], bool]) -> None:
    """Poll members in turn until something is so."""
    deadline = time.monotonic() + PATIENCE_S
    while not done():
        assert time.monotonic() < deadline
        for log in logs:
            polled += log.poll(50, 0.05)


LONG = (30.0, 1.0)
"""A session that lasts longer than it takes to start a member again."""


def test_a_static_member_that_is_started_again_takes_its_partitions_back_and_nobody_had_them(
    apache: Broker, joined: Callable[..., KafkaLog]
) -> None:
    topic, records = topic_of(apache, 4), list[Record]()
    stays, ends = (
        joined(apache, [topic], instance=name, session=LONG, durability_lag_s=0.0) for name in ("a", "b")
    )
    poll_until([stays, ends], lambda: [len(log.assigned()) for log in (stays, ends)] == [2, 2], records)
    held = stays.assigned(), ends.assigned()
    ends.close()
    append(apache, topic, many(10), partition=min(held[0]))
    append(apache, topic, many(10, first=10), partition=min(held[1]))
    poll_until([stays], lambda: len(records) >= 10, records)
    assert stays.assigned() == held[0]
    again = joined(apache, [topic], instance="b", session=LONG, durability_lag_s=0.0)
    poll_until([again], lambda: len(records) >= 20, records)  # the other one is not even asked
    assert again.assigned() == held[1]
    poll_until([stays, again], lambda: sum(offsets_of(apache, topic)) == 20, records)
    assert (stays.assigned(), again.assigned(), len(records)) == (*held, 20)


def test_of_two_static_members_of_one_name_the_first_ends_in_a_sentence(
    apache: Broker, joined: Callable[..., KafkaLog]
) -> None:
    topic, records = topic_of(apache, 1, many(1)), list[Record]()
    first = joined(apache, [topic], instance="a", durability_lag_s=0.0)
    poll_until([first], lambda: sum(offsets_of(apache, topic)) == 1, records)
    second = joined(apache, [topic], instance="a", durability_lag_s=0.0)
    append(apache, topic, many(1, first=1))
    with pytest.raises(InputError, match="another worker has joined under our kafka"):
        poll_until([second, first], lambda: False, records)


def test_one_that_fetches_nothing_for_too_long_loses_its_partitions_though_its_heart_beats_and_does_no_harm(
    apache: Broker, joined: Callable[..., KafkaLog]
) -> None:
    topic, records, in_hand = topic_of(apache, 2, many(50)), list[Record](), list[Polled]()
    busy = joined(apache, [topic], poll_s=SESSION[0], durability_lag_s=0.0)
    poll_into(in_hand, [busy], lambda: sum(len(part.records) for part in in_hand) == 50)
    other = joined(apache, [topic], durability_lag_s=0.0)
    poll_until([other], lambda: sum(offsets_of(apache, topic)) == 50, records)
    for part in in_hand:  # cut short, as by one that has come half way
        busy.commit({(0, part.partition): part.records[0].offset + 1})
    poll_until([busy, other], lambda: len(busy.assigned()) == len(other.assigned()) == 1, records)
    assert sum(offsets_of(apache, topic)) == 50
    append(apache, topic, many(20, first=50))
    poll_until([busy, other], lambda: sum(offsets_of(apache, topic)) == 70, records)
    assert sorted(record.id for record in records) == sorted(f"e{n}" for n in range(70))


def offsets_of(broker: Broker, topic: str) -> list[int]:
    """What the group of a topic has committed."""
    return list(GroupOffsets(Connection(broker.servers), f"of {topic}", [topic]).read().values())


@contextmanager
def process(broker: Broker, client: str, topic: str) -> Iterator[subprocess.Popen[str]]:
    """A member in a process of its own, which prints the partition and offset of each record and commits it."""
    command = [sys.executable, "-m", "tests.streams.kafka_member", broker.servers, client, topic]
    reads = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
    try:
        yield reads
    finally:
        reads.kill()
        reads.wait()
        if reads.stdout:
            reads.stdout.close()


def test_one_that_stands_still_beyond_its_session_loses_its_partitions_and_does_no_harm_when_it_wakes(
    apache: Broker, joined: Callable[..., KafkaLog], library: str
) -> None:
    topic = topic_of(apache, 2, many(50))
    offsets = GroupOffsets(Connection(apache.servers), f"of {topic}", [topic])
    with process(apache, library, topic) as stands:
        assert stands.stdout is not None
        seen = {tuple(map(int, stands.stdout.readline().split())) for _ in range(50)}
        os.kill(stands.pid, signal.SIGSTOP)
        append(apache, topic, many(50, first=50))
        survivor, records = joined(apache, [topic], durability_lag_s=0.0), list[Record]()
        poll_until(
            [survivor], lambda: len({r.id for r in records} | {f"e{n}" for n in range(50)}) == 100, records
        )
        poll_until([survivor], lambda: sum(offsets.read().values()) == 100, records)
        before = offsets.read()
        os.kill(stands.pid, signal.SIGCONT)
        poll_until([survivor], lambda: len(survivor.assigned()) == 1, records)
        append(apache, topic, many(20, first=100))
        poll_until([survivor], lambda: sum(offsets.read().values()) == 120, records)
        assert all(at >= before[place] for place, at in offsets.read().items())
    read = [(record.partition, record.offset) for record in records]
    assert len(read) == len(set(read))
    assert len(seen | set(read)) >= 100
