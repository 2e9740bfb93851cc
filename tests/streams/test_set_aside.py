"""Sound events that must not be folded: they are dead letters, and everybody else's events go on."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.stream.sources import SourceMoved
from engine.stream.table import RowError, TaskTable
from streams.errors import Unavailable
from streams.events.record import Offsets, Polled, Record
from streams.logs.memory import MemoryLog
from streams.pages.run.summary import rejections
from streams.program.embedded import steps
from streams.program.set_aside import FOREIGN_KEY
from streams.program.worker import Worker
from streams.stores.base import RecordStore, Swap, key_of
from streams.stores.lmdb import LmdbStore
from streams.stores.memory import MemoryStore
from tests.faults.model import World, label, observation

INCARNATION = 7
TASKS = ("ann", "bob", "eve")


class Uncommitted(MemoryLog):
    """A log that is read by the test itself."""

    def commit(self, offsets: Offsets) -> None:
        """Nothing reads it."""


class Scene:
    """A worker over an input of several partitions, whose batches the test makes."""

    def __init__(self, store: RecordStore | None = None, partitions: int = 3) -> None:
        self.world, self.partitions = World([]), partitions
        if store is not None:
            self.world.store = store  # type: ignore[assignment]
        self.said: list[str] = []
        self.waited: list[float] = []
        self.worker: Worker = replace(
            self.world.program(100).worker, log=Uncommitted(), say=self.said.append, wait=self.waited.append
        )
        self.ends: dict[int, int] = {}

    def take(self, *parts: Sequence[Record], incarnation: int = INCARNATION) -> None:
        """Fold one batch: the next records of partitions 0, 1, ..."""
        polled = [self._polled(partition, records, incarnation) for partition, records in enumerate(parts)]
        if polled := [part for part in polled if part.records]:
            self.worker.take(polled)

    def _polled(self, partition: int, records: Sequence[Record], incarnation: int) -> Polled:
        start = self.ends.get(partition, 0)
        self.ends[partition] = start + len(records)
        placed = [r._replace(offset=n, partition=partition) for n, r in enumerate(records, start)]
        return Polled(partition, (incarnation,), start, placed, self.partitions)

    def rows(self) -> dict[str, bytes]:
        return dict(self.world.store.rows)

    def letters(self) -> list[tuple[str, str, str]]:
        """Task, id and reason of each dead letter."""
        said = map(orjson.loads, self.world.outputs["dead-letter"].lines)
        return [(one["record"]["task"], one["record"]["id"], one["reason"]) for one in said]

    def predicted(self) -> set[tuple[str, str]]:
        """Task and id of each observation that was folded."""
        said = map(orjson.loads, self.world.outputs["predictions"].lines)
        return {(one["task"], one["id"]) for one in said}


def event(task: str, id: str, key: str | None = "", time: float = 1.0) -> Record:
    """An observation; its key is the task's id, if none is given."""
    return observation(task, id, time)._replace(key=None if key is None else (key or task).encode())


