"""Three brokers that replicate: what was acknowledged outlives each of them, and clients go on through their ends."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager

import orjson
import pytest

from streams.errors import Unavailable
from streams.events.envelope import Envelope
from streams.logs.kafka.group import Connection
from streams.logs.kafka.kafka_python.client import made
from streams.logs.kafka.log import KafkaLog
from streams.logs.kafka.outputs import KafkaOutputs, Sent
from streams.logs.kafka.topics import Topics, create
from streams.testing.apache_kafka import ApacheKafka
from streams.testing.servers import Server
from tests.kafka_brokers import NUMBERS, apache_kafka, group_of, producer_of

PATIENCE_S = 120.0
DELIVERY_S = 8.0
"""Longer than a dead broker goes unnoticed, which is 6 s here."""


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApacheKafka]:
    with apache_kafka(tmp_path_factory.mktemp("three"), nodes=3) as kafka:
        yield kafka


class Stream:
    """A producer and the only member of a group, by one client library, on a topic that others share."""

    def __init__(self, connection: Connection, topic: str, library: str) -> None:
        self.library, self.topic = library, topic
        self.outputs = KafkaOutputs(lambda: producer_of(library)(connection, [topic], DELIVERY_S))
        group = f"of {topic} by {library}"
        client = group_of(library)(connection, group, [topic], Envelope(), 6.0, 1.0)
        self.log = KafkaLog(client, [self.topic])
        self.sent, self.read = 0, dict[tuple[int, int], object]()

    def goes_on(self) -> None:
        """Ten more events are acknowledged and read, and what was read is committed."""
        first, self.sent = self.sent, self.sent + 10
        messages = [self.event(n) for n in range(first, self.sent)]
        persistently(lambda: self.acknowledged(messages))
        wanted = {self.id_of(n) for n in range(self.sent)}
        deadline = time.monotonic() + PATIENCE_S
        while not wanted <= set(self.read.values()):
            assert time.monotonic() < deadline, wanted - set(self.read.values())
            persistently(self.poll)

    def acknowledged(self, messages: list[Sent]) -> None:
        self.outputs.send(self.topic, messages)
        self.outputs.sync()

    def poll(self) -> None:
        for part in self.log.poll(50, 0.2):
            for record in part.records:
                place = record.partition, record.offset
                assert self.read.setdefault(place, record.id) == record.id
            self.log.commit(part.after())

    def id_of(self, number: int) -> str:
        return f"{self.library} {number}"

    def event(self, number: int) -> Sent:
        task = f"task{number % 7}"
        said = {"task": task, "id": self.id_of(number), "time": 100.0 + number, "features": {"a": 1.0}}
        return Sent(task.encode(), orjson.dumps(said))

    def refused_at_last(self, message: Sent) -> None:
        """However many are acknowledged before, one is not."""
        with pytest.raises(Unavailable):
            while True:
                self.acknowledged([message])

    def close(self) -> None:
        self.log.close()
        self.outputs.close()


Streams = Sequence[Stream]


def each(streams: Streams, effect: Callable[[Stream], None]) -> None:
    """For each library at once: both meet the same fault."""
    with ThreadPoolExecutor(len(streams)) as beside:
        list(beside.map(effect, streams))


def persistently(effect: Callable[[], object]) -> None:
    """As a worker does: what is unavailable is tried again."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            effect()
            return
        except Unavailable:
            assert time.monotonic() < deadline


@pytest.fixture
def streams(three: ApacheKafka) -> Iterator[Streams]:
    """One by each library, on a topic of two partitions that are on every broker."""
    connection, topic = Connection(three.address), f"brokers-{next(NUMBERS)}"
    persistently(lambda: create(connection, Topics((topic,), (), f"{topic}-dead"), 2, 3, 60.0))
    streams = [Stream(connection, topic, library) for library in ("kafka-python", "confluent")]
    each(streams, Stream.goes_on)
    yield streams
    each(streams, Stream.close)


@contextmanager
def killed(node: Server) -> Iterator[None]:
    node.kill()
    yield
    node.start()


@contextmanager
def shut_down(node: Server) -> Iterator[None]:
    node.terminate()
    yield
    node.start()


def leader(kafka: ApacheKafka, topic: str) -> Server:
    """That of the first partition."""
    from kafka import KafkaAdminClient

    admin = made(KafkaAdminClient, Connection(kafka.address))
    [described] = admin.describe_topics([topic])
    admin.close()
    [first] = [p for p in described["partitions"] if p["partition_index"] == 0]
    leader: Server = kafka.nodes[first["leader_id"]]
    return leader


def controller(kafka: ApacheKafka) -> Server:
    """The node that leads the quorum."""
    from kafka import KafkaAdminClient

    admin = made(KafkaAdminClient, Connection(kafka.address))
    [topic] = admin.describe_metadata_quorum()["topics"]
    admin.close()
    leader: Server = kafka.nodes[topic["partitions"][0]["leader_id"]]
    return leader


Fault = Callable[[Server], AbstractContextManager[None]]


@pytest.mark.parametrize("fault", [killed, Server.stalled, shut_down])
def test_clients_go_on_while_the_leader_is_away_and_when_it_is_back(
    streams: Streams, three: ApacheKafka, fault: Fault
) -> None:
    with fault(leader(three, streams[0].topic)):
        each(streams, Stream.goes_on)
    each(streams, Stream.goes_on)


def test_clients_go_on_while_the_controller_is_dead(streams: Streams, three: ApacheKafka) -> None:
    with killed(controller(three)):
        each(streams, Stream.goes_on)
    each(streams, Stream.goes_on)


def test_what_was_acknowledged_outlives_all_of_them(streams: Streams, three: ApacheKafka) -> None:
    three.kill()
    each(streams, lambda stream: stream.refused_at_last(stream.event(0)))
    three.start()
    each(streams, Stream.goes_on)


def test_while_the_disks_are_full_nothing_is_acknowledged_and_with_room_all_goes_on(
    streams: Streams, three: ApacheKafka
) -> None:
    for node in three.nodes:
        resource.prlimit(node.process.pid, resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
    each(streams, lambda stream: stream.refused_at_last(Sent(b"key", bytes(100_000))))
    three.kill()
    three.start()
    each(streams, Stream.goes_on)
