"""The brokers of the fault benchmark: three nodes of Apache Kafka, or one small broker where there is no java."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep

from kafka import KafkaAdminClient

from streams.errors import Unavailable
from streams.logs.kafka.group import Connection
from streams.logs.kafka.kafka_python.client import describe, in_our_words, made
from streams.testing.apache_kafka import ApacheKafka
from streams.testing.servers import Server, tansu

JARS = Path(__file__).parents[1] / ".kafka"
NODES = 3
PAUSE_S = 0.2
IN_SYNC_S = 60.0


@dataclass(frozen=True)
class Brokers:
    """The nodes of a cluster; a single one keeps all in memory, and is stalled but never killed."""

    nodes: Sequence[Server]
    address: str
    """As `bootstrap` takes them, within a list."""

    @property
    def may_be_killed(self) -> bool:
        """Whether what a node held is there when it is started again, and elsewhere meanwhile."""
        return len(self.nodes) > 1

    def controller(self) -> Server:
        """The node that leads the quorum of controllers."""
        connection = Connection(self.address)
        with in_our_words(connection, "the quorum"):
            admin = made(KafkaAdminClient, connection)
            try:
                (quorum,) = admin.describe_metadata_quorum()["topics"][0]["partitions"]
            finally:
                admin.close()
        leader: Server = self.nodes[quorum["leader_id"]]
        return leader

    def wait_until_in_sync(self, topics: tuple[str, ...]) -> None:
        """Wait until every replica of the topics has caught up: with two of three away nothing is acknowledged.

        Raises:
            TimeoutError: one has not.

        """
        deadline = monotonic() + IN_SYNC_S
        while behind := self._behind(topics):
            if monotonic() > deadline:
                raise TimeoutError(f"replicas that do not catch up: {behind}")
            sleep(PAUSE_S)

    def _behind(self, topics: tuple[str, ...]) -> Sequence[str]:
        """Partitions with a replica that is not in sync."""
        try:
            described = describe(Connection(self.address), topics)
        except Unavailable as error:
            return [str(error)]
        return [
            f"{name} {partition['partition_index']}"
            for name, topic in described.items()
            for partition in topic["partitions"]
            if len(partition["isr_nodes"]) < len(partition["replica_nodes"])
        ]


def apache_is_there() -> bool:
    """Whether Apache Kafka can be started: java is installed, and `make .kafka` has collected the jars."""
    return shutil.which("java") is not None and JARS.is_dir()


@contextmanager
def brokers(directory: Path, apache: bool, nodes: int = NODES) -> Iterator[Brokers]:
    """Start so many nodes of Apache Kafka, or a small broker, and end them with the block."""
    if not apache:
        with tansu(directory) as broker:
            yield Brokers([broker], broker.address)
        return
    with ApacheKafka(directory, JARS, nodes) as kafka:
        yield Brokers(kafka.nodes, kafka.address)