class TestStrangers:
    @pytest.mark.parametrize("key", [None, "bob", '"bob"', "ann ", '"ann'])
    def test_an_event_whose_key_is_not_its_task_is_set_aside_and_its_batch_mates_are_folded(
        self, key: str | None
    ) -> None:
        scene = Scene()
        scene.take([event("ann", "1"), event("bob", "2")], [event("ann", "3", key), event("eve", "4")])
        assert scene.letters() == [("ann", "3", "wrong_partition")]
        assert scene.predicted() == {("ann", "1"), ("bob", "2"), ("eve", "4")}
        assert orjson.loads(scene.world.outputs["dead-letter"].lines[0])["detail"] == FOREIGN_KEY
        assert scene.worker.telemetry.exposition().count(b'reason="wrong_partition"} 1.0') == 1

    def test_where_other_keys_keep_a_task_together_only_another_partition_is_wrong(self) -> None:
        scene = Scene()
        scene.worker = replace(scene.worker, keyed=False)
        scene.take([event("ann/1", "1", "ann"), event("ann/2", "2", "ann")], [event("ann/1", "3", "bob")])
        assert scene.letters() == [("ann/1", "3", "wrong_partition")]

    def test_one_that_comes_first_claims_no_row(self) -> None:
        scene = Scene()
        scene.take([event("ann", "1", None)])
        scene.take([], [event("ann", "2")])
        assert scene.letters() == [("ann", "1", "wrong_partition")]
        assert scene.predicted() == {("ann", "2")}

    @pytest.mark.parametrize("key", ["ann", '"ann"'])
    def test_a_key_is_the_task_as_text_or_as_json(self, key: str) -> None:
        scene = Scene()
        scene.take([event("ann", "1", key)])
        assert scene.letters() == []

    @pytest.mark.parametrize("partitions", [0, 1])
    def test_in_one_partition_nothing_goes_astray(self, partitions: int) -> None:
        scene = Scene(partitions=partitions)
        scene.take([event("ann", "1", None), event("ann", "2", "bob")])
        assert scene.letters() == []

    @settings(max_examples=30)
    @given(
        st.lists(st.tuples(st.sampled_from(TASKS), st.booleans(), st.integers(0, 2)), max_size=30),
        st.integers(1, 9),
    )
    def test_whatever_strays_wherever_the_others_are_folded_as_without_it(
        self, drawn: list[Any], size: int
    ) -> None:
        with_strays, without = Scene(), Scene()
        for start in range(0, len(drawn), size):
            parts, own = ([list[Record]() for _ in TASKS] for _ in range(2))
            for n, (task, strays, partition) in enumerate(drawn[start : start + size], start):
                if strays:
                    parts[partition].append(event(task, f"{n}", "nobody"))
                else:
                    parts[TASKS.index(task)].append(event(task, f"{n}"))
                    own[TASKS.index(task)].append(event(task, f"{n}"))
            with_strays.take(*parts)
            without.take(*own)
        assert with_strays.predicted() == without.predicted()
        assert len(with_strays.letters()) == sum(strays for _, strays, _ in drawn)


class TestStrays:
    def test_of_own_events_in_two_partitions_the_first_decides(self) -> None:
        scene = Scene()
        scene.take([event("ann", "1")], [event("ann", "2"), event("bob", "3")])
        scene.take([event("ann", "4")], [event("ann", "5")])
        assert scene.letters() == [("ann", "2", "wrong_partition"), ("ann", "5", "wrong_partition")]
        assert scene.predicted() == {("ann", "1"), ("bob", "3"), ("ann", "4")}
        [letter, _] = map(orjson.loads, scene.world.outputs["dead-letter"].lines)
        assert "come from partition 0: producers partition differently" in letter["detail"]

    def test_a_topic_created_anew_stops_the_worker_in_a_sentence(self) -> None:
        scene = Scene()
        scene.take([event("ann", "1")])
        rows = scene.rows()
        with pytest.raises(SourceMoved, match=r"another incarnation.*reptide rebuild"):
            scene.take([event("ann", "2")], incarnation=INCARNATION + 1)
        assert scene.rows() == rows

    def test_added_partitions_stop_the_worker_before_anything_is_folded(self) -> None:
        scene = Scene(partitions=3)
        scene.take([event("ann", "1")])
        scene.partitions = 6
        with pytest.raises(SourceMoved, match=r"has 6 partitions.*folded from 3.*run `reptide rebuild`"):
            scene.take([event("bob", "2")])
        assert scene.predicted() == {("ann", "1")}


def flip(row: bytes) -> bytes:
    return row[:100] + bytes([row[100] ^ 1]) + row[101:]


def cut_short(row: bytes) -> bytes:
    return row[:-8]


def of_another_layout(row: bytes) -> bytes:
    return bytes([row[0] ^ 1]) + row[1:]


@pytest.fixture(params=["memory", "lmdb"])
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Scene:
    if request.param == "memory":
        return Scene()
    return Scene(LmdbStore(tmp_path / "rows", 0.1))


def change(store: RecordStore, task: str, changed: Callable[[bytes], bytes]) -> None:
    """Change the bytes of a stored row."""
    if isinstance(store, MemoryStore):
        store.rows[key_of(task)] = changed(store.rows[key_of(task)])
        return
    assert isinstance(store, LmdbStore)
    with store._env.begin(db=store._rows, write=True) as transaction:
        key = key_of(task).encode()
        transaction.put(key, changed(bytes(transaction.get(key))))


