"""Redis Cluster under a worker: a replica that is promoted, a node that comes back elsewhere, slots that move."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from uuid import uuid4

import pytest

from streams.errors import Forgot, Unavailable
from streams.stores.redis.server import RedisServer
from tests.faults.redis_worker import RedisWorker
from tests.redis_servers import Cluster, Server, poll


@dataclass
class Six:
    """Three masters and their replicas."""

    cluster: Cluster
    replicas: list[Server]

    def in_step(self) -> bool:
        """Whether every replica has all that its master has."""
        return all(node.ask("WAIT", "1", "1000") == 1 for node in self.cluster.nodes)

    def fail_over(self, n: int) -> None:
        """A master dies, its replica takes its place, and it comes back at another port as the replica."""
        dead = self.cluster.nodes[n]
        dead.kill()
        self.cluster.wait_for_failover(n, self.replicas[n])
        self.replicas[n] = self.cluster.restart_as_replica(dead)


@pytest.fixture(scope="module")
def six(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Six]:
    directory = tmp_path_factory.mktemp("six")
    cluster = Cluster(directory)
    six = Six(cluster, cluster.add_replicas(directory))
    yield six
    for server in (*six.cluster.nodes, *six.replicas):
        server.kill()


@pytest.fixture
def stream() -> str:
    return uuid4().hex


def connected(six: Six, wait_replicas: int = 0) -> RedisServer:
    return RedisServer(six.cluster.nodes[1].url, cluster=True, timeout_s=1.0, wait_replicas=wait_replicas)


def is_as_uninterrupted(worker: RedisWorker) -> bool:
    """Whether rows and outputs are those of an uninterrupted fold under the same adoptions, bit for bit."""
    return (worker.rows, worker.outputs) == worker.uninterrupted()


def test_a_replica_that_takes_the_place_of_its_master_is_gone_on_with_and_nothing_differs(
    six: Six, stream: str
) -> None:
    """Every replica is waited for, too: each node is asked for its own."""

    def dies() -> None:
        assert six.in_step()
        six.fail_over(0)

    worker = RedisWorker(connected(six, wait_replicas=1), stream, {8: dies}).run()
    assert worker.log.rewinds == 1
    assert is_as_uninterrupted(worker)


def test_a_master_that_was_deposed_while_it_stood_still_is_seen_to_be_a_replica(
    six: Six, stream: str
) -> None:
    """Nothing else would tell a worker that has no events, and whose offsets are about to be committed."""
    server, deposed = connected(six), six.cluster.nodes[0]
    server.meet()
    assert six.in_step()
    deposed.stop()
    six.cluster.wait_for_failover(0, six.replicas[0])
    deposed.go_on()
    six.replicas[0] = deposed
    poll(lambda: deposed.ask("ROLE")[0] == b"slave", "the node to see that it was deposed")
    with pytest.raises(Unavailable, match="is a replica, which takes no writes"):
        server.meet()
    with pytest.raises(Forgot):
        server.meet()
    server.meet()


class Moving:
    """All slots of one node that hold keys of a stream, on their way to another node."""

    def __init__(self, cluster: Cluster, stream: str, source: int, target: int) -> None:
        self.cluster, self.stream = cluster, stream
        self.source, self.target = cluster.nodes[source], cluster.nodes[target]
        self.slots: set[int] = set()

    def begin(self) -> None:
        """The slots are on their way: who asks for a key that has left is sent after it (ASK)."""
        ids = [one.ask("CLUSTER", "MYID") for one in (self.source, self.target)]
        self.slots = {self.slot(key) for key in self.of_the_stream()}
        for slot in map(str, self.slots):
            self.target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[0])
            self.source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[1])

    def keys(self) -> list[bytes]:
        """What has not left yet."""
        return [key for key in self.of_the_stream() if self.slot(key) in self.slots]

    def of_the_stream(self) -> list[bytes]:
        _, keys = self.source.ask("SCAN", "0", "MATCH", f"reptide:{self.stream}:*", "COUNT", "100000")
        return list(keys)

    def slot(self, key: bytes) -> int:
        return int(self.source.ask("CLUSTER", "KEYSLOT", key))

    def half(self) -> None:
        """Half of the keys have left."""
        self.migrate(self.keys()[::2])

    def migrate(self, keys: list[bytes]) -> None:
        for key in keys:
            self.source.ask("MIGRATE", "127.0.0.1", str(self.target.port), key, "0", "5000")

    def end(self) -> None:
        """The rest have left, and the slots are the other node's (MOVED)."""
        self.migrate(self.keys())
        for slot in map(str, self.slots):
            for node in self.cluster.nodes:
                node.ask("CLUSTER", "SETSLOT", slot, "NODE", self.target.ask("CLUSTER", "MYID"))

    def redirected(self, how: str) -> int:
        """How many commands the source has sent elsewhere."""
        told = self.source.ask("INFO", "errorstats")
        return int(told.get(f"errorstat_{how}", {"count": 0})["count"])


def test_slots_that_move_under_a_worker_change_nothing(six: Six, stream: str) -> None:
    """Between two batches, and within one between its reads and its writes; adoptions among them."""
    worker = RedisWorker(connected(six), stream, {})
    adoptions = worker.store._adoptions._table(1, 0)
    source = six.cluster.node_of(adoptions)
    moving = Moving(six.cluster, stream, source, (source + 1) % 3)
    before = [moving.redirected(how) for how in ("ASK", "MOVED")]
    worker.faults = {3: moving.begin, 5: moving.half, 12: moving.end}
    worker.before_the_nth_swap(8, moving.half)
    worker.run()
    assert is_as_uninterrupted(worker)
    assert all(moving.redirected(how) > n for how, n in zip(("ASK", "MOVED"), before, strict=True))


def test_keys_are_not_looked_through_while_slots_move(six: Six, stream: str) -> None:
    """A key that moves from a node that is looked through later to one that was before would be passed over."""
    server = connected(six)
    keys = [f"reptide:{stream}:{n}" for n in range(200)]
    server.ask(*(("SET", key, 1) for key in keys))
    moving = Moving(six.cluster, stream, 0, 1)
    looking = server.keys(f"reptide:{stream}:*")
    next(looking)
    moving.begin()
    with pytest.raises(Unavailable, match="is moving slots between its nodes; wait until it has"):
        list(looking)
    with pytest.raises(Unavailable, match="is moving slots"):
        list(server.keys(f"reptide:{stream}:*"))
    moving.end()
    poll(lambda: all(map(six.cluster.whole, six.cluster.nodes)), "the cluster")
    assert set(server.keys(f"reptide:{stream}:*")) == set(keys)
