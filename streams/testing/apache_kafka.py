"""Apache Kafka of one's own in KRaft mode, for the demonstration, the benchmarks and the tests: one node, or several.

    with ApacheKafka(directory, jars, nodes=3) as kafka:
        kafka.address                       # "127.0.0.1:...,127.0.0.1:...,...": plaintext, for `bootstrap`
        kafka.nodes[1].kill()               # SIGKILL
        kafka.nodes[1].terminate()          # SIGTERM: a controlled shutdown, which moves its leaders away
        kafka.nodes[1].start()              # again, on the same folder and ports; waits until it answers
        with kafka.nodes[2].stalled(): ...  # SIGSTOP, then SIGCONT
        kafka.start()                       # every node that does not run, at once

Each node is broker and controller. Topics have one replica a node unless they say otherwise, and of three nodes two
must have a record before it is acknowledged. What is set beyond that:

    properties   of every server, such as {"log.retention.check.interval.ms": "500"}, or `AUTHORIZER`
    listeners    more of them, {"SECURE": "SASL_SSL"}: each gets a port of every node, `address_of("SECURE")` tells
                 which, and properties configure it ("listener.name.secure.ssl.keystore.location": ...)
    format       options for the formatting of storage, such as ["--add-scram", "SCRAM-SHA-512=[name=ann,password=p]"]
    java         options for the virtual machine, such as ["-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls=..."]

Nodes and controllers speak to each other over the plaintext listener, as ANONYMOUS, who is a super user under
`AUTHORIZER`; so whoever connects to `address` may do everything. It needs java (17 or newer), and the jars that
`make .kafka` collects.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from streams.errors import ReptideError
from streams.testing.servers import VERSIONS, Server, free_port

CLUSTER = "cmVwdGlkZS10ZXN0LTAwMA"
READY_S = 120.0
"""A node takes 3 s on an idle core; several that share it with the tests, much longer."""
AUTHORIZER = {
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "super.users": "User:ANONYMOUS",
}
"""Whoever is known by name may do only what an ACL allows."""
SMALL = ("-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto")
"""A heap that lets three nodes stand beside the tests, and no optimising compiler that would take their cores."""
QUICK = {
    "group.initial.rebalance.delay.ms": "0",
    "group.consumer.min.session.timeout.ms": "6000",
    "group.consumer.session.timeout.ms": "6000",
    "group.consumer.min.heartbeat.interval.ms": "1000",
    "group.consumer.heartbeat.interval.ms": "1000",
    "broker.session.timeout.ms": "6000",
    "broker.heartbeat.interval.ms": "1000",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.num.partitions": "4",
    "log.cleaner.dedupe.buffer.size": "4000000",
    "log.cleaner.backoff.ms": "500",
    "log.retention.check.interval.ms": "500",
    "log.initial.task.delay.ms": "500",
    "num.network.threads": "2",
    "num.io.threads": "4",
}
"""A group that begins at once, a dead node that is noticed soon, retention and compaction that do not wait for
minutes, and less memory than half a heap for them."""


class ApacheKafka:
    """Some nodes that form one cluster, in folders of their own within a directory."""

    def __init__(
        self,
        directory: Path,
        jars: Path,
        nodes: int = 1,
        properties: Mapping[str, str] | None = None,
        listeners: Mapping[str, str] | None = None,
        format: Sequence[str] = (),
        java: Sequence[str] = (),
    ) -> None:
        """Format and start them.

        Raises:
            ReptideError: java or the jars are missing, or a node ended or did not answer.

        """
        self.version = _version(jars)
        self._java = ["java", *SMALL, *java, "-cp", f"{jars}/*"]
        names = {"PLAINTEXT": "PLAINTEXT", "CONTROLLER": "PLAINTEXT"} | dict(listeners or {})
        self._ports = [{name: free_port() for name in names} for _ in range(nodes)]
        common = _common(names, [ports["CONTROLLER"] for ports in self._ports]) | dict(properties or {})
        folders = [directory / f"node-{number}" for number in range(nodes)]
        for number, folder in enumerate(folders):
            folder.mkdir(parents=True, exist_ok=True)
            _write_properties(folder, common | _own(number, folder, self._ports[number]))
        self._format(folders, format)
        self.nodes = [self._launched(number, folder) for number, folder in enumerate(folders)]
        """Each listens on its plaintext port."""
        try:
            for node in self.nodes:
                node.wait()
        except BaseException:  # Ctrl-C too: none may be left running
            self.kill()
            raise

    @property
    def address(self) -> str:
        """The plaintext listeners, as `bootstrap` takes them."""
        return self.address_of("PLAINTEXT")

    def address_of(self, listener: str) -> str:
        """The nodes' listeners of that name."""
        return ",".join(f"127.0.0.1:{ports[listener]}" for ports in self._ports)

    def start(self) -> None:
        """Start every node that does not run, all at once: where most of them ended, none answers before the others.

        Raises:
            ReptideError: one of them ended, or did not answer in time; with the end of what it said.

        """
        ended = [node for node in self.nodes if node.process.poll() is not None]
        for node in ended:
            node.launch()
        for node in ended:
            node.wait()

    def kill(self) -> None:
        """End all of them without a chance to save anything."""
        for node in self.nodes:
            node.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def _format(self, folders: Sequence[Path], options: Sequence[str]) -> None:
        """Make the folders the cluster's, which nodes demand before they start."""
        tool = ["kafka.tools.StorageTool", "format", "--cluster-id", CLUSTER, *options, "--config"]
        formatting = [
            subprocess.Popen(  # noqa: S603 - what `make .kafka` installed
                [*self._java, f"-Djava.io.tmpdir={folder}", *tool, _properties(folder)],
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True,
            )
            for folder in folders
        ]  # fmt: skip
        for process in formatting:
            said, _ = process.communicate()
            if process.returncode:
                raise ReptideError(f"Apache Kafka's storage cannot be formatted: {said[-2000:]}")

    def _launched(self, number: int, folder: Path) -> Server:
        """One node, which answers when most of them run."""
        program, *options = self._java
        arguments = [*options, f"-Djava.io.tmpdir={folder}", "kafka.Kafka", _properties(folder)]
        port = self._ports[number]["PLAINTEXT"]
        return Server(program, arguments, folder, port, VERSIONS, READY_S, waits=False)