@pytest.mark.parametrize("changed", [flip, cut_short, of_another_layout])
class TestDamagedRows:
    def test_their_events_are_set_aside_and_all_others_are_folded(
        self, scene: Scene, changed: Callable[[bytes], bytes]
    ) -> None:
        scene.take([event("ann", "1"), event("bob", "2")])
        change(scene.world.store, "ann", changed)
        scene.take([event("ann", "3"), event("bob", "4"), event("ann", "5")])
        assert scene.letters() == [("ann", "3", "damaged_row"), ("ann", "5", "damaged_row")]
        assert ("bob", "4") in scene.predicted()
        assert scene.worker.telemetry.exposition().count(b'reason="damaged_row"} 2.0') == 1

    def test_their_dead_letters_lie_among_those_of_other_reasons_in_the_order_of_the_log(
        self, scene: Scene, changed: Callable[[bytes], bytes]
    ) -> None:
        scene.take([event("ann", "1"), event("bob", "2")])
        change(scene.world.store, "ann", changed)
        scene.take([event("ann", "3"), event("bob", "4", time=math.nan), event("ann", "5", key="bob")])
        reasons = ["damaged_row", "bad_time", "wrong_partition"]
        assert [reason for _, _, reason in scene.letters()] == reasons
        counted = [(one["reason"], one["count"]) for one in rejections(scene.world.outputs["dead-letter"])]
        assert sorted(counted) == [(reason, 1) for reason in sorted(reasons)]

    def test_it_is_said_once_which_task_it_is_and_how_it_comes_back(
        self, scene: Scene, changed: Callable[[bytes], bytes]
    ) -> None:
        scene.take([event("ann", "1")])
        change(scene.world.store, "ann", changed)
        for n in range(2, 5):
            scene.take([event("ann", f"{n}")])
        [sentence] = scene.said
        assert "the stored row of task 'ann'" in sentence
        assert "`reptide rebuild --task`" in sentence

    def test_a_row_that_is_restored_goes_on(self, scene: Scene, changed: Callable[[bytes], bytes]) -> None:
        kept: list[bytes] = []

        def damaged(row: bytes) -> bytes:
            kept.append(row)
            return changed(row)

        scene.take([event("ann", "1")])
        change(scene.world.store, "ann", damaged)
        scene.take([event("ann", "2")])
        change(scene.world.store, "ann", lambda _: kept[0])
        scene.take([event("ann", "3")])
        assert scene.predicted() == {("ann", "1"), ("ann", "3")}


def test_a_store_all_of_whose_rows_are_of_another_layout_is_refused_at_the_start(scene: Scene) -> None:
    scene.take([event("ann", "1"), event("bob", "2")])
    store, layout = scene.world.store, scene.worker.engine.layout
    change(store, "ann", of_another_layout)
    store.check_layouts(layout)
    change(store, "bob", of_another_layout)
    with pytest.raises(RowError, match=r"all stored rows have another layout.*run `reptide rebuild`"):
        next(steps(replace(scene.world.program(10), store=cast(Any, store))))


def test_a_label_of_a_damaged_row_is_set_aside_as_it_came() -> None:
    scene = Scene()
    scene.take([event("ann", "1")])
    change(scene.world.store, "ann", flip)
    raw = b'{"task": "ann", "id": "1", "time": 2, "label": "x"}'
    scene.take([label("ann", "1", 2.0, "x")._replace(key=b"ann", raw=raw)])
    [letter] = map(orjson.loads, scene.world.outputs["dead-letter"].lines)
    assert bytes.fromhex(letter["bytes_hex"]) == raw


class TestLostSwaps:
    def test_a_row_that_another_worker_keeps_writing_first_is_tried_patiently_and_not_for_ever(self) -> None:
        scene = Scene(store=Contended(losses=10**6))
        with pytest.raises(Unavailable, match=r"another worker wrote 1 rows first, \d+ times in a row"):
            scene.take([event("ann", "1")])
        assert scene.waited[0] == 0, "most conflicts are over at once"
        assert scene.waited == sorted(scene.waited)
        assert 1 < sum(scene.waited) < 6, "within the least session timeout"

    def test_what_was_won_in_the_end_is_folded_once_and_counted_once(self) -> None:
        scene = Scene(store=Contended(losses=5))
        scene.take([event("ann", "1"), event("bob", "2"), event("eve", "3", "nobody")])
        assert scene.predicted() == {("ann", "1"), ("bob", "2")}
        told = scene.worker.telemetry.exposition()
        assert b'reptide_events_total{outcome="predicted"} 2.0' in told
        assert b'reptide_dead_letters_total{reason="wrong_partition"} 1.0' in told


class Contended(MemoryStore):
    """A store in which somebody else keeps coming first."""

    def __init__(self, losses: int) -> None:
        super().__init__()
        self.losses = losses

    def swap(self, states: TaskTable) -> list[Swap]:
        self.losses -= 1
        return [Swap.LOST] * len(states) if self.losses >= 0 else super().swap(states)
