"""What Redis adds to the promises of every store: servers that die, fill up, forget, refuse, and lose replies."""

from __future__ import annotations

import socketserver
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Thread
from time import process_time
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st
from redis.connection import AbstractConnection

from engine.features.columns import Numeric
from engine.features.encoder import Features
from engine.learners.fingerprint import theta_fingerprint
from engine.learners.gradient import GradientLearner
from engine.stream.layout import Layout
from engine.stream.table import RowError, TaskTable
from streams.errors import CheckpointError, Forgot, ReptideError, SettingsError, StoreError, Unavailable
from streams.events.decoding import decode
from streams.events.record import Offsets, Polled, Record, SourcePosition
from streams.logs.memory import INCARNATION, MemoryLog
from streams.program.schedule import Schedule
from streams.program.theta import ThetaCache
from streams.settings.kept import agree
from streams.stores.base import RecordStore, Swap, key_of
from streams.stores.redis.capacity import Capacity, bytes_of_a_row, capacity, warnings
from streams.stores.redis.protocol import SENT_ALONE, CommandPacker
from streams.stores.redis.rows import FORGOTTEN_S, RedisStore
from streams.stores.redis.server import RedisServer
from streams.stores.redis.settings import RedisSettings
from streams.stores.redis.versions import RedisMeta
from tests.faults.model import SPEC, World, engine
from tests.faults.model import stream as events
from tests.redis_servers import Cluster, Server, one_redis, own_redis, poll, redis_cluster
from tests.streams.test_checkpoints import TestEveryMetaStore, checkpoint, same
from tests.varied import varied

__all__ = ["TestEveryMetaStore", "one_redis", "own_redis", "redis_cluster"]  # fixtures, and a contract

LAYOUT = engine().layout
THETA = theta_fingerprint(GradientLearner(SPEC.problem))
PASSWORD = "hunter2-sesame"  # noqa: S105
Start = Callable[..., Server]
Open = Callable[..., RedisStore]


@pytest.fixture
def stream() -> str:
    return uuid4().hex


@pytest.fixture
def connected() -> Iterator[Open]:
    """Opens stores, and closes them."""
    opened: list[RedisStore] = []

    def connect(url: str, stream: str = "s", layout: Layout = LAYOUT, **options: Any) -> RedisStore:
        server = RedisServer(url, **{k: options.pop(k) for k in ("cluster", "timeout_s") if k in options})
        opened.append(RedisStore(server, stream, layout, **options))
        return opened[-1]

    yield connect
    for store in opened:
        store.close()


def marked(store: RecordStore, tasks: list[str], mark: int) -> TaskTable:
    """Rows as they are stored, changed."""
    table = store.load(LAYOUT, tasks)
    table.rows["seq"] = mark
    return table


def marks(store: RecordStore, tasks: list[str]) -> list[int]:
    return list(store.load(LAYOUT, tasks).rows["seq"].tolist())


def row_key(stream: str, task: str, layout: int = LAYOUT.fingerprint) -> str:
    return f"reptide:{stream}:{layout:016x}:t:{key_of(task)}"


# Replies that get lost, and writers that race


