"""What kafka-python 3 does otherwise than it says, put right; docs/architecture.md lists all of it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from kafka.net.selector import NetworkSelector

from streams.events.envelope import Envelope
from streams.logs.kafka.group import Connection
from streams.logs.kafka.kafka_python import network
from streams.logs.kafka.kafka_python.consumer import KafkaGroup
from streams.logs.kafka.kafka_python.producer import KafkaPythonProducer
from streams.logs.kafka.outputs import Sent
from streams.logs.kafka.replay import KafkaReplay
from tests.kafka_brokers import Broker, append, noida, topic_of
from tests.streams.test_kafka import SESSION, eventually, many, messages

__all__ = ["noida"]


class Hears:
    """The client's side of a connection: what a broker said, and that it has ended it."""

    _sensors = None

    def __init__(self) -> None:
        self.heard, self.ended = b"", False

    def data_received(self, content: bytes) -> None:
        self.heard += content

    def connection_lost(self, _: Exception | None) -> None:
        self.ended = True


@pytest.fixture
def selector() -> Iterator[NetworkSelector]:
    """The thread on which kafka-python does its I/O."""
    selector = NetworkSelector()
    selector.start()
    yield selector
    selector.close()


def test_what_a_broker_says_last_is_heard(selector: NetworkSelector, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.sendall(b"not with this password")
    theirs.close()

    async def connected(*_: Any, **__: Any) -> socket.socket:
        return ours

    monkeypatch.setattr("kafka.net.manager.create_connection", connected)
    hears, watched = Hears(), network.Watched(lambda _: False, selector)

    async def listen() -> None:
        transport = await watched._build_transport(SimpleNamespace(host="a", port=1))
        transport.set_protocol(hears)
        transport.resume_reading()

    selector.run(listen)
    eventually(lambda: hears.ended)
    assert hears.heard == b"not with this password"


def test_a_replay_reads_a_partition_on_that_waited_half_read_for_another(
    noida: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.logs.kafka.replay.KEPT", 10)
    monkeypatch.setattr("streams.logs.kafka.replay.QUIET_S", 5.0)
    topic = topic_of(noida, 2)
    append(noida, topic, many(15), partition=0)
    append(noida, topic, many(30, first=15), partition=1)
    replay = KafkaReplay(Connection(noida.servers), [topic], Envelope(), {(0, 0): 15, (0, 1): 30})
    ids = list[object]()
    while polled := replay.poll(100, 0.1):
        ids += [record.id for part in polled for record in part.records]
    replay.close()
    assert ids == [f"e{n}" for n in range(45)]


def test_a_member_that_waits_for_nothing_when_it_is_polled_joins_all_the_same(noida: Broker) -> None:
    topic = topic_of(noida, 1, many(10))
    member = KafkaGroup(Connection(noida.servers), "g", [topic], Envelope(), *SESSION)
    eventually(lambda: bool(member.fetch(10, 0.0).records))
    member.close()


def test_one_that_is_let_go_with_messages_unsent_leaves_no_thread_behind(noida: Broker) -> None:
    topic, threads = topic_of(noida, 1), threading.active_count()
    producer = KafkaPythonProducer(Connection(noida.servers), [topic])
    producer.send(topic, [Sent(b"k", b"v")])
    producer.flush()
    with noida.stalled():
        producer.send(topic, [Sent(b"k", b"w")])
        producer.close()
        eventually(lambda: threading.active_count() <= threads)


def test_a_message_of_nothing_is_sent_with_an_empty_key(noida: Broker) -> None:
    topic = topic_of(noida, 1)
    producer = KafkaPythonProducer(Connection(noida.servers), [topic])
    producer.send(topic, [Sent(None, None)])
    producer.flush()
    producer.close()
    [message] = messages(noida, topic, 1)
    assert (message.key, message.value) == (b"", None)
