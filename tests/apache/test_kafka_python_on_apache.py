"""What kafka-python 3 does otherwise than it says, put right, on Apache Kafka; tests/streams has what needs none."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Event

import pytest
from kafka import KafkaAdminClient, errors
from kafka.structs import MemberState

from streams.errors import Unavailable
from streams.events.envelope import Envelope
from streams.events.record import Place
from streams.logs.kafka.group import Connection
from streams.logs.kafka.kafka_python.consumer import KafkaGroup
from streams.logs.kafka.kafka_python.producer import KafkaPythonProducer
from streams.logs.kafka.outputs import Sent
from streams.logs.kafka.tokens import Token, Tokens
from tests.apache.secured import Secured
from tests.apache.test_getting_in import by_token
from tests.apache.test_groups import offsets_of
from tests.kafka_brokers import Broker, apache, append, topic_of
from tests.streams.test_kafka import SESSION, eventually, many

__all__ = ["apache"]

Join = Callable[[str], KafkaGroup]


@pytest.fixture
def join(apache: Broker) -> Iterator[Join]:
    """Joins the group of a topic; members leave at the end."""
    members: list[KafkaGroup] = []

    def joined(topic: str) -> KafkaGroup:
        members.append(KafkaGroup(Connection(apache.servers), f"of {topic}", [topic], Envelope(), *SESSION))
        return members[-1]

    yield joined
    for member in members:
        member.close()


def fetched_until(members: list[KafkaGroup], done: Callable[[], bool]) -> dict[Place, int]:
    """Have members fetch in turn until something is so; how many records of each place came."""
    counts: dict[Place, int] = {}

    def so() -> bool:
        for member in members:
            for place, records in member.fetch(50, 0.02).records.items():
                counts[place] = counts.get(place, 0) + len(records)
        return done()

    eventually(so)
    return counts


def rebalances(member: KafkaGroup) -> bool:
    """Whether a member has asked for partitions, and was not given any yet."""
    return bool(member._consumer.group_metadata().state is MemberState.REBALANCING)


def pair(join: Join, topic: str) -> tuple[KafkaGroup, KafkaGroup]:
    """The only member of a group, which leads it, and one that joined later; each has a partition."""
    leads = join(topic)
    fetched_until([leads], lambda: len(leads.assigned()) == 2)
    follows = join(topic)
    fetched_until([leads, follows], lambda: len(leads.assigned()) == len(follows.assigned()) == 1)
    return leads, follows


def test_a_member_knows_its_topics_before_it_joins(apache: Broker, join: Join) -> None:
    topic = topic_of(apache, 3)
    assert join(topic)._consumer._cluster.partitions_for_topic(topic) == {0, 1, 2}


def test_one_that_leaves_in_the_middle_of_a_rebalance_commits_what_was_not_taken_in_it(
    apache: Broker, join: Join
) -> None:
    topic = topic_of(apache, 2)
    leaves, busy = pair(join, topic)
    [kept] = leaves.assigned()
    append(apache, topic, many(10), partition=kept[1])
    comes = join(topic)
    fetched_until([leaves, comes], lambda: rebalances(leaves))  # and waits for the busy one
    leaves.commit({kept: 7})
    with ThreadPoolExecutor() as pool:
        closed = pool.submit(leaves.close)
        fetched_until([busy, comes], closed.done)
    closed.result()
    assert offsets_of(apache, topic)[kept[1]] == 7


def test_a_leader_takes_its_own_of_the_partitions_that_were_added_though_it_was_late(
    apache: Broker, join: Join
) -> None:
    topic = topic_of(apache, 2)
    leads, follows = pair(join, topic)
    admin = KafkaAdminClient(bootstrap_servers=apache.servers)
    admin.create_partitions({topic: 8})
    admin.close()

    def notices() -> bool:
        leads._consumer._cluster.request_update()  # which it does by itself every five minutes
        return rebalances(leads)

    fetched_until([leads], notices)
    fetched_until([follows], lambda: len(follows.assigned()) == 4)
    fetched_until([leads, follows], lambda: len(leads.assigned()) == 4)


def test_a_client_goes_on_that_had_no_token_for_a_while(
    broker: Secured, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [topic_of(Broker(broker.kafka.address, None), 1) for _ in range(2)]
    for topic in names:
        broker.allow("User:ann", topic, topic)
    connection = Connection(broker.kafka.address_of("LOGIN"), by_token("own_token")(broker))
    producer = KafkaPythonProducer(connection, names, 2.0)
    producer.send(names[0], [Sent(b"ann", b"{}")])
    producer.flush()
    asked = Event()

    def none() -> Token:
        asked.set()
        raise Unavailable("there is no token")

    with monkeypatch.context() as away:
        away.setattr(Tokens, "current", lambda _: none())
        end_connections(producer)
        assert asked.wait(30)
    deadline = time.monotonic() + 30
    while not sends(producer, names[1]):  # of which it has to ask the brokers first
        assert time.monotonic() < deadline
    producer.close()


def end_connections(producer: KafkaPythonProducer) -> None:
    """As brokers do that go down."""
    manager = producer._producer._sender._client._manager

    def end() -> None:
        for opened in list(manager._conns.values()):
            opened.close(errors.KafkaConnectionError("socket disconnected"))

    manager.call_soon(end)


def sends(producer: KafkaPythonProducer, topic: str) -> bool:
    """Whether a message is acknowledged."""
    with suppress(Unavailable):
        producer.send(topic, [Sent(b"ann", b"{}")])
        producer.flush()
        return True
    return False
