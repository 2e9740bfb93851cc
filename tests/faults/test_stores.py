"""What every `RecordStore` promises: conditional writes, adoptions and forgetting, for any task id."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.stream.table import RowError, TaskTable
from streams.errors import StoreError
from streams.events.record import SourcePosition
from streams.stores.base import RecordStore, Swap, key_of
from streams.stores.lmdb import LmdbStore
from streams.stores.memory import MemoryStore
from streams.stores.redis.rows import RedisStore
from streams.stores.redis.server import RedisServer
from tests.faults.model import engine
from tests.redis_servers import one_redis, redis_cluster

__all__ = ["one_redis", "redis_cluster"]  # fixtures

LAYOUT = engine().layout
LONG = "x" * 65_536
HOSTILE = [
    "a", " ", "\n", "a\nb", "a/b", "../../etc", "{a}", "{", "}", "%7Ba%7D", "%", "a|b", "\0", "a\0",
    ".", "..", "None", "ünïcode", "日本", "🙂", "\u202e", "A", "~", LONG, LONG[1:], LONG[1:] + "y",
    "🙂" * 16_000, "~" + blake2b(LONG.encode(), digest_size=32).hexdigest(),
]  # fmt: skip


class Clock:
    """A wall clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["memory", "lmdb", "redis", "redis cluster"])
