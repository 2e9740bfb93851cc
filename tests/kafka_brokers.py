"""Real brokers for the tests: two small ones from PyPI, of which each proves what the other cannot, and Apache Kafka.

    noida    the data plane: end offsets, offsets out of range, topic ids; never evicts a dead member
    tansu    membership: a member that is killed or stalled loses its partitions; some offsets are wrong
    apache   Apache Kafka itself, one node: for tests in `tests/apache/` only, which `make test` leaves out

A test there that needs another cluster starts it; see `streams.testing.apache_kafka` for what can be set, killed
and stopped:

    with apache_kafka(tmp_path, nodes=3, properties=AUTHORIZER, listeners={"SECURE": "SASL_SSL"}) as kafka:
        kafka.nodes[0].kill()

    pytest tests/apache/test_brokers.py                              # needs java and mvn; the first time, a network
    REPTIDE_TEST_KAFKA=apache pytest tests/streams/test_logs.py     # `noida` and `tansu` are Apache Kafka
    REPTIDE_TEST_KAFKA=host:port pytest tests/streams/test_logs.py  # they, and `apache`, are a cluster of yours

What stops and continues a broker's process is skipped on a cluster of yours.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from streams.logs.kafka.group import GroupClient
from streams.logs.kafka.outputs import Producer
from streams.testing import servers
from streams.testing.apache_kafka import ApacheKafka
from streams.testing.servers import Server

ROOT = Path(__file__).parents[1]
JARS = ROOT / ".kafka"
NUMBERS = count()


@dataclass(frozen=True)
class Broker:
    """One broker that answers."""

    servers: str
    server: Server | None
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
    yield from _broker(servers.noida, tmp_path_factory)


@pytest.fixture(scope="session")
def tansu(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """Broker for who reads it."""
    yield from _broker(servers.tansu, tmp_path_factory)


@pytest.fixture(scope="session")
def apache(tmp_path_factory: pytest.TempPathFactory) -> Broker:
    """Apache Kafka, one node."""
    return _yours() or _apache_node(tmp_path_factory.getbasetemp())


def apache_kafka(directory: Path, **settings: Any) -> ApacheKafka:
    """A cluster for one test or module; what it takes is `ApacheKafka`'s."""
    return ApacheKafka(directory, jars(), **settings)


def apache_is_asked_for() -> bool:
    """Whether tests that start a broker themselves are to start Apache Kafka."""
    return os.environ.get("REPTIDE_TEST_KAFKA") == "apache"


def jars() -> Path:
    """Apache Kafka's; the first time they are downloaded."""
    with (ROOT / ".kafka.lock").open("w") as lock:  # of several sessions that begin at once, one downloads
        fcntl.flock(lock, fcntl.LOCK_EX)
        subprocess.run(["make", "--silent", ".kafka"], cwd=ROOT, check=True)
    return JARS


@cache
def _apache_node(directory: Path) -> Broker:
    """One for the session: a fixture that several modules import is made for each of them."""
    kafka = apache_kafka(directory / "apache")
    atexit.register(kafka.kill)
    return Broker(kafka.address, kafka.nodes[0])


def _yours() -> Broker | None:
    """The cluster that the environment names by its address."""
    named = os.environ.get("REPTIDE_TEST_KAFKA", "apache")
    return None if named == "apache" else Broker(named, None)


def _broker(
    started: Callable[[Path], servers.Server], directories: pytest.TempPathFactory
) -> Iterator[Broker]:
    """Yours or Apache Kafka if the environment says so, else a process of this session."""
    if "REPTIDE_TEST_KAFKA" in os.environ:
        yield _yours() or _apache_node(directories.getbasetemp())
        return
    with started(directories.mktemp("broker")) as server:
        yield Broker(server.address, server)


def group_of(library: str) -> Callable[..., GroupClient]:
    """The `GroupClient` of a client library; "confluent, consumer" shares out partitions by KIP-848."""
    if library.startswith("confluent"):
        from streams.logs.kafka.confluent.consumer import ConfluentGroup

        return partial(ConfluentGroup, protocol="consumer") if "consumer" in library else ConfluentGroup
    from streams.logs.kafka.kafka_python.consumer import KafkaGroup

    return KafkaGroup


def producer_of(library: str) -> Callable[..., Producer]:
    """The `Producer` of a client library."""
    if library == "confluent":
        from streams.logs.kafka.confluent.producer import ConfluentProducer

        return ConfluentProducer
    from streams.logs.kafka.kafka_python.producer import KafkaPythonProducer

    return KafkaPythonProducer


def topic_of(
    broker: Broker,
    partitions: int,
    messages: Iterable[tuple[bytes | None, bytes | None]] = (),
    name: str = "",
    replicas: int = 1,
    limits: Mapping[str, str] | None = None,
) -> str:
    """Create a topic of its own for one test, with messages of key and value."""
    from kafka import KafkaAdminClient

    topic = name or f"topic-{next(NUMBERS)}-{os.getpid()}"
    admin = KafkaAdminClient(bootstrap_servers=broker.servers)
    admin.create_topics(
        {
            topic: {
                "num_partitions": partitions,
                "replication_factor": replicas,
                "configs": dict(limits or {}),
            }
        },
        wait_for_metadata=True,
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
