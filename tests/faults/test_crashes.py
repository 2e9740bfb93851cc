"""Whatever dies, whenever, and whoever else still runs: what is left is what an uninterrupted run leaves.

That is rows, theta, adoptions and outputs, bit for bit; outputs may be repeated, each repeat identical.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.events.record import Record
from tests.faults.model import (
    EFFECTS,
    GRID,
    Left,
    Turn,
    dying_before,
    effects_of,
    label,
    null_value,
    observation,
    scheduled,
    stream,
    uninterrupted,
)

tasks = st.sampled_from(["ann", "bob", "{c}/\n"])
ids = st.sampled_from(["1", "2", "3", "4", "5"])
numbers = st.sampled_from([-1.5, 0.0, 0.25, 3.0])
classes = st.sampled_from(["x", "y"])
passed = st.sampled_from([0.0, 1.0, 1.0, -2.0, 60.0])
fields = st.fixed_dictionaries({"a": numbers, "b": numbers})

events = st.one_of(
    st.builds(observation, tasks, ids, passed, numbers, numbers),
    st.builds(observation, tasks, ids, passed, numbers, numbers),
    st.builds(label, tasks, ids, passed, classes),
    st.builds(label, tasks, ids, passed, classes),
    st.builds(label, tasks, ids, passed, classes, fields),
    st.builds(observation, tasks, ids, st.just("soon")),
    st.builds(label, tasks, ids, passed, st.just("neither")),
    st.builds(null_value, tasks),
)


def clocked(records: list[Record]) -> list[Record]:
    """Steps in time as times."""
    now = 0.0
    result = []
    for record in records:
        now += record.time if isinstance(record.time, float) else 0.0
        result.append(record if isinstance(record.time, str) else record._replace(time=now))
    return result


free_logs = st.lists(events, min_size=1, max_size=40).map(clocked)
likely_logs = st.builds(
    stream, st.integers(0, 10**6), st.integers(10, 60), st.integers(1, 3), st.integers(0, 24)
)
logs = free_logs | likely_logs
"""Any log; and logs in which most labels meet an observation, some of them with no label at first."""

batches = st.integers(1, 12)
turns = st.builds(
    Turn,
    worker=st.integers(0, 2),
    until=st.sampled_from(EFFECTS),
    times=st.integers(1, 6),
    dies=st.booleans(),
    batch=batches,
    back=st.sampled_from([0, 0, 0, 3, 100]),
)


@st.composite
def stalls(draw: st.DrawFn) -> list[Turn]:
    """One worker stalls, another goes on for some batches, the first wakes for a step and dies."""
    one, other = draw(st.permutations(range(3)))[:2]
    stalls = Turn(one, draw(st.sampled_from(EFFECTS)), draw(st.integers(1, 3)), batch=draw(batches))
    goes_on = Turn(other, "commit", draw(st.integers(1, 4)), batch=draw(batches))
    return [stalls, goes_on, Turn(one, draw(st.sampled_from(EFFECTS)), dies=draw(st.booleans()))]


scenes = turns.map(lambda turn: [turn]) | stalls()
schedules = st.lists(scenes, max_size=12).map(lambda scenes: [turn for scene in scenes for turn in scene])

LONG = stream(5, 34)
LONG.insert(20, null_value("task 1"))
LONG_EFFECTS = effects_of(LONG, 6)
LATE_EFFECTS = effects_of(LONG, 3, is_late=True)


@pytest.fixture(scope="module")
def whole() -> Left:
    """What is left of the long log where nothing happens."""
    return uninterrupted(LONG)


@settings(max_examples=80)
@given(logs, schedules, st.permutations(range(3)), st.integers(0, 3), batches)
def test_any_interleaving_of_three_workers_dying_anywhere_leaves_what_an_uninterrupted_run_leaves(
    records: list[Record], schedule: list[Turn], order: list[Any], survivors: int, batch: int
) -> None:
    left = scheduled(records, schedule, order[:survivors], batch)
    assert left.differs(uninterrupted(records)) == []


@settings(max_examples=40)
@given(logs, batches)
def test_the_cut_into_batches_changes_nothing(records: list[Record], batch: int) -> None:
    assert uninterrupted(records, batch).differs(uninterrupted(records)) == []


@pytest.mark.parametrize("kind", sorted({*EFFECTS}))
def test_a_process_that_dies_before_any_one_effect_leaves_what_an_uninterrupted_run_leaves(
    kind: str, whole: Left
) -> None:
    moments = [n for n, effect in enumerate(LONG_EFFECTS) if effect == kind]
    assert {n: d for n in moments if (d := dying_before(LONG, n, 6).differs(whole))} == {}
    assert moments


@pytest.fixture(scope="module")
def late() -> Left:
    """What is left of the long log where each batch is folded before the one before it is written."""
    return uninterrupted(LONG, is_late=True)


@pytest.mark.parametrize("records", [LONG, stream(9, 40), stream(10, 40, tasks=1)])
def test_a_batch_that_is_folded_before_the_last_is_written_leaves_the_same(records: list[Record]) -> None:
    records = [record for record in records if record.fault is None]
    for batch in (1, 2, 3, 5):
        assert uninterrupted(records, batch, is_late=True).differs(uninterrupted(records)) == []


@pytest.mark.parametrize("kind", sorted({*EFFECTS} - {"forget"}))
def test_dying_before_any_effect_while_the_next_batch_is_folded_already_leaves_the_same(
    kind: str, late: Left
) -> None:
    moments = [n for n, effect in enumerate(LATE_EFFECTS) if effect == kind]
    assert {n: d for n in moments if (d := dying_before(LONG, n, 3, is_late=True).differs(late))} == {}
    assert moments


@settings(max_examples=25)
@given(logs, schedules, st.permutations(range(3)), st.integers(0, 3), batches)
def test_any_interleaving_of_workers_that_fold_ahead_leaves_the_same(
    records: list[Record], schedule: list[Turn], order: list[Any], survivors: int, batch: int
) -> None:
    left = scheduled(records, schedule, order[:survivors], batch, is_late=True)
    assert left.differs(uninterrupted(records, is_late=True)) == []


def test_dying_again_and_again_at_the_same_place_changes_nothing(whole: Left) -> None:
    schedule = [Turn(0, effect, times, dies=True) for times in (1, 2) for effect in EFFECTS * 2]
    assert scheduled(LONG, schedule).differs(whole) == []


@pytest.mark.parametrize("effect", EFFECTS)
def test_a_worker_that_stalls_before_an_effect_and_wakes_much_later_for_one_step_changes_nothing(
    effect: str, whole: Left
) -> None:
    stalls, others_go_on, wakes = Turn(1, effect, 2), Turn(0, "commit", 4), Turn(1, "commit", dies=True)
    assert scheduled(LONG, [stalls, others_go_on, wakes] * 3).differs(whole) == []


def test_a_worker_that_loses_a_row_folds_what_the_winner_has_not(whole: Left) -> None:
    # The other one's batch is shorter: it wins the rows, and dies before the rest of the first one's batch.
    for swaps in range(1, 5):
        loses = [Turn(0, "swap", batch=GRID), Turn(1, "swap", swaps, batch=3), Turn(1, "commit", dies=True)]
        assert scheduled(LONG, [*loses, Turn(0, "poll")] * 4).differs(whole) == []


def test_two_workers_that_swap_row_by_row_in_turn_change_nothing(whole: Left) -> None:
    side_by_side = [Turn(n % 2, "swap") for n in range(60)]
    assert scheduled(LONG, side_by_side, zombies=[1, 0]).differs(whole) == []


def test_a_version_published_between_two_adoptions_of_the_same_point_serves_both_workers_alike(
    whole: Left,
) -> None:
    # The first has read which version is the newest and waits; the second publishes, adopts, and dies.
    for times in range(1, 6):
        race = [
            Turn(0, "adopt", times),
            Turn(1, "publish"),
            Turn(1, "load", 3),
            Turn(0, "commit", 2),
            Turn(1, "swap"),
        ]
        assert scheduled(LONG, race * 3).differs(whole) == []


def test_a_round_trains_on_no_episode_from_beyond_it() -> None:
    # No label before the first round, which therefore publishes nothing and cannot know that it has been run.
    records = stream(3, 40, tasks=1, wait=GRID + 1)
    died_in_the_second_cell = [Turn(0, "commit", 3, dies=True)]
    assert scheduled(records, died_in_the_second_cell).differs(uninterrupted(records)) == []


def test_the_long_log_exercises_what_is_promised(whole: Left) -> None:
    assert len(whole.versions) >= 3
    assert all(whole.lines[topic] for topic in ("predictions", "scores", "episodes", "dead-letter"))
    assert {*LONG_EFFECTS} == {*EFFECTS}
