"""Real brokers for the tests: two small ones from PyPI, of which each proves what the other cannot.

    noida   the data plane: end offsets, offsets out of range, topic ids; never evicts a dead member
    tansu   membership: a member that is killed or stalled loses its partitions; some offsets are wrong

`REPTIDE_TEST_KAFKA=host:port` runs the tests against a cluster of yours instead; what stops and
continues a broker's process is skipped there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest

from streams import servers
from streams.logs.group import GroupClient
from streams.logs.kafka_outputs import Producer

NUMBERS = count()


@dataclass(frozen=True)
class Broker:
    """One broker that answers."""

    servers: str
    server: servers.Server | None
    """None for a cluster that is not ours."""

    @contextmanager
    def stalled(self) -> Iterator[None]:
        """Stop the process, connections and all, and let it go on afterwards."""
        if self.server is None:
            pytest.skip("a cluster that is not ours is not stopped")
        with self.server.stalled():
            yield


@pytest.fixture(scope="session")
def noida(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """Broker for what lies in the log."""
    yield from _broker(servers.noida, tmp_path_factory.mktemp("noida"))


@pytest.fixture(scope="session")
def tansu(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """Broker for who reads it."""
    yield from _broker(servers.tansu, tmp_path_factory.mktemp("tansu"))


def _broker(started: Callable[[Path], servers.Server], directory: Path) -> Iterator[Broker]:
    """Yours if the environment names one, else a process of this session."""
    if "REPTIDE_TEST_KAFKA" in os.environ:
        yield Broker(os.environ["REPTIDE_TEST_KAFKA"], None)
        return
    with started(directory) as server:
        yield Broker(server.address, server)


def group_of(library: str) -> Callable[..., GroupClient]:
    """The `GroupClient` of a client library."""
    if library == "confluent":
        from streams.logs.confluent_consumer import ConfluentGroup

        return ConfluentGroup
    from streams.logs.kafka_consumer import KafkaGroup

    return KafkaGroup


def producer_of(library: str) -> Callable[..., Producer]:
    """The `Producer` of a client library."""
    if library == "confluent":
        from streams.logs.confluent_producer import ConfluentProducer

        return ConfluentProducer
    from streams.logs.kafka_producer import KafkaPythonProducer

    return KafkaPythonProducer


def topic_of(
    broker: Broker,
    partitions: int,
    messages: Iterable[tuple[bytes | None, bytes | None]] = (),
    name: str = "",
) -> str:
    """Create a topic of its own for one test, with messages of key and value."""
    from kafka import KafkaAdminClient

    topic = name or f"topic-{next(NUMBERS)}-{os.getpid()}"
    admin = KafkaAdminClient(bootstrap_servers=broker.servers)
    admin.create_topics(
        {topic: {"num_partitions": partitions, "replication_factor": 1}}, wait_for_metadata=True
    )
    admin.close()
    append(broker, topic, messages)
    return topic


def append(
    broker: Broker,
    topic: str,
    messages: Iterable[tuple[bytes | None, bytes | None]],
    headers: Sequence[tuple[str, bytes]] = (),
    partition: int | None = None,
) -> None:
    """Add messages as somebody else's program would, whom nothing keeps from writing nonsense."""
    from kafka import KafkaProducer

    producer = KafkaProducer(bootstrap_servers=broker.servers)
    for key, value in messages:
        producer.send(topic, value, key, list(headers), partition)
    producer.flush()
    producer.close()
