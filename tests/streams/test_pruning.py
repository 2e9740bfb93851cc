"""What is kept of theta and of the adoption table, in months of a stream: bounded, and all that a restart needs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.learners.fingerprint import theta_fingerprint
from engine.learners.gradient import GradientLearner
from engine.stream.fold import Engine
from engine.stream.spec import Memory
from streams.assembly.embedded import embedded
from streams.events.record import SourcePosition
from streams.program.embedded import run
from streams.program.pruning import CELL_BYTES, FRESH, GIB, MOST_CELLS, RECENT, most_bytes, prunable, prune
from streams.stores.checkpoints import DirectoryMeta
from streams.stores.lmdb import LmdbStore
from streams.stores.redis.capacity import Capacity, warnings
from streams.stores.redis.rows import RedisStore
from streams.stores.redis.server import RedisServer
from streams.stores.redis.versions import RedisMeta
from tests.faults.model import SPEC, engine
from tests.faults.shop import keeping_nothing, run_to_the_end, shop
from tests.redis_servers import Server, one_redis
from tests.varied import varied

__all__ = ["one_redis"]  # a fixture

VERSIONS, CELLS, PARTITIONS, EVERY = 20_000, 100_000, 4, 4096
THETA = theta_fingerprint(GradientLearner(SPEC.problem))


def cells(count: int, versions: int, partitions: int = PARTITIONS) -> dict[SourcePosition, int]:
    """Adoptions of some partitions that move on together, under ever newer versions."""
    each = count // partitions
    return {
        SourcePosition(7, partition, n * EVERY): n * versions // each
        for partition in range(partitions)
        for n in range(each)
    }


@given(
    adopted=st.dictionaries(
        st.builds(SourcePosition, st.just(7), st.integers(0, 2), st.integers(0, 400)), st.integers(0, 300)
    ),
    most=st.floats(0, 4000),
)
def test_what_a_restart_needs_is_always_kept(adopted: dict[Any, Any], most: float) -> None:
    sizes = dict.fromkeys(range(1, 301), 10)
    gone = prunable(adopted, sizes, most)
    kept = {at: version for at, version in adopted.items() if at not in gone.cells}
    assert {v for v in kept.values() if v} <= sizes.keys() - gone.versions, (
        "no cell names a version that is gone"
    )
    assert not gone.versions & set(range(301 - RECENT, 301))
    for partition in range(3):
        newest = sorted(
            (at for at in adopted if at.partition == partition), key=lambda at: (adopted[at], at.offset)
        )
        assert set(newest[-FRESH:]) <= kept.keys()


def test_what_is_kept_of_a_partition_has_no_holes() -> None:
    sizes = dict.fromkeys(range(1, 1001), 10)
    adopted = {SourcePosition(7, 0, n * EVERY): max(0, 5 * (n - 50)) for n in range(200)}
    gone = prunable(adopted, sizes, most_bytes=1500)
    kept = {at.offset for at in adopted.keys() - gone.cells}
    assert kept == set(range(min(kept), 200 * EVERY, EVERY)) and min(kept) > 50 * EVERY


def test_versions_that_were_never_adopted_go_and_of_the_others_the_oldest() -> None:
    sizes = dict.fromkeys(range(1, 1001), 10)
    adopted = {SourcePosition(7, 0, n * EVERY): 5 * n for n in range(200)}
    gone = prunable(adopted, sizes, most_bytes=1e9)
    assert sizes.keys() - gone.versions == {*range(5, 1000, 5), *range(1001 - RECENT, 1001)}
    assert gone.cells == set() and gone.adopted == 0
    tight = prunable(adopted, sizes, most_bytes=1500)
    kept = sizes.keys() - tight.versions
    assert len(kept) * 10 <= 1500
    assert kept == {*range(tight.adopted + 5, 1000, 5), *range(1001 - RECENT, 1001)}
    assert {adopted[at] for at in tight.cells} == set(range(0, tight.adopted + 5, 5))


def months_in(store: LmdbStore | RedisStore, versions: DirectoryMeta | RedisMeta, most: int) -> None:
    """Prune 20,000 versions and 100,000 cells."""
    gone = prune(store, versions, most / GIB)
    kept = versions.sizes()
    assert sum(kept.values()) <= most
    assert versions.current() == VERSIONS
    assert 0 < len(store.adoptions()) <= PARTITIONS * MOST_CELLS
    assert set(store.adoptions().values()) <= {0, *kept}
    assert gone.adopted < min(kept)
    again = prune(store, versions, most / GIB)
    assert not again.cells and not again.versions


def test_months_in_minutes_in_redis(one_redis: Server) -> None:
    server, stream = RedisServer(one_redis.url), uuid4().hex
    store, versions = RedisStore(server, stream, engine().layout), RedisMeta(server, stream, THETA, 0)
    content = b"x" * 500
    for start in range(1, VERSIONS + 1, 2000):
        server.ask(*(("SET", versions._version(v), content) for v in range(start, start + 2000)))
    versions.advance(VERSIONS)
    adopted = cells(CELLS, VERSIONS)
    for start in range(0, CELLS, 10_000):
        store.record(dict(list(adopted.items())[start : start + 10_000]))
    months_in(store, versions, most=1_000_000)
    names = list(server.keys(f"reptide:{stream}:*"))
    assert len(names) < 2100
    server.close()


@pytest.fixture
def server(one_redis: Server) -> Iterator[RedisServer]:
    server = RedisServer(one_redis.url)
    yield server
    server.close()


def versions_in(server: RedisServer, stream: str, count: int = 200) -> RedisMeta:
    """Versions of 500 bytes."""
    versions = RedisMeta(server, stream, THETA, 0)
    server.ask(*(("SET", versions._version(v), b"x" * 500) for v in range(1, count + 1)))
    versions.advance(count)
    return versions


@pytest.mark.parametrize("keep_gib", [1.0, 60_000 / GIB])
def test_what_another_layout_was_folded_under_is_kept_alike(server: RedisServer, keep_gib: float) -> None:
    stream = uuid4().hex
    old, new = (
        RedisStore(server, stream, Engine(varied(SPEC, memory=Memory(pending=pending))).layout)
        for pending in (3, 5)
    )
    versions = versions_in(server, stream)
    old.record({SourcePosition(7, 0, n * EVERY): 10 + n for n in range(10)})
    new.record({SourcePosition(7, 0, n * EVERY): n + 1 for n in range(200)})
    prune(new, versions, keep_gib)
    assert not versions.missing(old.adoptions().values())
    assert not versions.missing(new.adoptions().values())


def test_a_worker_that_reminds_a_restarted_redis_brings_nothing_back_that_was_pruned(
    server: RedisServer,
) -> None:
    stream = uuid4().hex
    worker, trainer = (RedisStore(server, stream, engine().layout) for _ in range(2))
    versions = versions_in(server, stream)
    for n in range(200):
        worker.adopt([SourcePosition(7, 0, n * EVERY)], n + 1)
    assert prune(trainer, versions, 0.0).cells
    kept = trainer.adoptions()
    latest = max(kept)
    trainer.drop_adoptions({latest})  # as a crash forgets it
    worker.remind()
    assert trainer.adoptions() == kept


def test_a_version_that_was_put_back_counts(server: RedisServer) -> None:
    stream = uuid4().hex
    store, versions = RedisStore(server, stream, engine().layout), versions_in(server, stream)
    prune(store, versions, 0.0)
    assert 5 not in versions.sizes()
    versions.put(5, b"y" * 500)
    assert versions.sizes()[5] == 500
    store.record({SourcePosition(7, 0, 64): 5})
    assert prune(store, versions, 1.0).cells == set()
    prune(store, versions, 0.0)
    store.drop_adoptions(store.adoptions().keys())
    prune(store, versions, 0.0)
    assert versions.missing([5]) == {5}


def test_months_in_minutes_on_disk(tmp_path: Path) -> None:
    store, versions = LmdbStore(tmp_path / "rows"), DirectoryMeta(tmp_path / "theta")
    for version in range(1, VERSIONS + 1):
        (tmp_path / "theta" / f"{version:08d}.theta").write_bytes(b"x" * 500)
    with store._writing(store._adopted) as transaction:
        for at, version in cells(CELLS, VERSIONS).items():
            transaction.put(lmdb_key(at), version.to_bytes(8, "big"))
    versions = DirectoryMeta(tmp_path / "theta")
    months_in(store, versions, most=1_000_000)
    assert len(list((tmp_path / "theta").iterdir())) <= 2000
    assert DirectoryMeta(tmp_path / "theta").current() == VERSIONS
    store.close()


def lmdb_key(at: SourcePosition) -> bytes:
    from streams.stores.lmdb import ADOPTED

    return ADOPTED.pack(*at)


def test_a_run_that_keeps_little_goes_on_to_the_same_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "whole").mkdir()
    whole = run_to_the_end(shop(tmp_path / "whole"))
    settings = keeping_nothing(shop(tmp_path), monkeypatch)
    program = embedded(settings)
    run(program, lambda progress: None)
    assert program.trainer.store.sizes().keys() < set(range(1, program.trainer.store.current() + 1))
    table = program.store.load(program.engine.layout, sorted(whole.rows))
    program.close()
    assert {
        user: {name: row[name].tobytes() for name in whole.rows[user]}
        for user, row in zip(table.ids, table.rows, strict=True)
    } == whole.rows


def test_theta_and_adoptions_count_in_the_room_that_redis_needs() -> None:
    beside = most_bytes(1.0, 12)
    assert beside == GIB + 12 * MOST_CELLS * CELL_BYTES
    room = Capacity("redis:6379", 1000, False, 0, 2 * GIB, "noeviction", beside, True, "always")
    assert room.rows == (2 * GIB - beside) // 1000
    assert warnings(room, room.rows) == []
    (said,) = warnings(room, room.rows + 1)
    assert "1,040 MiB for versions of theta (outer.keep_gib) and adoptions" in said