def store(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[RecordStore]:
    store = opened(request, tmp_path, clock)
    yield store
    store.close()


def opened(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> RecordStore:
    if request.param == "memory":
        return MemoryStore(clock=clock)
    if request.param == "lmdb":
        return LmdbStore(tmp_path / "rows", 0.1, clock=clock)
    cluster = request.param == "redis cluster"
    url = request.getfixturevalue("redis_cluster" if cluster else "one_redis").url
    server = RedisServer(url, cluster)
    return RedisStore(server, f"{tmp_path} {{a}}", LAYOUT, ttl_s=3600, clock=clock)


def at(offset: int, partition: int = 0) -> SourcePosition:
    return SourcePosition(1, partition, offset)


def marked(store: RecordStore, tasks: Sequence[str], mark: int) -> TaskTable:
    """Rows as they are stored, changed."""
    table = store.load(LAYOUT, tasks)
    table.rows["seq"] = mark + np.arange(len(tasks))
    return table


def marks(store: RecordStore, tasks: Sequence[str]) -> list[int]:
    return list(store.load(LAYOUT, tasks).rows["seq"].tolist())


class TestEveryStore:
    def test_a_task_never_seen_is_the_empty_row(self, store: RecordStore) -> None:
        blank = TaskTable.empty(LAYOUT, ["a", "b"])
        assert store.load(LAYOUT, ["a", "b"]).rows.tobytes() == blank.rows.tobytes()
        assert list(store.tasks()) == []

    def test_no_tasks_are_no_rows(self, store: RecordStore) -> None:
        assert len(store.load(LAYOUT, [])) == 0
        assert store.swap(TaskTable.empty(LAYOUT, [])) == []

    def test_a_row_swapped_is_the_row_loaded_with_its_revision_raised(self, store: RecordStore) -> None:
        table = marked(store, ["a"], 7)
        assert store.swap(table) == [Swap.OK]
        stored = store.load(LAYOUT, ["a"])
        assert stored.rows["revision"].tolist() == [1]
        assert stored.rows["seq"].tolist() == [7]

    def test_a_swap_tried_again_is_recognised(self, store: RecordStore) -> None:
        table = marked(store, ["a"], 7)
        assert [store.swap(table), store.swap(table)] == [[Swap.OK], [Swap.ALREADY]]
        assert store.load(LAYOUT, ["a"]).rows["revision"].tolist() == [1]

    def test_the_second_of_two_writers_loses_and_changes_nothing(self, store: RecordStore) -> None:
        first, second = marked(store, ["a"], 1), marked(store, ["a"], 2)
        assert [store.swap(first), store.swap(second)] == [[Swap.OK], [Swap.LOST]]
        assert marks(store, ["a"]) == [1]

    def test_a_writer_that_comes_back_much_later_loses(self, store: RecordStore) -> None:
        stale = marked(store, ["a"], 99)
        for mark in (1, 2, 3):
            store.swap(marked(store, ["a"], mark))
        assert store.swap(stale) == [Swap.LOST]
        assert marks(store, ["a"]) == [3]

    def test_one_lost_row_does_not_hold_up_the_others_of_its_batch(self, store: RecordStore) -> None:
        batch = marked(store, ["a", "b", "c"], 10)
        store.swap(marked(store, ["b"], 1))
        assert store.swap(batch) == [Swap.OK, Swap.LOST, Swap.OK]
        assert marks(store, ["a", "b", "c"]) == [10, 1, 12]

    def test_rows_come_in_the_order_asked_for_between_tasks_never_seen(self, store: RecordStore) -> None:
        store.swap(marked(store, ["a", "b"], 1))
        assert marks(store, ["x", "b", "y", "a"]) == [0, 2, 0, 1]

    def test_the_first_to_adopt_at_a_position_decides_for_all(self, store: RecordStore) -> None:
        assert [store.adopt([at(64)], 3), store.adopt([at(64)], 4), store.adopt([at(64)], 2)] == [
            [3],
            [3],
            [3],
        ]
        assert store.adopt([at(0)], 0) == [0]
        assert store.adopt([at(0)], 5) == [0]

    def test_partitions_adopt_apart(self, store: RecordStore) -> None:
        store.adopt([at(64)], 3)
        store.adopt([at(64, 256)], 4)
        store.adopt([at(2**40, 256)], 5)
        assert store.adoptions() == {at(64): 3, at(64, 256): 4, at(2**40, 256): 5}

    def test_a_topic_made_anew_is_not_served_what_the_one_before_adopted(self, store: RecordStore) -> None:
        store.adopt([at(0)], 0)
        made_anew = SourcePosition(2**62 + 1, 0, 0)
        assert store.adopt([made_anew], 2) == [2]
        assert store.adoptions() == {at(0): 0, made_anew: 2}

    def test_clearing_forgets_rows_and_keeps_adoptions(self, store: RecordStore) -> None:
        store.swap(marked(store, ["a"], 1))
        store.adopt([at(64)], 3)
        store.clear()
        assert list(store.tasks()) == []
        assert store.load(LAYOUT, ["a"]).rows["revision"].tolist() == [0]
        assert store.adoptions() == {at(64): 3}
        assert store.swap(marked(store, ["a"], 2)) == [Swap.OK]

    def test_the_number_of_partitions_is_that_of_whoever_asked_first_until_it_is_set(
        self, store: RecordStore
    ) -> None:
        if isinstance(store, LmdbStore):
            pytest.skip("its log is one partition for ever")
        assert [store.partitions(), store.partitions(3), store.partitions(6), store.partitions()] == [
            0,
            3,
            3,
            3,
        ]
        store.clear()
        assert store.partitions(6) == 3, "a rebuild that died must be seen by workers"
        store.set_partitions(6)
        assert store.partitions() == 6

    def test_hostile_task_ids_have_rows_of_their_own(self, store: RecordStore) -> None:
        assert set(store.swap(marked(store, HOSTILE, 1))) == {Swap.OK}
        assert marks(store, HOSTILE) == list(range(1, len(HOSTILE) + 1))
        assert len(list(store.tasks())) == len(HOSTILE)

    def test_the_keys_of_all_rows_are_listed(self, store: RecordStore) -> None:
        store.swap(marked(store, HOSTILE, 1))
        assert sorted(store.tasks()) == sorted(map(key_of, HOSTILE))

    def test_a_row_of_another_layout_is_refused_by_its_task(self, store: RecordStore) -> None:
        table = marked(store, ["ann"], 1)
        table.rows["fingerprint"] ^= np.uint64(1)
        store.swap(table)
        with pytest.raises(RowError, match=r"'ann'.*reptide rebuild"):
            store.load(LAYOUT, ["ann"])

    def test_a_task_forgotten_has_no_row(self, store: RecordStore) -> None:
        store.swap(marked(store, HOSTILE, 1))
        assert store.forget({"a\nb"}, 60) == {"a\nb"}
        assert store.load(LAYOUT, HOSTILE).ids == tuple(task for task in HOSTILE if task != "a\nb")
        assert sorted(store.tasks()) == sorted(key_of(task) for task in HOSTILE if task != "a\nb")

    def test_forgetting_a_task_never_seen_says_so(self, store: RecordStore) -> None:
        assert store.forget({"a"}, 60) == set()
        assert store.forgotten(["a"]) == {"a"}

    def test_several_are_forgotten_at_once_and_those_that_had_a_row_are_told(
        self, store: RecordStore
    ) -> None:
        store.swap(marked(store, ["a", LONG, "b"], 1))
        assert store.forget({"a", LONG, "~"}, 60) == {"a", LONG}
        assert list(store.tasks()) == ["b"]
        assert store.forgotten(["a", LONG, "~", "b"]) == {"a", LONG, "~"}

    def test_only_what_was_forgotten_is(self, store: RecordStore) -> None:
        assert store.forgotten(HOSTILE) == set()
        for task in ("a", LONG, "~"):
            store.forget({task}, 60)
        assert store.forgotten(HOSTILE) == {"a", LONG, "~"}
        assert store.forgotten([]) == set()

    @pytest.mark.parametrize("writes", [0, 1, 3])
    def test_a_batch_in_flight_does_not_bring_a_forgotten_row_back(
        self, store: RecordStore, writes: int
    ) -> None:
        for mark in range(writes):
            store.swap(marked(store, ["a"], mark))
        in_flight = marked(store, ["a", "b"], 10)
        store.forget({"a"}, 60)
        assert store.swap(in_flight) == [Swap.LOST, Swap.OK]
        assert marks(store, ["b"]) == [11]
        assert list(store.tasks()) == ["b"]

    def test_a_tombstone_lives_as_long_as_was_said(self, store: RecordStore, clock: Clock) -> None:
        store.forget({"a"}, 60)
        clock.now += 30
        store.forget({"b"}, 60)
        clock.now += 29.9
        assert store.forgotten(["a", "b", "c"]) == {"a", "b"}
        clock.now += 0.2
        assert store.forgotten(["a", "b", "c"]) == {"b"}
        store.forget({"c"}, 1)
        assert store.forgotten(["a", "b", "c"]) == {"b", "c"}

    def test_clearing_keeps_tombstones(self, store: RecordStore) -> None:
        store.forget({"a"}, 60)
        store.clear()
        assert store.forgotten(["a", "b"]) == {"a"}


task_ids = st.text(min_size=1) | st.text("~%{}/\n 0aA", min_size=1)


@given(task_ids, task_ids)
def test_keys_of_different_tasks_differ(one: str, other: str) -> None:
    assert (key_of(one) == key_of(other)) == (one == other)


@given(st.text(min_size=1, max_size=400))
def test_a_key_is_short_and_plain(task: str) -> None:
    assert 0 < len(key_of(task)) <= 256
    assert not set(key_of(task)) & set("{}/\n\0: ")


class TestLmdbOverARestart:
    def test_rows_and_adoptions_are_kept(self, tmp_path: Path) -> None:
        store = LmdbStore(tmp_path, 0.1)
        store.swap(marked(store, HOSTILE, 1))
        store.adopt([at(64)], 3)
        store.close()
        again = LmdbStore(tmp_path, 0.1)
        assert marks(again, HOSTILE) == list(range(1, len(HOSTILE) + 1))
        assert again.adoptions() == {at(64): 3}
        again.close()

    def test_a_directory_that_is_no_store_is_refused_in_a_sentence(self, tmp_path: Path) -> None:
        (tmp_path / "data.mdb").write_bytes(b"no store at all" * 1000)
        with pytest.raises(StoreError, match="cannot open the store in"):
            LmdbStore(tmp_path, 0.1)


class TestLmdbForgets:
    """No file may hold what was forgotten: neither free pages, nor the slack of pages in use."""

    TASKS = tuple(f"person-{n:03d}@example.org" for n in range(300))

    @pytest.fixture
    def filled(self, tmp_path: Path) -> Iterator[LmdbStore]:
        store = LmdbStore(tmp_path, 0.1)
        for round in range(3):  # each leaves the row before in a free page
            store.swap(self.rows(store, round))
        store.adopt([at(64)], 3)
        yield store
        store.close()

    def rows(self, store: LmdbStore, round: int) -> TaskTable:
        """Rows that hold the same recognisable bytes of their task each time they are written."""
        table = marked(store, self.TASKS, round)
        table.rows["support_id"][:, 0] = [self.mark(task) for task in self.TASKS]
        return table

    def mark(self, task: str) -> int:
        return int.from_bytes(blake2b(task.encode(), digest_size=8).digest(), "little")

    def traces(self, directory: Path, task: str) -> list[str]:
        """What still tells of a task, and where."""
        kept = {path.name: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
        looked_for = {"id": key_of(task).encode(), "row": self.mark(task).to_bytes(8, "little")}
        return [
            f"{what} in {name}"
            for name, content in kept.items()
            for what, b in looked_for.items()
            if b in content
        ]

    def test_before_it_forgets_the_bytes_are_there(self, filled: LmdbStore, tmp_path: Path) -> None:
        assert self.traces(tmp_path, self.TASKS[7]) == ["id in data.mdb", "row in data.mdb"]

    @pytest.mark.parametrize("nth", [0, 7, 150, 298, 299])
    def test_no_file_holds_the_row_or_the_id(self, filled: LmdbStore, tmp_path: Path, nth: int) -> None:
        filled.forget({self.TASKS[nth]}, 60)
        assert self.traces(tmp_path, self.TASKS[nth]) == []
        assert filled.forgotten(self.TASKS) == {self.TASKS[nth]}

    def test_all_else_stays_and_the_store_goes_on(self, filled: LmdbStore, tmp_path: Path) -> None:
        before = filled.load(LAYOUT, self.TASKS[1:]).rows.tobytes()
        filled.forget({self.TASKS[0]}, 60)
        filled.forget({self.TASKS[0]}, 60)
        assert filled.load(LAYOUT, self.TASKS[1:]).rows.tobytes() == before
        assert filled.adoptions() == {at(64): 3}
        assert set(filled.swap(marked(filled, self.TASKS[1:], 9))) == {Swap.OK}
        filled.close()
        again = LmdbStore(tmp_path, 0.1)
        assert marks(again, self.TASKS[1:]) == list(range(9, 308))
        assert again.forgotten(self.TASKS) == {self.TASKS[0]}
        again.close()

    @pytest.mark.parametrize("effect", ["replace", "mkdir"])
    def test_after_a_crash_it_is_as_it_was_and_forgetting_again_completes_it(
        self, filled: LmdbStore, tmp_path: Path, effect: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Crash(Exception):
            pass

        def dying(*_: object, **__: object) -> None:
            raise Crash

        with monkeypatch.context() as patched:
            patched.setattr(Path, effect, dying)
            patched.setattr(shutil, "rmtree", lambda *_, **__: None)
            with pytest.raises(Crash):
                filled.forget({self.TASKS[7]}, 60)
        filled.close()
        again = LmdbStore(tmp_path, 0.1)
        assert len(list(again.tasks())) == 299
        again.forget({self.TASKS[7]}, 60)
        assert self.traces(tmp_path, self.TASKS[7]) == []
        again.close()

    def test_while_another_process_has_the_store_open_nothing_is_deleted(
        self, filled: LmdbStore, tmp_path: Path
    ) -> None:
        code = f"from streams.stores.lmdb import *; LmdbStore(Path({str(tmp_path)!r}), 0.1); print(); input()"
        command = [sys.executable, "-W", "ignore", "-c", code]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
            assert other.stdout
            other.stdout.readline()
            with pytest.raises(StoreError, match=r"another process has the store in .* open; stop it"):
                filled.forget({self.TASKS[7]}, 60)
            other.communicate(b"\n")
        assert marks(filled, [self.TASKS[7]]) == [9]
        assert filled.forgotten(self.TASKS) == set()
        assert filled.forget({self.TASKS[7]}, 60)


class TestLmdbWithoutRoom:
    GIB = 120 * LAYOUT.bytes_per_task / 2**30

    def filled(self, directory: Path) -> tuple[LmdbStore, int]:
        """A store with no room for one more batch, and how many batches of ten it took."""
        store = LmdbStore(directory, self.GIB)
        for batch in range(1000):
            try:
                store.swap(marked(store, self.tasks(batch), batch))
            except StoreError:
                return store, batch
        raise AssertionError("the store never filled")

    def tasks(self, batch: int) -> list[str]:
        return [f"{batch}-{n}" for n in range(10)]

    def test_the_error_names_the_setting_to_raise(self, tmp_path: Path) -> None:
        store, batches = self.filled(tmp_path)
        with pytest.raises(StoreError, match=r"raise `run\.max_gib`"):
            store.swap(marked(store, self.tasks(batches), 1))
        store.close()

    def test_the_batch_without_room_is_not_written_and_the_others_stay(self, tmp_path: Path) -> None:
        store, batches = self.filled(tmp_path)
        assert batches > 1
        assert marks(store, self.tasks(batches)) == [0] * 10
        assert marks(store, self.tasks(batches - 1)) == list(range(batches - 1, batches + 9))
        store.close()

    def test_with_more_room_it_goes_on(self, tmp_path: Path) -> None:
        store, batches = self.filled(tmp_path)
        store.close()
        larger = LmdbStore(tmp_path, 2 * self.GIB)
        assert set(larger.swap(marked(larger, self.tasks(batches), batches))) == {Swap.OK}
        assert marks(larger, self.tasks(0)) == list(range(10))
        larger.close()

    def test_an_adoption_without_room_is_the_same_error(self, tmp_path: Path) -> None:
        store = LmdbStore(tmp_path, self.GIB / 4)
        with pytest.raises(StoreError, match=r"raise `run\.max_gib`"):
            for position in range(10**6):
                store.adopt([at(position)], 1)
        store.close()
