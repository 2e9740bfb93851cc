"""A replica takes the place of a Redis that dies or stops under a worker, and what `wait_replicas` is for."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
import redis

from engine.learners.fingerprint import theta_fingerprint
from streams.errors import Forgot, StoreError, Unavailable
from streams.events.record import SourcePosition
from streams.stores.redis.rows import RedisStore
from streams.stores.redis.sentinels import Service
from streams.stores.redis.server import RedisServer
from streams.stores.redis.versions import RedisMeta
from tests.faults.model import engine
from tests.faults.redis_worker import BATCH, TRAIL, RedisWorker
from tests.redis_servers import QUICK_SYNC, Server, Watched, one_redis, own_redis, poll
from tests.redis_users import ON_REPLICAS, USERS
from tests.streams.test_checkpoints import checkpoint

__all__ = ["one_redis", "own_redis"]  # fixtures

NOWHERE = "127.0.0.1:1"


@pytest.fixture
def stream() -> str:
    return uuid4().hex


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    watched = Watched(tmp_path)
    yield watched
    watched.kill()


def connected(watched: Watched, wait_replicas: int = 0) -> RedisServer:
    """A connection by way of Sentinels, of which the first is away."""
    service = Service(watched.NAME, (NOWHERE, watched.sentinel.address))
    return RedisServer("redis:///0", timeout_s=1.0, wait_replicas=wait_replicas, service=service)


def is_as_uninterrupted(worker: RedisWorker) -> bool:
    """Whether rows and outputs are those of an uninterrupted fold under the same adoptions, bit for bit."""
    return (worker.rows, worker.outputs) == worker.uninterrupted()


class TestSentinel:
    def test_a_master_that_dies_is_followed_to_its_replica_and_nothing_differs(
        self, watched: Watched, stream: str
    ) -> None:
        def dies() -> None:
            assert watched.is_in_step()
            watched.master.kill()

        worker = RedisWorker(connected(watched), stream, {8: dies}).run()
        assert worker.log.rewinds == 1
        assert is_as_uninterrupted(worker)
        assert any("a replica took its place" in said for said in worker.said)

    @pytest.mark.parametrize("within_a_batch", [False, True])
    def test_a_master_that_was_deposed_while_it_stood_still_is_left_when_it_wakes(
        self, watched: Watched, stream: str, within_a_batch: bool
    ) -> None:
        """It takes itself for the master, until Sentinel has told it otherwise some seconds later."""
        worker = RedisWorker(connected(watched), stream, {})
        if within_a_batch:
            worker.before_the_nth_swap(8, lambda: stands_still(watched))
        else:
            worker.faults = {8: lambda: stands_still(watched)}
        worker.run()
        assert worker.log.rewinds == 1
        assert is_as_uninterrupted(worker)

    def test_no_version_of_theta_is_shown_by_a_master_that_was_deposed_meanwhile(
        self, watched: Watched, stream: str
    ) -> None:
        server, deposed = connected(watched), watched.master
        struck = iter([lambda: stands_still(watched)])
        versions = RedisMeta(
            server, stream, theta_fingerprint(engine().learner), sleep=lambda _: next(struck, lambda: None)()
        )
        with pytest.raises(Forgot):
            versions.publish(checkpoint())
        assert deposed.ask("KEYS", "*:theta:current") == []
        assert versions.publish(checkpoint())
        assert watched.master.ask("KEYS", "*:theta:current")


def stands_still(watched: Watched) -> None:
    """The master stops, its replica is promoted, and it wakes and takes itself for the master."""
    deposed = watched.master
    assert watched.is_in_step()
    deposed.stop()
    watched.wait_for_failover()
    deposed.go_on()
    assert deposed.ask("ROLE")[0] == b"master"


def test_a_master_that_was_a_replica_for_a_while_has_another_history(
    own_redis: Callable[..., Server],
) -> None:
    """There and back while a worker stood still: its address and its run are what they were."""
    one, other = own_redis(*QUICK_SYNC), own_redis(*QUICK_SYNC)
    server = RedisServer(one.url)
    server.meet()
    server.ask(("SET", "a", 1))
    one.ask("REPLICAOF", "127.0.0.1", str(other.port))
    poll(lambda: one.ask("INFO", "replication")["master_link_status"] == "up", "the replica")
    one.ask("REPLICAOF", "NO", "ONE")
    with pytest.raises(Forgot):
        server.meet()
    server.meet()
    assert server.ask(("GET", "a")) == [None]


class TestWaitReplicas:
    CUT_AFTER, DIES_AFTER = 5, 10
    """Batches."""

    def test_without_it_what_was_committed_and_had_not_reached_the_replica_is_lost(
        self, watched: Watched, stream: str
    ) -> None:
        faults = {self.CUT_AFTER: watched.cut, self.DIES_AFTER: watched.fail_over}
        worker = RedisWorker(connected(watched), stream, faults).run()
        committed = self.DIES_AFTER - self.CUT_AFTER - TRAIL
        assert 0 < worker.lost() <= committed * BATCH

    def test_with_it_nothing_is_committed_before_the_replica_has_it_and_nothing_is_lost(
        self, watched: Watched, stream: str
    ) -> None:
        worker = RedisWorker(connected(watched, 1), stream, {})
        committed: list[int] = []

        def note() -> None:
            committed.append(worker.log.committed())

        def cut() -> None:
            watched.cut()
            worker.log.while_waiting = iter([note, note, note, watched.fail_over, note, watched.bring_back])

        worker.faults = {self.CUT_AFTER: cut}
        worker.run()
        assert set(committed) == {(self.CUT_AFTER - TRAIL) * BATCH}
        assert worker.log.rewinds == 1
        assert is_as_uninterrupted(worker)
        assert any("0 of the 1 replicas that redis.wait_replicas asks for" in said for said in worker.said)
        failed = r'reptide_store_errors_total{operation="(adopt|confirm)"} [1-9]'
        assert re.search(failed, worker.service.worker.telemetry.exposition().decode())

    @pytest.mark.parametrize(
        "missing, way", [("~reptide:confirm:*", "~reptide:confirm:*"), ("+wait", "+wait")]
    )
    def test_it_takes_what_the_page_says_a_user_needs(
        self, one_redis: Server, missing: str, way: str
    ) -> None:
        worker = USERS["reptide-worker"]
        server = RedisServer(worker.url(one_redis.url), timeout_s=2.0, wait_replicas=1)
        with redis.Redis(port=one_redis.port) as node:
            worker.grant(node, "shop", [rule for rule in ON_REPLICAS if rule != missing])
            with pytest.raises(StoreError, match=re.escape(f"`ACL SETUSER reptide-worker {way}`")):
                server.confirm()
            worker.grant(node, "shop", ON_REPLICAS)
            with pytest.raises(Unavailable, match="0 of the 1 replicas"):
                server.confirm()
            node.execute_command("ACL", "DELUSER", worker.name)

    def test_nothing_is_counted_on_that_the_replica_lacks_whoever_wrote_it(
        self, own_redis: Callable[..., Server], stream: str
    ) -> None:
        master = own_redis(*QUICK_SYNC)
        replica = own_redis(*QUICK_SYNC, "--replicaof", "127.0.0.1", str(master.port))
        server = RedisServer(master.url, timeout_s=1.0, wait_replicas=1)
        store = RedisStore(server, stream, engine().layout)
        versions = RedisMeta(server, stream, theta_fingerprint(engine().learner), 0.0)
        poll(lambda: is_confirmed(store), "the replica")
        replica.stop()
        master.ask("CLIENT", "KILL", "TYPE", "replica")
        master.ask("SET", stream, "by another")
        adopted = SourcePosition(1, 0, 64)
        for _ in range(2):
            with pytest.raises(
                Unavailable, match=r"has everything on 0 of the 1 replicas .* nothing is lost"
            ):
                store.confirm()
            with pytest.raises(Unavailable, match="of the 1 replicas"):
                store.adopt([adopted], 3)
            with pytest.raises(Unavailable, match="of the 1 replicas"):
                versions.publish(checkpoint())
        assert versions.current() == 0
        replica.go_on()
        poll(lambda: is_confirmed(store), "the replica")
        assert store.adopt([adopted], 4) == [3]
        assert versions.publish(checkpoint())


def is_confirmed(store: RedisStore) -> bool:
    try:
        store.confirm()
    except Unavailable:
        return False
    return True
