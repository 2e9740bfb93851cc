"""Real Redis servers for the tests, each in a directory of its own: one, a pair under a Sentinel, a cluster."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import redis

from streams.testing import servers

DEADLINE_S = 20.0
FAILOVER_S = 60.0
"""A Sentinel whose machine gave it no time for two seconds looks on for half a minute before it acts."""
SLOTS = 16_384
QUICK_SYNC = ("--repl-diskless-sync-delay", "0")
QUICK_GOSSIP = ("--cluster-node-timeout", "1000", "--cluster-require-full-coverage", "yes", *QUICK_SYNC)


def poll(condition: Callable[[], Any], what: str, within_s: float = DEADLINE_S) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {within_s:g} s for {what}"
        time.sleep(0.01)


class Server:
    """A `redis-server` process that can be killed and started again on the same files."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.directory = directory
        self._server = servers.redis_server(directory, *options)
        self.port, self.url = self._server.port, f"redis://{self._server.address}/0"
        self.bus_port = self.port + 10_000  # of a node of a cluster
        self.start, self.kill, self.answers = self._server.start, self._server.kill, self._server.answers

    @property
    def process(self) -> Any:
        """The process as it is now."""
        return self._server.process

    def stop(self) -> None:
        """Let it stand still, its connections open."""
        self.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def go_on(self) -> None:
        """Let one that stands still go on."""
        self.process.send_signal(signal.SIGCONT)
        poll(self.answers, "the server to go on")

    def ask(self, *command: str | bytes) -> Any:
        """One command, past the store."""
        with redis.Redis(port=self.port) as client:
            return client.execute_command(*command)


class Watched:
    """A master and its replica, under a Sentinel that promotes the replica once the master is silent for a second."""

    NAME = "shop"

    def __init__(self, directory: Path, *options: str, sentinel: Sequence[str] = ()) -> None:
        self.directory = directory
        options = (*options, *QUICK_SYNC)
        self.master = self._server("a", *options)
        self.replica = self._server("b", *options, "--replicaof", "127.0.0.1", str(self.master.port))
        poll(self.is_in_step, "the replica")
        port = servers.free_port()
        lines = [
            f"port {port}", "bind 127.0.0.1", f"dir {directory}",
            f"sentinel monitor {self.NAME} 127.0.0.1 {self.master.port} 1",
            f"sentinel down-after-milliseconds {self.NAME} 1000",
            f"sentinel failover-timeout {self.NAME} 3000",
            *sentinel,
        ]  # fmt: skip
        (directory / "sentinel.conf").write_text("\n".join(lines) + "\n")
        arguments = [str(directory / "sentinel.conf"), "--sentinel"]
        self.sentinel = servers.Server(
            servers.redis_program(), arguments, directory / "sentinel", port, servers.PING
        )

    def is_in_step(self) -> bool:
        """Whether the replica has all that the master has: of a connection that wrote nothing `WAIT` asks nothing."""
        with redis.Redis(port=self.master.port) as client, client.pipeline(transaction=False) as asked:
            asked.set("is in step", 1, ex=60).wait(1, 1000)
            return bool(asked.execute()[1] == 1)

    def cut(self) -> None:
        """From here on the replica hears nothing."""
        poll(self.is_in_step, "the replica")
        self.replica.stop()
        self.master.ask("CLIENT", "KILL", "TYPE", "replica")

    def fail_over(self) -> None:
        """The master dies, and the replica goes on, which may have been cut off, and takes its place."""
        self.master.kill()
        self.replica.go_on()
        self.wait_for_failover()

    def bring_back(self) -> None:
        """Start the one that died, and let it catch up as the replica."""
        self.replica.start()
        self.replica.ask("REPLICAOF", "127.0.0.1", str(self.master.port))
        poll(self.is_in_step, "the replica")

    def wait_for_failover(self) -> None:
        """Wait until the Sentinel has promoted the replica; the names change."""
        poll(lambda: self.named() == self.replica.port, "the failover", FAILOVER_S)
        poll(lambda: self.replica.ask("ROLE")[0] == b"master", "the replica to be promoted")
        self.master, self.replica = self.replica, self.master

    def named(self) -> int:
        """The port of the master, as the Sentinel names it."""
        with redis.Redis(port=self.sentinel.port) as client:
            return int(client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.NAME)[1])

    def kill(self) -> None:
        """End all of them."""
        for server in (self.sentinel, self.master, self.replica):
            server.kill()

    def _server(self, name: str, *options: str) -> Server:
        (self.directory / name).mkdir()
        return Server(self.directory / name, *options)


