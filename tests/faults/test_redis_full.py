"""Redis reaches `maxmemory` under a worker and a trainer, or would evict rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.learners.fingerprint import theta_fingerprint
from streams.assembly.deployed import Deployment
from streams.cli import serving
from streams.errors import StoreError
from streams.program.pruning import prune
from streams.settings.tree import load_settings
from streams.stores.redis.rows import RedisStore
from streams.stores.redis.server import RedisServer
from streams.stores.redis.versions import RedisMeta
from tests.faults.model import engine
from tests.faults.redis_worker import RedisWorker
from tests.faults.shop import CONFIG
from tests.redis_servers import Server, own_redis
from tests.streams.test_checkpoints import checkpoint

__all__ = ["own_redis"]  # a fixture


@pytest.fixture
def server(own_redis: Callable[..., Server]) -> Server:
    return own_redis("--maxmemory-policy", "noeviction")


@pytest.mark.parametrize("within_a_batch", [False, True])
def test_a_worker_waits_says_so_once_and_goes_on_and_nothing_is_lost_or_said_again_and_again(
    server: Server, within_a_batch: bool
) -> None:
    worker = RedisWorker(RedisServer(server.url), "s", {})
    lines: list[int] = []

    def fill() -> None:
        server.ask("CONFIG", "SET", "maxmemory", "1")

    def look() -> None:
        lines.append(sum(len(output.lines) for output in worker.world.outputs.values()))

    def give_room() -> None:
        server.ask("CONFIG", "SET", "maxmemory", "0")

    if within_a_batch:
        worker.before_the_nth_swap(6, fill)
    else:
        worker.faults = {5: fill}
    worker.log.while_waiting = iter([*[look] * 4, give_room])
    worker.run()
    assert len(set(lines)) == 1
    (waiting, going_on) = worker.said
    assert "is full: it has reached `maxmemory`, which may be raised by `CONFIG SET maxmemory`" in waiting
    assert going_on == "going on"
    assert worker.log.rewinds == 0
    assert (worker.rows, worker.outputs) == worker.uninterrupted()


def test_what_is_no_longer_kept_is_deleted_where_there_is_no_room_to_note_it(server: Server) -> None:
    connection = RedisServer(server.url)
    store = RedisStore(connection, "s", engine().layout)
    versions = RedisMeta(connection, "s", theta_fingerprint(engine().learner), 0.0)
    for version in range(1, 71):
        versions.publish(checkpoint(version))
    server.ask("CONFIG", "SET", "maxmemory", "1")
    assert len(versions.sizes()) == 70
    assert prune(store, versions, 0.0).versions == {1, 2, 3, 4, 5, 6}
    assert len(versions.sizes()) == 64


@pytest.fixture
def deployment(server: Server, tmp_path: Path) -> Iterator[Deployment]:
    (tmp_path / "shop.toml").write_text(f'stream = "shop"\n{CONFIG}[redis]\nurl = "{server.url}"\n')
    deployment = Deployment(load_settings(tmp_path / "shop.toml", {}, ('kafka.bootstrap=["nowhere:1"]',)))
    yield deployment
    deployment.store.close()


@pytest.mark.parametrize("policy", ["allkeys-lru", "allkeys-lfu", "allkeys-random"])
def test_a_worker_does_not_start_where_its_rows_would_be_evicted(
    server: Server, deployment: Deployment, policy: str
) -> None:
    server.ask("CONFIG", "SET", "maxmemory", "100mb")
    serving.check_room(deployment)
    server.ask("CONFIG", "SET", "maxmemory-policy", policy)
    with pytest.raises(StoreError, match=rf"{policy}.*`CONFIG SET maxmemory-policy noeviction`"):
        serving.check_room(deployment)
