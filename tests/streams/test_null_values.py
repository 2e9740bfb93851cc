"""Messages without a value: dead letters, or the forgetting of the task of their key, at its place in the log."""

from __future__ import annotations

from dataclasses import replace

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.types import Kind
from streams.events.record import Record
from streams.stores.base import key_of
from tests.faults.model import label, null_value, observation
from tests.streams.test_set_aside import Scene, event

TASKS = ("ann", "bob", "eve")


def refused_here(scene: Scene) -> Scene:
    """With `kafka.tombstones = "dead-letter"`."""
    scene.worker = replace(scene.worker, forgets_for_s=None)
    return scene


def details(scene: Scene) -> list[tuple[str, str]]:
    """Reason and detail of each dead letter."""
    said = map(orjson.loads, scene.world.outputs["dead-letter"].lines)
    return [(one["reason"], one["detail"]) for one in said]


def test_one_is_a_dead_letter_that_says_how_it_would_forget_and_changes_nothing_else() -> None:
    scene, without = refused_here(Scene()), Scene()
    scene.take([event("ann", "1"), null_value("ann"), event("ann", "2")])
    without.take([event("ann", "1")], [])
    without.ends[0] += 1
    without.take([event("ann", "2")])
    assert [detail[0] for detail in details(scene)] == ["null_value"]
    assert 'kafka.tombstones = "forget"' in details(scene)[0][1]
    assert scene.predicted() == {("ann", "1"), ("ann", "2")}
    assert b'reptide_dead_letters_total{reason="null_value"} 1.0' in scene.worker.telemetry.exposition()


def test_one_forgets_what_came_before_it_and_passes_over_what_comes_after_in_one_batch_or_many() -> None:
    for cut in (1, 2, 5):
        scene = Scene()
        events = [
            event("ann", "1"),
            event("bob", "2"),
            null_value("ann"),
            event("ann", "3"),
            event("bob", "4"),
        ]
        for start in range(0, 5, cut):
            scene.take(events[start : start + cut])
        assert scene.predicted() == {("ann", "1"), ("bob", "2"), ("bob", "4")}
        assert list(scene.rows()) == [key_of("bob")]
        assert scene.letters() == []
        told = scene.worker.telemetry.exposition()
        assert b"reptide_tasks_forgotten_total 1.0" in told
        assert b"reptide_events_forgotten_total 1.0" in told


@pytest.mark.parametrize("key", [None, b"", b"\xff", b"null"])
def test_one_whose_key_names_no_task_is_a_dead_letter_all_the_same(key: bytes | None) -> None:
    scene = Scene()
    scene.take([null_value(None)._replace(key=key), event("ann", "1")])
    assert details(scene) == [("null_value", "the message has no value, and its key names no task")]
    assert scene.predicted() == {("ann", "1")}


def test_it_is_the_key_that_counts_wherever_the_message_lies() -> None:
    scene = Scene()
    scene.take([event("ann", "1")], [event("bob", "2"), null_value("ann")])
    assert list(scene.rows()) == [key_of("bob")]


def test_dead_letters_of_the_task_that_come_after_it_are_not_kept_and_those_before_it_were() -> None:
    scene = Scene()
    bad = [observation("ann", n, "soon")._replace(key=b"ann") for n in ("1", "2")]
    scene.take([bad[0], null_value("ann"), bad[1]])
    assert scene.letters() == [("ann", "1", "bad_time")]


letters = st.sampled_from(TASKS)
ids = st.sampled_from("1234")
records = st.lists(
    st.builds(event, letters, ids)
    | st.builds(lambda task, id: label(task, id, 2.0, "x")._replace(key=task.encode()), letters, ids)
    | st.builds(null_value, letters),
    max_size=24,
)


@settings(max_examples=40)
@given(records, st.integers(1, 6))
def test_of_any_log_what_comes_before_a_forgetting_is_said_and_no_row_of_its_task_is_left(
    log: list[Record], size: int
) -> None:
    scene = Scene(partitions=1)
    for start in range(0, len(log), size):
        scene.take(log[start : start + size])
    predicted, gone = set(), set()
    for record in log:
        if record.fault is not None:
            gone.add(record.task)
        elif record.task not in gone and record.kind == Kind.OBSERVATION:
            predicted.add((record.task, record.id))
    assert scene.predicted() == predicted
    assert scene.rows().keys() == {key_of(record.task) for record in log} - {key_of(task) for task in gone}