class Cluster:
    """Three servers that share the slots."""

    def __init__(self, directory: Path) -> None:
        self.nodes = []
        for name in "abc":
            (directory / name).mkdir()
            self.nodes.append(self._node(directory / name))
        self.url = self.nodes[0].url
        share = -(-SLOTS // len(self.nodes))
        for n, node in enumerate(self.nodes):
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", str(n + 1))
            node.ask("CLUSTER", "ADDSLOTS", *map(str, range(n * share, min((n + 1) * share, SLOTS))))
        for node, other in permutations(self.nodes, 2):
            node.ask("CLUSTER", "MEET", "127.0.0.1", str(other.port), str(other.bus_port))
        poll(lambda: all(map(self.whole, self.nodes)), "the cluster")

    def whole(self, node: Server) -> bool:
        """Whether a node sees all slots served, by all nodes where they are now."""
        told, ports = node.ask("CLUSTER", "INFO"), {one.port for one in self.nodes}
        return (
            b"cluster_state:ok" in told and {slots[2][1] for slots in node.ask("CLUSTER", "SLOTS")} == ports
        )

    def restart_elsewhere(self, n: int) -> None:
        """Kill a node, and start it on its files at another port."""
        self.nodes[n].kill()
        self.nodes[n] = self._node(self.nodes[n].directory)
        poll(lambda: all(map(self.whole, self.nodes)), "the cluster")

    def replica_of(self, n: int, directory: Path) -> Server:
        """Add a replica of a node."""
        directory.mkdir()
        replica = self._node(directory)
        for node in self.nodes:
            replica.ask("CLUSTER", "MEET", "127.0.0.1", str(node.port))
        primary = self.nodes[n].ask("CLUSTER", "MYID")
        poll(lambda: primary in replica.ask("CLUSTER", "NODES"), "the replica to meet its primary")
        replica.ask("CLUSTER", "REPLICATE", primary)
        poll(lambda: replica.ask("INFO", "replication")["master_link_status"] == "up", "the replica")
        known = b"slave " + primary
        for node in self.nodes:
            poll(lambda: known in node.ask("CLUSTER", "NODES"), "the cluster to know the replica")  # noqa: B023
        return replica

    def add_replicas(self, directory: Path) -> list[Server]:
        """Give each node a replica, which takes its place a second after it falls silent."""
        return [self.replica_of(n, directory / f"replica-{n}") for n in range(len(self.nodes))]

    def wait_for_failover(self, n: int, replica: Server) -> None:
        """Wait until a replica has taken the place of a node."""
        poll(lambda: replica.ask("ROLE")[0] == b"master", "the replica to be promoted", FAILOVER_S)
        self.nodes[n] = replica
        poll(lambda: all(map(self.whole, self.nodes)), "the cluster")

    def restart_as_replica(self, server: Server) -> Server:
        """Start a node that another has taken the place of, at another port, as that one's replica."""
        server.kill()
        again = self._node(server.directory)
        poll(lambda: again.ask("ROLE")[0] == b"slave", "the node to see that it was deposed")
        poll(lambda: again.ask("INFO", "replication")["master_link_status"] == "up", "the replica")
        return again

    def node_of(self, key: str) -> int:
        """Which of the nodes holds a key."""
        slot = self.nodes[0].ask("CLUSTER", "KEYSLOT", key)
        for first, last, (_, port, *_), *_ in self.nodes[0].ask("CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return [node.port for node in self.nodes].index(port)
        raise LookupError(key)

    def promote(self, replica: Server, n: int) -> None:
        """Let a replica take the place of a node that is gone."""
        replica.ask("CLUSTER", "FAILOVER", "TAKEOVER")
        self.nodes[n] = replica
        poll(lambda: all(map(self.whole, self.nodes)), "the cluster")

    def kill(self) -> None:
        """End all of them."""
        for node in self.nodes:
            node.kill()

    def _node(self, directory: Path) -> Server:
        return Server(directory, "--cluster-enabled", "yes", *QUICK_GOSSIP)


def _for_the_session(request: pytest.FixtureRequest, kind: Callable[[Path], Any]) -> Any:
    """One server for all test modules, which each import the fixture."""
    stash: dict[Any, Any] = request.config.stash.setdefault(_SERVERS, {})
    if kind not in stash:
        factory: pytest.TempPathFactory = request.getfixturevalue("tmp_path_factory")
        stash[kind] = kind(factory.mktemp("redis"))
        request.config.add_cleanup(stash[kind].kill)
    return stash[kind]


_SERVERS = pytest.StashKey[dict[Any, Any]]()


@pytest.fixture(scope="session")
def one_redis(request: pytest.FixtureRequest) -> Server:
    """One server without persistence; not to be stopped."""
    server: Server = _for_the_session(request, Server)
    return server


@pytest.fixture(scope="session")
def redis_cluster(request: pytest.FixtureRequest) -> Cluster:
    """Three servers that share the slots; not to be stopped."""
    cluster: Cluster = _for_the_session(request, Cluster)
    return cluster


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Starts servers that a test may stop."""
    started: list[Server] = []

    def start(*options: str) -> Server:
        directory = tmp_path / f"redis-{len(started)}"
        directory.mkdir()
        started.append(Server(directory, *options))
        return started[-1]

    yield start
    for server in started:
        server.kill()