def _version(jars: Path) -> str:
    """Which Apache Kafka the jars are, where it can be started.

    Raises:
        ReptideError: they, or java, are missing.

    """
    found = [jar.stem.removeprefix("kafka_2.13-") for jar in jars.glob("kafka_2.13-*.jar")]
    if not found or not shutil.which("java"):
        missing = (
            "java is missing: install 17 or newer" if found else f"{jars} holds no jars: run `make .kafka`"
        )
        raise ReptideError(f"Apache Kafka cannot be started: {missing}")
    return found[0]


def _common(names: Mapping[str, str], controllers: Sequence[int]) -> dict[str, str]:
    """What every node is told: who the others are, and how often things are kept."""
    nodes = len(controllers)
    quorum = (f"{number}@127.0.0.1:{port}" for number, port in enumerate(controllers))
    protocols = (f"{name}:{protocol}" for name, protocol in names.items())
    replicas, enough = str(nodes), str(min(2, nodes))
    return QUICK | {
        "process.roles": "broker,controller",
        "controller.quorum.voters": ",".join(quorum),
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "PLAINTEXT",
        "listener.security.protocol.map": ",".join(protocols),
        "default.replication.factor": replicas,
        "min.insync.replicas": enough,
        "offsets.topic.replication.factor": replicas,
        "transaction.state.log.replication.factor": replicas,
        "transaction.state.log.min.isr": enough,
    }


def _own(number: int, folder: Path, ports: Mapping[str, int]) -> dict[str, str]:
    """What one node is told."""
    listeners = {name: f"{name}://127.0.0.1:{port}" for name, port in ports.items()}
    advertised = [listener for name, listener in listeners.items() if name != "CONTROLLER"]
    return {
        "node.id": str(number),
        "log.dirs": str(folder / "log"),
        "listeners": ",".join(listeners.values()),
        "advertised.listeners": ",".join(advertised),
    }


def _properties(folder: Path) -> str:
    return str(folder / "server.properties")


def _write_properties(folder: Path, properties: Mapping[str, str]) -> None:
    """As Java reads them: a certificate's line ends are written out."""
    escaped = {name: value.replace("\\", "\\\\").replace("\n", "\\n") for name, value in properties.items()}
    Path(_properties(folder)).write_text("".join(f"{name}={value}\n" for name, value in escaped.items()))