class LostReply:
    """Has a client read a reply and then lose it, and its connection with it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.countdown = -1
        read = AbstractConnection.read_response

        def losing(connection: Any, *arguments: Any, **options: Any) -> Any:
            reply = read(connection, *arguments, **options)
            self.countdown -= 1
            if self.countdown == 0:
                connection.disconnect()
                raise redis.ConnectionError("the reply is lost")
            return reply

        monkeypatch.setattr(AbstractConnection, "read_response", losing)


@pytest.fixture
def lost_reply(monkeypatch: pytest.MonkeyPatch) -> LostReply:
    return LostReply(monkeypatch)


@pytest.mark.parametrize("kind", ["one_redis", "redis_cluster"])
class TestAReplyThatIsLost:
    @pytest.fixture
    def store(self, kind: str, request: pytest.FixtureRequest, connected: Open, stream: str) -> RedisStore:
        return connected(request.getfixturevalue(kind).url, stream, cluster=kind == "redis_cluster")

    def test_a_swap_is_asked_again_and_recognised(self, store: RedisStore, lost_reply: LostReply) -> None:
        table = marked(store, ["a"], 7)
        lost_reply.countdown = 1
        assert store.swap(table) == [Swap.ALREADY]
        assert lost_reply.countdown < 0
        assert store.load(LAYOUT, ["a"]).rows["revision"].tolist() == [1]
        assert marks(store, ["a"]) == [7]

    @pytest.mark.parametrize("nth", [1, 5, 10])
    def test_no_row_of_a_batch_is_taken_for_lost(
        self, store: RedisStore, lost_reply: LostReply, nth: int
    ) -> None:
        tasks = [f"t{n}" for n in range(160)]  # ten replies of one server
        table = marked(store, tasks, 7)
        lost_reply.countdown = nth
        assert set(store.swap(table)) <= {Swap.OK, Swap.ALREADY}
        assert lost_reply.countdown < 0
        assert store.load(LAYOUT, tasks).rows["revision"].tolist() == [1] * 160
        assert marks(store, tasks) == [7] * 160

    def test_an_adoption_is_asked_again_and_stays(self, store: RedisStore, lost_reply: LostReply) -> None:
        store.ping()
        lost_reply.countdown = 1
        assert store.adopt([SourcePosition(1, 0, 64)], 3) == [3]
        assert store.adoptions() == {SourcePosition(1, 0, 64): 3}


def test_of_writers_that_race_none_undoes_another(one_redis: Server, connected: Open, stream: str) -> None:
    stores = [connected(one_redis.url, stream) for _ in range(2)]
    with ThreadPoolExecutor(2) as threads:
        for _ in range(50):
            tables = [store.load(LAYOUT, ["a"]) for store in stores]
            for who, table in enumerate(tables):
                table.rows["seq"] += 1
                table.rows["epoch"] = who
            outcomes = list(threads.map(RedisStore.swap, stores, tables))
            assert sorted(outcomes, key=str) == [[Swap.LOST], [Swap.OK]]
            assert stores[0].load(LAYOUT, ["a"]).rows["epoch"] == outcomes.index([Swap.OK])
    assert marks(stores[0], ["a"]) == [50]


@pytest.mark.parametrize("ttl_s", [0, 1000])
@pytest.mark.parametrize("kind", ["one_redis", "redis_cluster"])
def test_of_a_batch_only_the_rows_that_another_wrote_are_lost(
    kind: str, ttl_s: int, request: pytest.FixtureRequest, connected: Open, stream: str
) -> None:
    store = connected(request.getfixturevalue(kind).url, stream, cluster=kind == "redis_cluster", ttl_s=ttl_s)
    tasks = [f"t{n}" for n in range(40)]
    store.swap(marked(store, tasks[::2], 1))
    table = marked(store, tasks, 2)
    store.swap(marked(store, tasks[::3], 3))
    assert store.swap(table) == [Swap.OK if n % 3 else Swap.LOST for n in range(40)]
    assert marks(store, tasks) == [2 if n % 3 else 3 for n in range(40)]
    assert store.load(LAYOUT, tasks).rows["revision"].tolist() == [2 - n % 2 for n in range(40)]


@pytest.mark.parametrize("kind", ["one_redis", "redis_cluster"])
def test_a_server_that_forgot_its_scripts_between_two_batches_loses_nothing(
    kind: str, request: pytest.FixtureRequest, connected: Open, stream: str
) -> None:
    server: Server | Cluster = request.getfixturevalue(kind)
    store = connected(server.url, stream, cluster=kind == "redis_cluster", ttl_s=1000)
    tasks = [f"t{n}" for n in range(40)]
    store.swap(marked(store, tasks, 1))
    for node in server.nodes if isinstance(server, Cluster) else [server]:
        node.ask("SCRIPT", "FLUSH")
    assert store.swap(marked(store, tasks, 2)) == [Swap.OK] * 40
    assert marks(store, tasks) == [2] * 40


# The cluster


class TestACluster:
    def test_rows_are_spread_over_its_nodes(
        self, redis_cluster: Cluster, connected: Open, stream: str
    ) -> None:
        store = connected(redis_cluster.url, stream, cluster=True)
        tasks = [f"{{same}} {n}" for n in range(60)]
        store.swap(marked(store, tasks, 1))
        pattern = f"reptide:{stream}:*"
        assert all(
            node.ask("SCAN", "0", "MATCH", pattern, "COUNT", "100000")[1] for node in redis_cluster.nodes
        )
        assert sorted(store.tasks()) == sorted(map(key_of, tasks))

    def test_a_slot_that_moved_is_followed(
        self, redis_cluster: Cluster, connected: Open, stream: str
    ) -> None:
        store = connected(redis_cluster.url, stream, cluster=True)
        first, second, _ = redis_cluster.nodes
        task = next(t for t in map(str, range(10_000)) if self.free_slot(first, row_key(stream, t)))
        slot = str(first.ask("CLUSTER", "KEYSLOT", row_key(stream, task)))
        store.swap(marked(store, ["warm"], 1))
        target = second.ask("CLUSTER", "MYID")
        for node in (second, first):
            node.ask("CLUSTER", "SETSLOT", slot, "NODE", target)
        assert store.swap(marked(store, [task, "warm"], 7)) == [Swap.OK, Swap.OK]
        assert marks(store, [task, "warm"]) == [7, 7]

    def free_slot(self, node: Server, key: str) -> bool:
        """Whether a key falls in a slot of this node (of the first third) that is empty."""
        slot = node.ask("CLUSTER", "KEYSLOT", key)
        return bool(slot < 5000 and node.ask("CLUSTER", "COUNTKEYSINSLOT", str(slot)) == 0)

    def test_taken_for_a_single_server_it_is_refused_by_the_setting(
        self, redis_cluster: Cluster, connected: Open, stream: str
    ) -> None:
        store = connected(redis_cluster.url, stream)
        with pytest.raises(StoreError, match="is a node of a cluster; set `cluster` to true"):
            store.load(LAYOUT, [str(n) for n in range(100)])

    def test_a_single_server_taken_for_one_is_refused_by_the_setting(
        self, one_redis: Server, connected: Open, stream: str
    ) -> None:
        with pytest.raises(StoreError, match="is no node of a cluster; set `cluster` to false"):
            connected(one_redis.url, stream, cluster=True).load(LAYOUT, ["a"])

    def test_a_cluster_that_is_not_there_is_unavailable(self, own_redis: Start, connected: Open) -> None:
        server = own_redis()
        server.kill()
        with pytest.raises(Unavailable, match=str(server.port)):
            connected(server.url, cluster=True).load(LAYOUT, ["a"])

    def test_without_one_of_its_nodes_it_is_unavailable_until_that_is_back(
        self, own_cluster: Cluster, connected: Open
    ) -> None:
        cluster, tasks = own_cluster, [str(n) for n in range(30)]
        store = connected(cluster.url, cluster=True)
        table = marked(store, tasks, 7)
        cluster.nodes[2].kill()
        with pytest.raises(Unavailable):
            store.swap(table)
        cluster.nodes[2].start()
        poll(lambda: all(map(cluster.whole, cluster.nodes)), "the cluster")
        with pytest.raises(Forgot):
            store.swap(table)
        assert set(store.swap(table)) <= {Swap.OK, Swap.ALREADY}
        assert marks(store, tasks) == [7] * 30

    def test_nodes_restarted_at_other_addresses_may_have_forgotten_and_are_said_once_each(
        self, own_cluster: Cluster, connected: Open
    ) -> None:
        store, tasks = connected(own_cluster.url, cluster=True), [str(n) for n in range(30)]
        store.swap(marked(store, tasks, 7))
        for n in range(2):
            own_cluster.restart_elsewhere(n)
            with pytest.raises(Forgot, match="was restarted"):
                store.load(LAYOUT, tasks)
            assert marks(store, tasks).count(0) > 5 * n

    def test_a_replica_that_was_promoted_may_lack_the_last_seconds_and_is_said_once(
        self, own_cluster: Cluster, connected: Open, tmp_path: Path
    ) -> None:
        first, replica = own_cluster.nodes[0], own_cluster.replica_of(0, tmp_path / "replica")
        store, tasks = connected(own_cluster.url, cluster=True), [str(n) for n in range(30)]
        store.swap(marked(store, tasks, 1))
        poll(lambda: replica.ask("DBSIZE") == first.ask("DBSIZE"), "the replica")
        replica.process.send_signal(19)
        first.ask("CLIENT", "KILL", "TYPE", "replica")
        store.swap(marked(store, tasks, 2))
        first.kill()
        replica.process.send_signal(18)
        poll(replica.answers, "the replica to go on")
        own_cluster.promote(replica, 0)
        with pytest.raises(Unavailable, match="does not answer"):
            store.load(LAYOUT, tasks)
        with pytest.raises(Forgot, match=rf"another primary, 127.0.0.1:{replica.port}, which may lack"):
            store.load(LAYOUT, tasks)
        assert set(marks(store, tasks)) == {1, 2}

    @pytest.fixture
    def own_cluster(self, tmp_path: Path) -> Iterator[Cluster]:
        """Three servers that a test may stop."""
        (tmp_path / "cluster").mkdir()
        cluster = Cluster(tmp_path / "cluster")
        yield cluster
        cluster.kill()


# Servers that die


class TestAServerThatDies:
    def test_killed_it_comes_back_with_what_it_acknowledged(self, own_redis: Start, connected: Open) -> None:
        server = own_redis("--appendonly", "yes", "--appendfsync", "always")
        store = connected(server.url, timeout_s=0.5)
        store.swap(marked(store, ["a"], 7))
        store.adopt([SourcePosition(1, 0, 64)], 3)
        store.forget({"b"}, 1e9)  # its rewrite outlives the server, and keeps the connection open in silence
        server.kill()
        server.start()
        with pytest.raises(Forgot):
            store.ping()
        assert marks(store, ["a"]) == [7]
        assert store.adoptions() == {SourcePosition(1, 0, 64): 3}
        assert store.forgotten(["a", "b"]) == {"b"}
        assert store.swap(marked(store, ["a"], 8)) == [Swap.OK]

    def test_while_it_is_gone_every_call_says_so_and_then_goes_on(
        self, own_redis: Start, connected: Open
    ) -> None:
        server = own_redis()
        store = connected(server.url)
        table = marked(store, ["a"], 7)
        server.kill()
        calls: list[Callable[[], object]] = [
            lambda: store.load(LAYOUT, ["a"]), lambda: store.swap(table),
            lambda: store.adopt([SourcePosition(1, 0, 0)], 0),
            lambda: store.adoptions(), lambda: list(store.tasks()), store.clear, store.ping,
            lambda: store.forget({"a"}, 1), lambda: store.forgotten(["a"]),
        ]  # fmt: skip
        for call in calls:
            with pytest.raises(
                Unavailable, match=f"127.0.0.1:{server.port} does not answer .*Connection refused"
            ):
                call()
        server.start()
        with pytest.raises(Forgot):
            store.ping()
        assert store.swap(table) == [Swap.OK]

    def test_one_that_was_restarted_says_once_that_it_may_have_forgotten(
        self, own_redis: Start, connected: Open
    ) -> None:
        server = own_redis()
        store = connected(server.url)
        table = marked(store, ["a"], 7)
        server.kill()
        server.start()
        with pytest.raises(Forgot, match=f"127.0.0.1:{server.port} was restarted"):
            store.swap(table)
        assert store.swap(table) == [Swap.OK]
        server.kill()
        with pytest.raises(Unavailable, match="does not answer"):
            store.ping()
        server.start()
        with pytest.raises(Forgot):
            store.ping()

    def test_one_that_forgot_is_reminded_before_another_adopts_otherwise(
        self, own_redis: Start, connected: Open
    ) -> None:
        server = own_redis()
        store, other = connected(server.url), connected(server.url)
        assert store.adopt([SourcePosition(1, 0, 64)], 3) == [3]
        server.kill()
        server.start()
        with pytest.raises(Forgot):
            store.ping()
        store.remind()
        assert other.adopt([SourcePosition(1, 0, 64)], 4) == [3]

    def test_an_adoption_that_it_forgot_is_told_again(self, own_redis: Start, connected: Open) -> None:
        server = own_redis()
        store = connected(server.url)
        assert store.adopt([SourcePosition(1, 0, 64)], 3) == [3]
        server.ask("FLUSHALL")
        assert store.adopt([SourcePosition(1, 0, 64)], 4) == [3]
        assert store.adoptions() == {SourcePosition(1, 0, 64): 3}

    def test_one_that_hangs_is_unavailable_after_the_timeout(self, own_redis: Start, connected: Open) -> None:
        server = own_redis()
        store = connected(server.url, timeout_s=0.1)
        store.ping()
        server.process.send_signal(19)
        with pytest.raises(Unavailable, match=r"does not answer .*[Tt]imeout"):
            store.load(LAYOUT, ["a"])
        server.process.send_signal(18)
        poll(server.answers, "the server to go on")
        assert [*store.tasks()] == []


class TestAServerThatIsFull:
    @pytest.fixture
    def server(self, own_redis: Start) -> Server:
        return own_redis("--maxmemory-policy", "noeviction")

    def test_nothing_is_written_and_with_more_memory_it_goes_on(
        self, server: Server, connected: Open
    ) -> None:
        store = connected(server.url)
        tasks = ["a", "b", "c"]
        store.swap(marked(store, tasks, 1))
        table = marked(store, tasks, 2)
        server.ask("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(Unavailable, match=r"is full: .* `CONFIG SET maxmemory`"):
            store.swap(table)
        assert marks(store, tasks) == [1, 1, 1]
        server.ask("CONFIG", "SET", "maxmemory", "0")
        assert store.swap(table) == [Swap.OK] * 3

    def test_no_version_of_theta_is_seen_before_it_has_room(self, server: Server) -> None:
        connection = RedisServer(server.url)
        versions = RedisMeta(connection, "s", THETA, sleep=lambda _: None)
        server.ask("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(Unavailable, match="is full"):
            versions.publish(checkpoint())
        assert versions.current() == 0
        server.ask("CONFIG", "SET", "maxmemory", "0")
        assert versions.publish(checkpoint())
        connection.close()


def test_a_replica_takes_no_writes_and_says_so(own_redis: Start, connected: Open) -> None:
    server = own_redis()
    store = connected(server.url)
    table = marked(store, ["a"], 7)
    server.ask("REPLICAOF", "127.0.0.1", "1")
    with pytest.raises(Unavailable, match="is a replica, which takes no writes"):
        store.swap(table)
    server.ask("REPLICAOF", "NO", "ONE")
    assert store.swap(table) == [Swap.OK]


@pytest.fixture
def answering() -> Iterator[Callable[[bytes], str]]:
    """Starts servers with one answer to everything; gives their URL."""
    running: list[socketserver.TCPServer] = []

    def start(answer: bytes) -> str:
        class Answer(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                while self.request.recv(65_536):
                    self.request.sendall(answer + b"\r\n")

        running.append(socketserver.ThreadingTCPServer(("127.0.0.1", 0), Answer))
        Thread(target=running[-1].serve_forever, args=[0.01]).start()
        return f"redis://127.0.0.1:{running[-1].server_address[1]}/0"

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    "answer, kind, words",
    [
        (b"-LOADING Redis is loading the dataset in memory", Unavailable, "is still loading its data"),
        (b"-MISCONF Redis is configured to save RDB snapshots", Unavailable, "cannot save to its own disk"),
        (b"-NOREPLICAS Not enough good replicas to write.", Unavailable, "too few replicas"),
        (b"-CLUSTERDOWN The cluster is down", Unavailable, "misses a part of its cluster"),
        (b"-MASTERDOWN Link with MASTER is down", Unavailable, "misses a part of its cluster"),
        (b"-TRYAGAIN Multiple keys request during rehashing of slot", Unavailable, "is moving slots"),
        (b"-BUSY Redis is busy running a script.", Unavailable, "is busy with a script"),
        (b"-NOPERM this user has no permissions", StoreError, "does not let user default in"),
        (
            b"-ERR unknown command 'EVAL', with args beginning with: 'ann'",
            StoreError,
            r"unknown command 'EVAL'\); check",
        ),
        (b"HTTP/1.1 400 Bad Request", ReptideError, "Redis at 127.0.0.1"),
    ],
)
def test_what_a_server_says_becomes_a_sentence(
    answer: bytes, kind: type[ReptideError], words: str, answering: Callable[[bytes], str], connected: Open
) -> None:
    with pytest.raises(kind, match=words) as raised:
        connected(answering(answer)).load(LAYOUT, ["a"])
    assert "\n" not in str(raised.value)


# Passwords


class TestPasswords:
    def refused(self, store: RedisStore, kind: type[ReptideError]) -> str:
        with pytest.raises(kind) as raised:
            store.load(LAYOUT, ["a"])
        assert PASSWORD not in str(raised.value)
        return str(raised.value)

    def test_with_the_right_one_it_works(self, own_redis: Start, connected: Open) -> None:
        server = own_redis("--requirepass", PASSWORD)
        store = connected(server.url.replace("//", f"//:{PASSWORD}@"))
        assert [*store.tasks()] == []

    @pytest.mark.parametrize("user", ["", f":{PASSWORD}x@", f"ann:{PASSWORD}@"])
    @pytest.mark.parametrize("cluster", [False, True])
    def test_without_or_with_a_wrong_one_the_sentence_says_so(
        self, user: str, cluster: bool, own_redis: Start, connected: Open
    ) -> None:
        server = own_redis("--requirepass", PASSWORD)
        store = connected(server.url.replace("//", f"//{user}"), cluster=cluster)
        assert "check user and password" in self.refused(store, StoreError)

    def test_a_server_that_is_gone_is_named_without_it(self, own_redis: Start, connected: Open) -> None:
        server = own_redis()
        server.kill()
        for cluster in (False, True):
            store = connected(server.url.replace("//", f"//ann:{PASSWORD}@"), cluster=cluster)
            assert f"127.0.0.1:{server.port}" in self.refused(store, Unavailable)

    @pytest.mark.parametrize(
        "url",
        [
            "",
            "localhost",
            "http://x",
            f"redis://:{PASSWORD}/1@h:1",
            f"redis://h:{PASSWORD}",
            "redis://h?bogus=1",
        ],
    )
    def test_what_is_no_url_is_refused_without_quoting_it(self, url: str) -> None:
        with pytest.raises(StoreError, match="the URL of Redis cannot be read") as raised:
            RedisServer(url)
        assert PASSWORD not in str(raised.value)


# Rows


class TestRows:
    def test_a_row_of_another_layout_under_our_key_is_refused(
        self, one_redis: Server, connected: Open, stream: str
    ) -> None:
        store = connected(one_redis.url, stream)
        other = TaskTable.empty(replace(LAYOUT, fingerprint=LAYOUT.fingerprint ^ 1), ["ann"])
        one_redis.ask("SET", row_key(stream, "ann"), bytes(other.encode()[0]))
        with pytest.raises(RowError, match=r"'ann'.*reptide rebuild"):
            store.load(LAYOUT, ["ann"])

    def test_layouts_and_streams_have_rows_of_their_own(
        self, one_redis: Server, connected: Open, stream: str
    ) -> None:
        store = connected(one_redis.url, stream)
        store.swap(marked(store, ["a"], 7))
        others = [
            connected(one_redis.url, stream, replace(LAYOUT, fingerprint=LAYOUT.fingerprint ^ 1)),
            connected(one_redis.url, stream + "x"),
        ]
        for other in others:
            assert marks(other, ["a"]) == [0]
            assert list(other.tasks()) == []
            other.clear()
        assert marks(store, ["a"]) == [7]

    def test_packed_rows_and_whole_ones_lie_side_by_side_and_either_store_goes_on_with_both(
        self, one_redis: Server, connected: Open, stream: str
    ) -> None:
        whole, packs = connected(one_redis.url, stream), connected(one_redis.url, stream, packed=True)
        assert whole.swap(marked(whole, ["a", "b"], 1)) == [Swap.OK] * 2
        assert packs.swap(marked(packs, ["a", "c"], 2)) == [Swap.OK] * 2
        sizes = [one_redis.ask("STRLEN", row_key(stream, task)) for task in "abc"]
        assert sizes[1] == LAYOUT.bytes_per_task > 4 * max(sizes[0], sizes[2])
        assert whole.swap(marked(whole, ["c"], 3)) == [Swap.OK]
        assert marks(whole, ["a", "b", "c"]) == marks(packs, ["a", "b", "c"]) == [2, 1, 3]
        rows = dict(row for page in packs.stored() for row in page)
        assert {len(row) for row in rows.values()} == {LAYOUT.bytes_per_task}
        packs.clear()
        packs.put([*rows.items()])
        assert marks(whole, ["a", "b", "c"]) == [2, 1, 3]

    def test_a_packed_row_that_was_cut_short_is_refused_and_the_task_named(
        self, one_redis: Server, connected: Open, stream: str
    ) -> None:
        store = connected(one_redis.url, stream, packed=True)
        store.swap(marked(store, ["a"], 1))
        row = one_redis.ask("GETRANGE", row_key(stream, "a"), "0", "-5")
        one_redis.ask("SET", row_key(stream, "a"), row)
        with pytest.raises(RowError, match=r"'a' has \d+ bytes instead of"):
            store.load(LAYOUT, ["a"])

    def test_a_row_lives_as_long_as_was_said_from_its_last_write(
        self, one_redis: Server, connected: Open, stream: str
    ) -> None:
        store = connected(one_redis.url, stream, ttl_s=100)
        key = row_key(stream, "a")
        store.swap(marked(store, ["a"], 1))
        one_redis.ask("EXPIRE", key, "5")
        store.swap(marked(store, ["a"], 2))
        assert 90 < one_redis.ask("TTL", key) <= 100

    def test_without_a_time_to_live_it_stays(self, one_redis: Server, connected: Open, stream: str) -> None:
        store = connected(one_redis.url, stream)
        store.swap(marked(store, ["a"], 1))
        assert one_redis.ask("TTL", row_key(stream, "a")) == -1

    def test_a_row_that_is_read_lives_until_it_is_written(
        self, one_redis: Server, connected: Open, stream: str
    ) -> None:
        store = connected(one_redis.url, stream, ttl_s=100)
        tasks = ["soon", "later", "for ever", "forgotten"]
        store.swap(marked(store, tasks, 1))
        store.forget({"forgotten"}, 1e9)
        one_redis.ask("EXPIRE", row_key(stream, "soon"), "5")
        one_redis.ask("EXPIRE", row_key(stream, "later"), "70")
        one_redis.ask("PERSIST", row_key(stream, "for ever"))
        assert marks(store, tasks) == [1, 1, 1]
        left = [one_redis.ask("TTL", row_key(stream, task)) for task in tasks]
        assert [round(seconds, -1) for seconds in left] == [100, 70, 100, FORGOTTEN_S]

    def test_a_row_that_expired_under_a_writer_is_lost_not_overwritten(
        self, one_redis: Server, connected: Open, stream: str
    ) -> None:
        store = connected(one_redis.url, stream)
        store.swap(marked(store, ["a"], 1))
        table = marked(store, ["a"], 2)
        one_redis.ask("DEL", row_key(stream, "a"))
        assert store.swap(table) == [Swap.LOST]


# Settings


def test_a_setting_that_rows_hang_on_is_refused_where_another_was_kept(
    one_redis: Server, stream: str
) -> None:
    kept = [RedisSettings(RedisServer(one_redis.url), stream, layout) for layout in (1, 1, 2)]
    agree(kept[0], {"inner.lr": 0.1}, "rows", "")
    with pytest.raises(SettingsError, match=r"inner\.lr is 0\.2 and was 0\.1"):
        agree(kept[1], {"inner.lr": 0.2}, "rows", "")
    agree(kept[2], {"inner.lr": 0.2}, "rows", "")


def test_of_settings_that_two_keep_at_once_the_first_decides(
    one_redis: Server, stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (RedisSettings(RedisServer(one_redis.url), stream, 1) for _ in range(2))
    read, between = second.read, iter([lambda: agree(first, {"inner.lr": 0.1}, "rows", "")])

    def read_and_overtaken() -> Any:
        kept = read()
        next(between, lambda: None)()
        return kept

    monkeypatch.setattr(second, "read", read_and_overtaken)
    with pytest.raises(SettingsError, match=r"inner\.lr is 0\.2 and was 0\.1"):
        agree(second, {"inner.lr": 0.2, "hedge.share": 0.5}, "rows", "")
    assert first.read() == {"inner.lr": 0.1, "hedge.share": 0.5}


# Round trips


class NoCommits(MemoryLog):
    """A log that nobody reads: what is polled is made by hand."""

    def commit(self, offsets: Offsets) -> None:
        """Nothing."""


def by_task(records: Sequence[Record], start: int) -> list[Polled]:
    """What was polled of an input with a partition a task."""
    polled = []
    for p, task in enumerate(tasks := sorted({record.task for record in records})):
        own = [record for record in records if record.task == task]
        moved = [record._replace(offset=start + n, partition=p) for n, record in enumerate(own)]
        polled.append(Polled(p, (INCARNATION,), start, moved, len(tasks)))
    return polled


def test_a_batch_takes_four_round_trips_however_many_partitions_it_is_of(
    one_redis: Server, stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = RedisServer(one_redis.url)
    records = decode([Polled(0, (INCARNATION,), 0, events(3, 400, tasks=12))], SPEC.problem).records
    theta = ThetaCache(engine(), RedisMeta(server, stream, THETA, 0.0))
    store = RedisStore(server, stream, engine().layout)
    worker = replace(
        World([]).program(64).worker, log=NoCommits(), store=store, theta=theta, schedule=Schedule(1024),
        keyed=False, forgets_for_s=None,
    )  # fmt: skip
    first, second = by_task(records[:200], 0), by_task(records[200:], 1100)
    assert len(first) == len(second) == 12
    worker.take(first)
    ask, trips = server.ask, list[object]()

    def counted(*commands: Any) -> Any:
        trips.append(commands)
        return ask(*commands)

    monkeypatch.setattr(server, "ask", counted)
    assert worker.take(second).rejected == 0
    assert len(trips) == 4
    server.close()


# Rows on the wire


@given(
    st.lists(
        st.text("abc \u00e9") | st.binary(max_size=9) | st.integers() | st.floats(allow_nan=False), max_size=9
    ),
    st.sampled_from([0, 1, SENT_ALONE - 1, SENT_ALONE, SENT_ALONE + 1]),
)
def test_a_command_is_packed_as_the_client_packs_it(arguments: list[Any], size: int) -> None:
    command = ("CONFIG GET", *arguments, memoryview(b"x" * size), *arguments)
    client: Any = redis.Connection
    assert b"".join(CommandPacker().pack(*command)) == b"".join(client().pack_command(*command))


def test_a_large_row_is_sent_from_where_it_lies() -> None:
    row = memoryview(bytearray(SENT_ALONE))
    assert any(piece is row for piece in CommandPacker().pack("SET", "a", row))


def test_what_redis_does_not_take_is_not_packed() -> None:
    with pytest.raises(TypeError, match="a command of Redis takes no NoneType"):
        CommandPacker().pack("SET", "a", None)  # type: ignore[arg-type]


# Forgetting


class TestForgetting:
    def test_the_rows_of_all_layouts_go(self, one_redis: Server, connected: Open, stream: str) -> None:
        store = connected(one_redis.url, stream)
        old = row_key(stream, "a", layout=1)
        one_redis.ask("SET", old, b"x" * 100)
        one_redis.ask("HSET", old.partition(":t:")[0] + ":a:0000000000000007:0", "0", "3")
        assert store.forget({"a"}, 60) == {"a"}
        assert one_redis.ask("GET", old) == b"forgotten"

    def test_what_stays_does_not_tell_the_id(self, one_redis: Server, connected: Open, stream: str) -> None:
        store = connected(one_redis.url, stream)
        store.swap(marked(store, ["ann@example.org"], 1))
        store.forget({"ann@example.org"}, 60)
        key = row_key(stream, "ann@example.org")
        assert one_redis.ask("GET", key) == b"forgotten"
        assert 0 < one_redis.ask("TTL", key) <= 60
        assert b"ann" not in b"".join(one_redis.ask("HGETALL", f"reptide:{stream}:forgotten"))

    def test_other_workers_see_it_at_their_next_batch(
        self, one_redis: Server, connected: Open, stream: str
    ) -> None:
        store, other = (connected(one_redis.url, stream) for _ in range(2))
        assert other.forgotten(["a"]) == set()
        assert len(other.load(LAYOUT, ["a", "b"])) == 2
        store.forget({"a"}, 60)
        assert other.load(LAYOUT, ["a", "b"]).ids == ("b",)
        assert other.forgotten(["a"]) == {"a"}
        store.forget({"b"}, 60)
        assert len(other.load(LAYOUT, ["a", "b"])) == 0
        assert other.forgotten(["a", "b"]) == {"a", "b"}

    def test_while_nothing_changes_asking_is_one_command(
        self, one_redis: Server, connected: Open, stream: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = connected(one_redis.url, stream)
        store.forget({"a"}, 60)
        store.forgotten(["a"])
        asked: list[object] = []
        ask = store.server.ask

        def counted(*commands: Any) -> Any:
            asked.extend(commands)
            return ask(*commands)

        monkeypatch.setattr(store.server, "ask", counted)
        assert store.forgotten(["a", *map(str, range(1000))]) == {"a"}
        assert len(asked) == 1

    def test_the_append_only_file_loses_the_bytes(
        self, own_redis: Start, connected: Open, stream: str
    ) -> None:
        server = own_redis("--appendonly", "yes")
        store = connected(server.url, stream)
        store.swap(marked(store, ["ann@example.org", "bob"], 1))
        needle = key_of("ann@example.org").encode()
        server.ask("CONFIG", "SET", "appendfsync", "always")

        def kept() -> bool:
            return any(needle in path.read_bytes() for path in server.directory.rglob("*") if path.is_file())

        assert kept()
        store.forget({"ann@example.org"}, 60)
        server.ask("DEL", row_key(stream, "ann@example.org"))  # the placeholder's minute is over
        poll(lambda: not self.rewriting(server), "the rewrite")
        server.ask("BGREWRITEAOF")
        poll(lambda: not kept(), "the bytes to go")
        assert marks(store, ["bob"]) == [1]

    def rewriting(self, server: Server) -> bool:
        return bool(server.ask("INFO")["aof_rewrite_in_progress"])

    def test_where_a_rewrite_is_forbidden_the_row_is_forgotten_all_the_same(
        self, own_redis: Start, connected: Open
    ) -> None:
        server = own_redis("--appendonly", "yes")
        server.ask("ACL", "SETUSER", "ann", "on", f">{PASSWORD}", "~*", "+@all", "-bgrewriteaof")
        store = connected(server.url.replace("//", f"//ann:{PASSWORD}@"))
        store.swap(marked(store, ["a"], 1))
        assert store.forget({"a"}, 60)
        assert [*store.tasks()] == []


# Versions of theta


class Lag:
    """Stands for the durability lag: something happens while a trainer waits."""

    def __init__(self) -> None:
        self.happenings: list[Callable[[], object]] = []
        self.waited_s: list[float] = []

    def __call__(self, seconds: float) -> None:
        self.waited_s.append(seconds)
        if self.happenings:
            self.happenings.pop(0)()


@pytest.fixture
def lag() -> Lag:
    return Lag()


@pytest.fixture(params=["one_redis", "redis_cluster"])
def versions(request: pytest.FixtureRequest, stream: str, lag: Lag) -> Iterator[RedisMeta]:
    server = RedisServer(request.getfixturevalue(request.param).url, request.param == "redis_cluster")
    yield RedisMeta(server, stream, THETA, sleep=lag)
    server.close()


class TestVersionsOfTheta:
    def test_a_version_is_not_seen_before_the_durability_lag(self, versions: RedisMeta, lag: Lag) -> None:
        seen: list[int] = []
        lag.happenings = [lambda: seen.append(versions.current())]
        assert versions.publish(checkpoint())
        assert (seen, lag.waited_s) == ([0], [2.0])
        assert versions.current() == 1

    def test_a_version_seen_never_changes_where_the_pointer_is_forgotten(self, versions: RedisMeta) -> None:
        versions.publish(checkpoint())
        self.ask(versions, "DEL", "current")
        assert not versions.publish(checkpoint(seed=1))
        assert versions.current() == 1
        assert same(versions.load(1), checkpoint())

    def test_what_a_trainer_left_before_it_died_is_completed_by_the_next(
        self, versions: RedisMeta, lag: Lag
    ) -> None:
        def dies() -> None:
            raise InterruptedError

        lag.happenings = [dies]
        with pytest.raises(InterruptedError):
            versions.publish(checkpoint())
        assert versions.current() == 0
        assert not versions.publish(checkpoint(seed=1))
        assert versions.current() == 1
        assert same(versions.load(1), checkpoint())
        assert versions.publish(checkpoint(2))

    def test_a_version_forgotten_during_the_lag_is_there_when_it_is_seen(
        self, versions: RedisMeta, lag: Lag
    ) -> None:
        lag.happenings = [lambda: self.ask(versions, "DEL", "v:1")]
        assert versions.publish(checkpoint())
        assert same(versions.load(1), checkpoint())

    def test_another_trainers_version_written_in_its_place_waits_its_own_lag(
        self, versions: RedisMeta, lag: Lag
    ) -> None:
        seen: list[int] = []

        def forgotten_and_written_by_another() -> None:
            content = self.ask(other, "GET", "v:1")
            self.ask(versions, "SET", "v:1", content)

        other = RedisMeta(versions.server, f"{versions._prefix}other", THETA, sleep=lambda _: None)
        other.publish(checkpoint(seed=1))
        lag.happenings = [forgotten_and_written_by_another, lambda: seen.append(versions.current())]
        assert not versions.publish(checkpoint())
        assert seen == [0]
        assert versions.current() == 1
        assert same(versions.load(1), checkpoint(seed=1))

    def test_of_two_trainers_at_once_the_first_to_write_wins(self, versions: RedisMeta, lag: Lag) -> None:
        second: list[bool] = []
        lag.happenings = [lambda: second.append(versions.publish(checkpoint(seed=1)))]
        assert versions.publish(checkpoint())
        assert second == [False]
        assert same(versions.load(1), checkpoint())

    def test_a_slow_trainer_does_not_move_the_pointer_back(self, versions: RedisMeta, lag: Lag) -> None:
        lag.happenings = [lambda: (versions.publish(checkpoint()), versions.publish(checkpoint(2)))]
        assert not versions.publish(checkpoint())
        assert versions.current() == 2

    def test_a_reply_that_is_lost_changes_nothing(self, versions: RedisMeta, lost_reply: LostReply) -> None:
        versions.current()
        lost_reply.countdown = 2  # of the write: the pointer is read before
        assert versions.publish(checkpoint())
        assert lost_reply.countdown < 0
        assert versions.publish(checkpoint(2))

    @pytest.mark.parametrize("place", [0, 20, 33, 34, 40, 300, -1, -100])
    def test_damage_is_refused_by_the_name_of_the_key(self, versions: RedisMeta, place: int) -> None:
        versions.publish(checkpoint())
        content = bytearray(self.ask(versions, "GET", "v:1"))
        content[place] ^= 1
        self.ask(versions, "SET", "v:1", bytes(content))
        self.refused(
            versions, r"version 1 of theta in Redis at 127\.0\.0\.1:\d+, reptide:.*:theta:v:1, cannot"
        )

    @pytest.mark.parametrize("kept", [0, 1, 33, 60, 500, -1])
    def test_a_version_cut_short_is_refused(self, versions: RedisMeta, kept: int) -> None:
        versions.publish(checkpoint())
        self.ask(versions, "SET", "v:1", self.ask(versions, "GET", "v:1")[:kept])
        self.refused(versions, "version 1 of theta")

    def test_versions_are_counted_and_dropped_and_the_next_is_published(self, versions: RedisMeta) -> None:
        for version in range(1, 6):
            versions.publish(checkpoint(version))
        sizes = dict(versions.sizes())
        assert list(sizes) == [1, 2, 3, 4, 5]
        assert sizes[3] == len(self.ask(versions, "GET", "v:3"))
        versions.drop({1, 3})
        assert self.kept(versions) == [2, 4, 5]
        assert versions.publish(checkpoint(6))
        assert list(versions.sizes()) == [2, 4, 5, 6]
        assert versions.missing([0, 1, 2, 3]) == {1, 3}

    def test_stream_specs_of_another_theta_have_versions_of_their_own(
        self, versions: RedisMeta, stream: str
    ) -> None:
        versions.publish(checkpoint())
        assert RedisMeta(versions.server, stream, "another").current() == 0

    def test_a_theta_of_another_architecture_is_refused_in_a_sentence(self, versions: RedisMeta) -> None:
        other = varied(SPEC, features=Features((Numeric("a"), Numeric("c"))))
        versions.publish(checkpoint(spec=other))
        with pytest.raises(
            CheckpointError, match=r"version 1 of theta was trained for problem \w+, this one"
        ):
            ThetaCache(engine(), versions).get(1)

    def ask(self, versions: RedisMeta, command: str, name: str, *arguments: bytes) -> Any:
        return versions.server.ask((command, versions._prefix + name, *arguments))[0]

    def kept(self, versions: RedisMeta) -> list[int]:
        return [version for version in range(1, 10) if self.ask(versions, "EXISTS", f"v:{version}")]

    def refused(self, versions: RedisMeta, sentence: str) -> None:
        with pytest.raises(CheckpointError, match=sentence):
            versions.load(1)


# Capacity

ROOMY = Capacity(
    "h:1",
    5000,
    False,
    used_bytes=0,
    max_bytes=10**9,
    policy="noeviction",
    appendonly=True,
    appendfsync="everysec",
)


class TestCapacity:
    @pytest.mark.parametrize("ttl_s", [0, 1000])
    @pytest.mark.parametrize("size", [LAYOUT.bytes_per_task, 1000, 4096, 9000])
    def test_the_estimate_of_a_row_is_what_redis_takes(self, own_redis: Start, size: int, ttl_s: int) -> None:
        server = own_redis()
        name = "reptide:my-stream:0123456789abcdef:t:" + "x" * 21
        with redis.Redis(port=server.port) as client, client.pipeline(transaction=False) as pipeline:
            before, allocator = client.info()["used_memory"], client.info()["mem_allocator"]
            for n in range(8192):
                pipeline.set(f"{name}{n:06d}", b"x" * size, ex=ttl_s or None)
            pipeline.execute()
            taken = (client.info()["used_memory"] - before) / 8192
        assert bytes_of_a_row(size, bool(ttl_s), allocator) == pytest.approx(taken, rel=0.05)

    def test_jemalloc_rounds_a_row_up_to_the_next_of_its_sizes(self) -> None:
        key_and_tables = 80 + 16 + 32 + 16
        assert bytes_of_a_row(4096 - 6, False, "jemalloc-5.2.1") == key_and_tables + 4096
        assert bytes_of_a_row(4097 - 6, False, "jemalloc-5.2.1") == key_and_tables + 5120

    def test_it_is_what_the_server_says(self, own_redis: Start) -> None:
        server = own_redis("--maxmemory", "100mb", "--appendonly", "yes", "--appendfsync", "always")
        connection = RedisServer(server.url)
        found = capacity(connection, 4096, 0)
        connection.close()
        assert (found.max_bytes, found.policy) == (100 * 2**20, "noeviction")
        assert (found.appendonly, found.appendfsync) == (True, "always")
        assert found.rows == 100 * 2**20 // found.row_bytes
        assert warnings(found, 1000) == []

    def test_a_cluster_has_the_room_of_all_its_nodes(self, redis_cluster: Cluster) -> None:
        connection = RedisServer(redis_cluster.url, cluster=True)
        for node in redis_cluster.nodes:
            node.ask("CONFIG", "SET", "maxmemory", "100mb")
        found = capacity(connection, 4096, 0)
        for node in redis_cluster.nodes:
            node.ask("CONFIG", "SET", "maxmemory", "0")
        connection.close()
        assert found.max_bytes == 300 * 2**20
        assert found.appendonly is False

    def test_where_it_may_not_be_asked_it_says_that_it_does_not_know(self, own_redis: Start) -> None:
        server = own_redis("--appendonly", "yes")
        for user, commands in (("ann", ["-info", "-config"]), ("bob", ["-config"])):
            server.ask("ACL", "SETUSER", user, "on", f">{PASSWORD}", "~*", "+@all", *commands)
        said = {}
        for user in ("ann", "bob"):
            connection = RedisServer(server.url.replace("//", f"//{user}:{PASSWORD}@"))
            said[user] = warnings(capacity(connection, 4096, 0), 10)
            connection.close()
        assert "INFO is forbidden" in said["ann"][0]
        assert "`appendfsync unknown`" in said["bob"][1]

    @pytest.mark.parametrize(
        "policy, expires, refused",
        [
            ("allkeys-lru", False, True),
            ("allkeys-lfu", True, True),
            ("volatile-ttl", True, True),
            ("volatile-lru", False, False),
            ("noeviction", True, False),
        ],
    )
    def test_a_policy_that_evicts_rows_is_refused_with_the_command(
        self, policy: str, expires: bool, refused: bool
    ) -> None:
        found = replace(ROOMY, policy=policy, expires=expires)
        if not refused:
            assert warnings(found, 10) == []
            return
        with pytest.raises(StoreError, match=f"{policy}.*`CONFIG SET maxmemory-policy noeviction`"):
            warnings(found, 10)

    def test_without_a_limit_nothing_is_evicted(self) -> None:
        (said,) = warnings(replace(ROOMY, policy="allkeys-lru", max_bytes=0), 10)
        assert "has no memory limit; set `maxmemory`" in said

    def test_more_tasks_than_fit_are_said_in_numbers(self) -> None:
        assert warnings(ROOMY, 200_000) == []
        (said,) = warnings(ROOMY, 200_001)
        assert said.startswith(
            "200,001 tasks of 5,000 bytes and 0 MiB for versions of theta (outer.keep_gib) and adoptions "
            "need 954 MiB, and Redis at h:1 has 954: 200,000 fit"
        )

    def test_without_an_append_only_file_it_says_what_is_lost(self) -> None:
        (said,) = warnings(replace(ROOMY, appendonly=False), 10)
        assert "what was learned is lost; set `appendonly yes`" in said


def test_a_batch_of_1000_rows_of_4_kb_takes_little_of_the_client(
    one_redis: Server, connected: Open, stream: str
) -> None:
    """A bar far above what it takes, 5 to 10 ms, so that only another order of magnitude fails."""
    wide = replace(
        LAYOUT, dtype=np.dtype([*LAYOUT.dtype.descr, ("rest", "u1", (4096 - LAYOUT.bytes_per_task,))])
    )
    store = connected(one_redis.url, stream)
    tasks = [f"t{n}" for n in range(1000)]
    took = []
    for _ in range(3):
        start = process_time()
        table = store.load(wide, tasks)
        loaded = process_time()
        store.swap(table)
        took.append((loaded - start, process_time() - loaded))
    assert max(min(side) for side in zip(*took, strict=True)) < 0.1


@pytest.mark.parametrize("task", ["a", "a/b", "~", "x" * 65_536])
def test_a_row_of_a_snapshot_whose_task_was_forgotten_is_not_put_back(
    connected: Callable[..., RedisStore], one_redis: Server, stream: str, task: str
) -> None:
    store = connected(one_redis.url, stream)
    store.swap(marked(store, [task, "other"], 7))
    rows = [row for page in store.stored() for row in page]
    store.forget({task}, 60)
    store.clear()
    store.put(rows)
    assert ([*store.tasks()], marks(store, ["other"])) == (["other"], [7])
