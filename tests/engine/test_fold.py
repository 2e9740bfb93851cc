"""The fold's promises: the same bits however the stream is cut, and every event to its exact effect."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from engine.batches import BLOCK, bucket_of
from engine.detectors.detectors import Never, PageHinkley, Periodic
from engine.detectors.river import River
from engine.learners.base import flatten, unflatten
from engine.learners.gradient import GradientLearner
from engine.networks.mlp import mlp
from engine.problem import InnerLoop
from engine.stream.fold import Engine
from engine.stream.mixture import EXPERTS
from engine.stream.predictors import AT_ONCE
from engine.stream.sources import SourceMoved
from engine.stream.spec import Memory, Policy, StreamSpec
from engine.stream.table import TaskTable
from engine.targets import Regression
from engine.types import ADAPTED, PREDICTORS, SERVED, THETA, Batch, EngineError, Meta, Outcome, Params
from tests.engine.driving import (
    ORIGIN,
    SMALL,
    SPECS,
    Driven,
    Event,
    Source,
    actions,
    batch_of,
    digest,
    drive,
    engine_by_tensors,
    engine_for,
    fold_in_cuts,
    label,
    long_stream,
    moved_in_time,
    observation,
    sequence,
    theta,
)
from tests.engine.slow_task import SlowTask, Step
from tests.varied import varied

ROOT = Path(__file__).parents[2]
VERSIONS = [(0, 0), (7, 1), (23, 2), (40, 5)]
PREDICTED, SCORED, DUPLICATE = Outcome.PREDICTED, Outcome.SCORED, Outcome.DUPLICATE

COMPILED = ("balanced", "regression", "history", "regression with history", "wide")

every_spec = pytest.mark.parametrize("name", SPECS)
seeds = st.integers(0, 10_000)


# How the stream was cut


@every_spec
@settings(max_examples=25)
@given(script=st.lists(actions, max_size=70), cuts=st.lists(st.integers(1, 69), max_size=12))
def test_any_cut_into_batches_gives_the_same_bits(name: str, script: list[Any], cuts: list[Any]) -> None:
    events = sequence(script, name)
    whole = fold_in_cuts(name, [*events, observation(1)], [], VERSIONS, 3)
    cut = fold_in_cuts(name, [*events, observation(1)], cuts, VERSIONS, 3)
    assert cut.same_bits(whole) == []


@every_spec
def test_one_event_at_a_time_gives_the_bits_of_one_batch(name: str) -> None:
    events = long_stream(3, 400, 4, name)
    whole = fold_in_cuts(name, events, [], [(0, 1)], 4)
    single = fold_in_cuts(name, events, range(400), [(0, 1)], 4)
    assert single.same_bits(whole) == []
    assert single.outcome("adapted").sum() > 30


@every_spec
def test_a_task_does_not_depend_on_its_batch_mates(name: str) -> None:
    tasks = BLOCK + 13
    events = long_stream(5, 40 * tasks, tasks, name)
    together = fold_in_cuts(name, events, [700], [(0, 1)], tasks)
    for task in range(0, tasks, 3):
        alone = fold_in_cuts(name, [e for e in events if e.task == task], [], [(0, 1)], tasks)
        mine = together.table.rows[task].copy()
        mine["position"] = alone.table.rows[task]["position"]
        assert mine.tobytes() == alone.table.rows[task].tobytes()


def test_a_task_does_not_depend_on_its_place_in_the_table() -> None:
    events = long_stream(6, 300, 2, "balanced")
    first = fold_in_cuts("balanced", events, [100], [(0, 1)], 2)
    last = fold_in_cuts("balanced", [e._replace(task=e.task + 40) for e in events], [100], [(0, 1)], 42)
    assert last.table.rows[40:].tobytes() == first.table.rows.tobytes()


def test_a_fold_leaves_its_input_as_it_was() -> None:
    driven = fold_in_cuts("balanced", long_stream(1, 200, 2, "balanced"), [], [(0, 1)], 2)
    before = driven.table.rows.tobytes()
    events = batch_of(long_stream(2, 50, 2, "balanced"), offset=200)
    driven.engine.fold(driven.table, events, theta("balanced", 2))
    assert driven.table.rows.tobytes() == before


@every_spec
def test_folded_into_a_table_that_is_given_away_its_rows_are_those_of_a_fold(name: str) -> None:
    driven = fold_in_cuts(name, long_stream(1, 200, 3, name), [], [(0, 1)], 3)
    events, meta = batch_of(long_stream(2, 100, 3, name), offset=200), theta(name, 2)
    given, expected = driven.table.copy(), driven.engine.fold(driven.table, events, meta)
    found = driven.engine.fold_into(given, events, meta)
    assert found.states is given
    assert given.rows.tobytes() == expected.states.rows.tobytes()
    assert found.outcomes.prediction.tobytes() == expected.outcomes.prediction.tobytes()


@every_spec
def test_rows_that_lie_apart_are_folded_as_rows_side_by_side_and_what_lies_between_is_left(name: str) -> None:
    driven = fold_in_cuts(name, long_stream(1, 200, 3, name), [], [(0, 1)], 3)
    events, meta = batch_of(long_stream(2, 100, 3, name), offset=200), theta(name, 2)
    expected = driven.engine.fold(driven.table, events, meta)
    room = np.repeat(driven.table.rows, 2)
    between = room[1::2].tobytes()
    found = driven.engine.fold_into(replace(driven.table, rows=room[::2]), events, meta)
    assert found.states.rows.tobytes() == expected.states.rows.tobytes()
    assert found.outcomes.prediction.tobytes() == expected.outcomes.prediction.tobytes()
    assert room[1::2].tobytes() == between


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_a_copy_of_a_table_that_was_folded_is_folded_in_its_own_rows(
    copied: Callable[[TaskTable], TaskTable],
) -> None:
    driven = drive("balanced")
    driven.fold([observation(1), label(1, 1.0)], theta("balanced", 1))
    assert driven.table.located is driven.table.located
    twin, events = copied(driven.table), batch_of([observation(2)], offset=50)
    expected = driven.engine.fold(driven.table, events, theta("balanced", 1))
    found = driven.engine.fold_into(twin, events, theta("balanced", 1))
    assert found.states.rows.tobytes() == expected.states.rows.tobytes()


def test_rows_that_cannot_be_written_are_folded_as_a_copy_and_refused_where_they_lie() -> None:
    driven = drive("balanced")
    assert driven.table.located  # since it can be written so far
    driven.table.rows.flags.writeable = False
    assert driven.engine.fold(driven.table, batch_of([observation(1)]), theta("balanced", 1)).adaptations == 1
    with pytest.raises(EngineError, match="cannot be: make a copy of the table"):
        driven.engine.fold_into(driven.table, batch_of([observation(1)]), theta("balanced", 1))


@pytest.mark.parametrize("calibration", [(1.0, 0.0), (1.0, 0.0, 0.0, 0.0, 0.0)])
def test_a_theta_calibrated_for_another_number_of_classes_is_refused(calibration: tuple[float, ...]) -> None:
    driven = drive("balanced")
    with pytest.raises(
        EngineError, match=rf"calibration of {len(calibration)} numbers, expected none, a scale"
    ):
        driven.fold([observation(1)], replace(theta("balanced", 1), calibration=calibration))


def test_the_compiled_scan_equals_the_same_functions_run_as_plain_python() -> None:
    program = (
        "import torch; torch.set_num_threads(1)\n"
        "from tests.engine.driving import *\n"
        f"for name in {COMPILED}:\n"
        "    events = long_stream(9, 400, 3, name)\n"
        "    versions = [(0, 0), (60, 1), (200, 2)]\n"
        "    print(digest(fold_in_cuts(name, events, [150], versions, 3, engine_by_tensors(name))))\n"
    )
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1", "PYTHONPATH": str(ROOT)}
    plain = subprocess.run(
        [sys.executable, "-c", program], env=environment, cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    for name, expected in zip(COMPILED, plain, strict=True):
        events = long_stream(9, 400, 3, name)
        versions = [(0, 0), (60, 1), (200, 2)]
        compiled = fold_in_cuts(name, events, [150], versions, 3, engine_by_tensors(name))
        assert digest(compiled) == expected, name


# Positions


def test_a_replayed_batch_changes_no_row_and_is_all_duplicates() -> None:
    events = long_stream(4, 200, 3, "balanced")
    driven = fold_in_cuts("balanced", events, [], [(0, 1)], 3)
    for meta in (theta("balanced", 1), theta("balanced", 2)):
        again = driven.engine.fold(driven.table, batch_of(events), meta)
        assert again.states.rows.tobytes() == driven.table.rows.tobytes()
        assert set(again.outcomes.code) == {DUPLICATE}
        assert again.episodes == []


@settings(max_examples=20)
@given(script=st.lists(actions, min_size=2, max_size=60), data=st.data())
def test_a_batch_that_reaches_back_folds_only_what_is_new(script: list[Any], data: st.DataObject) -> None:
    events = sequence(script, "balanced")
    folded = data.draw(st.integers(1, len(events)))
    back = data.draw(st.integers(0, folded))
    once = fold_in_cuts("balanced", events, [], [(0, 1)], 3)
    driven = drive("balanced", 3)
    driven.fold(events[:folded], theta("balanced", 1))
    tail = driven.engine.fold(driven.table, batch_of(events[back:], offset=back), theta("balanced", 1))
    assert list(tail.outcomes.code[: folded - back]) == [DUPLICATE] * (folded - back)
    assert tail.states.rows.tobytes() == once.table.rows.tobytes()


def test_each_topic_has_a_position_of_its_own() -> None:
    engine = Engine(varied(SMALL, topics=2))
    driven = drive(engine)
    events = [observation(1), label(1, 0.0)._replace(topic=1)]
    batch = batch_of(events, offset=4, source=(ORIGIN, Source(9, 3)))
    folded = engine.fold(
        driven.table, replace(batch, offset=np.array([4, 0])), Meta(1, engine.learner.init(0))
    )
    assert list(folded.outcomes.code) == [PREDICTED, SCORED]
    assert folded.states.rows["position"].tolist() == [[5, 1]]
    assert folded.states.rows["partition"].tolist() == [[0, 3]]


@pytest.mark.parametrize("source", [Source(7, 1), Source(8, 0)])
def test_events_of_another_partition_or_incarnation_are_refused_and_change_nothing(source: Source) -> None:
    driven = drive("balanced", 2)
    driven.fold([observation(1), label(1, 0.0)], theta("balanced", 1))
    before = driven.table.rows.tobytes()
    foreign = batch_of([observation(2, task=1), observation(3)], offset=50, source=(source,))
    with pytest.raises(SourceMoved, match=r"task 'task-0'.*input topic 0.*reptide rebuild"):
        driven.engine.fold(driven.table, foreign, theta("balanced", 1))
    assert driven.table.rows.tobytes() == before


def test_even_duplicates_of_another_partition_are_refused() -> None:
    driven = drive("balanced")
    driven.fold([observation(1), observation(2)], theta("balanced", 1))
    with pytest.raises(SourceMoved):
        driven.engine.fold(
            driven.table, batch_of([observation(1)], source=(Source(7, 1),)), theta("balanced", 1)
        )


# Every outcome, by hand


def codes_of(*events: Event) -> list[Outcome]:
    driven = drive("balanced")
    driven.fold(events, theta("balanced", 1))
    counts = driven.table.rows["counts"][0]
    for code in set(driven.codes):
        assert counts[code] == driven.codes.count(code)
    return driven.codes


def test_a_label_meets_its_observation() -> None:
    assert codes_of(observation(1), label(1, 2.0)) == [PREDICTED, SCORED]


def test_a_label_waits_for_no_other_label() -> None:
    events = [observation(1), observation(2), label(2, 0.0), label(1, 1.0)]
    assert codes_of(*events) == [PREDICTED, PREDICTED, SCORED, SCORED]


def test_a_pending_observation_is_not_served_twice() -> None:
    assert codes_of(observation(1), observation(1))[1] == Outcome.REPEATED_OBSERVATION


def test_a_resolved_observation_is_not_served_again() -> None:
    events = [observation(1), label(1, 0.0), observation(1)]
    assert codes_of(*events)[2] == Outcome.REPEATED_OBSERVATION


def test_an_id_is_forgotten_after_64_others_were_resolved() -> None:
    others = [e for n in range(2, 66) for e in (observation(n), label(n, 0.0))]
    first = [observation(1), label(1, 0.0)]
    assert codes_of(*first, *others[:-2], observation(1))[-1] == Outcome.REPEATED_OBSERVATION
    assert codes_of(*first, *others, observation(1))[-1] == PREDICTED


def test_an_equal_second_label_is_repeated_and_changes_nothing() -> None:
    driven = drive("balanced")
    driven.fold([observation(1), label(1, 2.0)], theta("balanced", 1))
    before = driven.table.rows.copy()
    driven.fold([label(1, 2.0)], theta("balanced", 1))
    assert driven.codes[-1] == Outcome.REPEATED_LABEL
    for name in set(before.dtype.names or ()) - {"position", "counts"}:
        assert before[name].tobytes() == driven.table.rows[name].tobytes(), name


def test_a_different_second_label_corrects_the_example_and_the_counts_but_not_the_score() -> None:
    driven = drive("balanced")
    driven.fold([observation(1, x=(3.0, 4.0)), label(1, 2.0)], theta("balanced", 1))
    scores = driven.table.rows["score_sums"].copy()
    driven.fold([label(1, 0.0)], theta("balanced", 1))
    row = driven.table.rows[0]
    present = (row["support_seq"] > 0) & (row["support_dropped"] == 0)
    assert driven.codes[-1] == Outcome.CORRECTED
    assert row["support_y"][present].tolist() == [0.0]
    assert row["support_x"][present].tolist() == [[3.0, 4.0]]
    assert row["class_counts"].tolist() == [1, 0, 0]
    assert row["seq"] == 2
    assert driven.outcome("adapted")[-1]
    assert row["score_sums"].tolist() == scores[0].tolist()
    assert np.isnan(driven.outcome("loss")[-1]).all()


def test_a_correction_of_an_example_that_has_left_mends_the_counts_only() -> None:
    driven = drive("unbalanced")
    events = [e for n in range(1, 7) for e in (observation(n), label(n, 0.0))]
    driven.fold([*events, label(1, 1.0)], theta("unbalanced", 1))
    assert driven.codes[-1] == Outcome.CORRECTED
    assert driven.table.rows["class_counts"][0].tolist() == [5, 1, 0]
    assert driven.table.rows["seq"][0] == 6


def test_a_label_after_its_observation_expired_is_late() -> None:
    assert codes_of(observation(1, 0.0), label(1, 0.0, 51.0))[1] == Outcome.LATE


def test_a_label_of_nothing_known_is_an_orphan() -> None:
    assert codes_of(label(1, 0.0)) == [Outcome.ORPHAN]


@pytest.mark.parametrize("before", [(), (observation(1, 0.0),)], ids=["orphan", "late"])
def test_a_late_or_orphan_label_with_features_is_learned_from_but_never_scored(
    before: tuple[Any, ...] | tuple[Event],
) -> None:
    driven = drive("balanced")
    events = [*before, label(1, 2.0, 60.0, x=(3.0, 4.0)), label(1, 2.0, 60.0, x=(3.0, 4.0))]
    driven.fold(events, theta("balanced", 1))
    row = driven.table.rows[0]
    assert driven.codes[len(before) :] == [Outcome.EXAMPLE, Outcome.REPEATED_LABEL]
    assert row["seq"] == 1
    assert row["class_counts"].tolist() == [0, 0, 1]
    assert row["support_x"][0].tolist() == [3.0, 4.0]
    assert not row["score_sums"].any()
    assert driven.outcome("adapted")[len(before)]


def test_the_label_before_its_observation_is_an_orphan_and_the_observation_is_served() -> None:
    assert codes_of(label(1, 0.0), observation(1)) == [Outcome.ORPHAN, PREDICTED]


def test_an_expired_observation_is_counted_but_never_returned() -> None:
    driven = drive("balanced")
    driven.fold([observation(1, 0.0), observation(2, 51.0)], theta("balanced", 1))
    assert driven.outcome("expired").tolist() == [0, 1]
    assert driven.table.rows["counts"][0, Outcome.EXPIRED] == 1
    assert Outcome.EXPIRED not in driven.codes


def test_an_observation_waits_exactly_its_time_to_live() -> None:
    assert codes_of(observation(1, 10.0), label(1, 0.0, 60.0))[1] == SCORED


def test_an_event_from_the_past_turns_no_clock_back() -> None:
    events = [observation(1, 100.0), observation(2, 20.0), label(1, 0.0, 10.0), label(2, 0.0, 10.0)]
    assert codes_of(*events) == [PREDICTED, PREDICTED, SCORED, Outcome.LATE]


def test_a_full_table_of_pending_observations_pushes_out_the_oldest() -> None:
    driven = drive("balanced")
    events = [*map(observation, (1, 2, 3)), label(2, 0.0), observation(4), observation(5)]
    driven.fold([*events, label(1, 0.0), label(5, 0.0)], theta("balanced", 1))
    assert driven.codes[-2:] == [Outcome.LATE, SCORED]
    assert driven.outcome("expired").tolist() == [0, 0, 0, 0, 0, 1, 0, 0]


@every_spec
def test_no_more_observations_are_pending_than_the_spec_allows(name: str) -> None:
    events = [observation(n, float(n), task=0) for n in range(1, 200)]
    driven = fold_in_cuts(name, events, [50], [(0, 1)], 1)
    assert (driven.table.rows["pending_order"] > 0).sum() == 3
    assert driven.table.rows["counts"][0, Outcome.EXPIRED] == 196


def test_a_scored_label_reports_the_prediction_made_then() -> None:
    driven = drive("balanced")
    driven.fold([observation(1, 5.0)], theta("balanced", 1))
    driven.fold([observation(2, 6.0), label(2, 0.0, 7.0), label(1, 2.0, 9.0)], theta("balanced", 2))
    made, scored = driven.outcome("prediction")[0], driven.outcome("prediction")[3]
    assert made.tobytes() == scored.tobytes()
    assert driven.outcome("version").tolist() == [1, 2, 2, 1]
    assert driven.outcome("seen").tolist() == [0, 0, 0, 0]
    assert driven.outcome("waited_s")[2:].tolist() == [1.0, 4.0]
    assert driven.outcome("loss")[3] == pytest.approx(-np.log(made[:, 2]), rel=1e-6)
    assert driven.table.rows["score_sums"][0] == pytest.approx(np.nansum(driven.outcome("loss"), 0))


# Against the slow reference


def check_against_reference(name: str, events: list[Event], tasks: int) -> set[Outcome]:
    driven = fold_in_cuts(name, events, [len(events) // 2], [(0, 1)], tasks)
    alarms, slow = driven.outcome("alarm"), [SlowTask(SPECS[name]) for _ in range(tasks)]
    steps = [slow[e.task].step(e, bool(alarm)) for e, alarm in zip(events, alarms, strict=True)]
    assert driven.codes == [step.code for step in steps]
    assert driven.outcome("expired").tolist() == [step.expired for step in steps]
    assert driven.outcome("adapted").tolist() == [step.adapts for step in steps]
    for task, row in zip(slow, driven.table.rows, strict=True):
        check_support_set(task, row)
    check_episodes(steps, driven.episodes)
    check_learned(driven, steps)
    return set(driven.codes)


def check_support_set(task: SlowTask, row: np.void) -> None:
    present = np.flatnonzero((row["support_seq"] > 0) & (row["support_dropped"] == 0))
    present = present[np.argsort(row["support_seq"][present])]
    assert row["seq"] == task.seq
    assert row["support_seq"][present].tolist() == [e.seq for e in task.support]
    assert row["support_id"][present].tolist() == [e.id for e in task.support]
    assert row["support_y"][present].tolist() == [np.float32(e.y) for e in task.support]
    assert_rows(row["support_x"][present], [e.x for e in task.support])
    waiting = [(slot, waits) for slot, waits in enumerate(task.slots) if waits]
    assert np.flatnonzero(row["pending_order"]).tolist() == [slot for slot, _ in waiting]
    assert_rows(row["pending_x"][row["pending_order"] > 0], [waits.x for _, waits in waiting])
    if not isinstance(task.spec.problem.target, Regression):
        assert row["class_counts"].tolist() == [task.counts[float(k)] for k in range(3)]


def assert_rows(rows: np.ndarray, expected: list[tuple[float, ...]]) -> None:
    """Stored rows [N, W]; sums that decay in float32 differ from exact ones in their last bits."""
    wanted = np.array(expected, np.float32).reshape(len(expected), rows.shape[1])
    np.testing.assert_allclose(rows, wanted, rtol=1e-4, atol=1e-5)


def check_learned(driven: Driven, steps: list[Step]) -> None:
    learned = np.flatnonzero(driven.outcome("learned"))
    assert learned.tolist() == [n for n, step in enumerate(steps) if step.learned_x is not None]
    assert_rows(driven.outcome("learned_x")[learned], [steps[n].learned_x or () for n in learned])


def check_episodes(steps: list[Step], episodes: list[tuple[Any, ...]]) -> None:
    expected = {n: step.episode for n, step in enumerate(steps) if step.episode}
    assert [episode[2] for episode in episodes] == list(expected)
    for _, _, event, support_x, support_y, weight, query_x, query_y in episodes:
        support, weights, query = expected[event]
        assert_rows(support_x, [e.x for e in support])
        assert support_y.tolist() == [np.float32(e.y) for e in support]
        assert weight == pytest.approx(np.array(weights, np.float32), rel=1e-5)
        assert_rows(query_x, [e.x for e in query])
        assert query_y.tolist() == [np.float32(e.y) for e in query]


@every_spec
@settings(max_examples=20)
@given(script=st.lists(actions, min_size=1, max_size=70))
def test_outcomes_support_sets_and_episodes_are_those_of_the_slow_reference(
    name: str, script: list[Any]
) -> None:
    check_against_reference(name, sequence(script, name), 3)


@every_spec
def test_the_slow_reference_agrees_on_long_streams_in_which_everything_happens(name: str) -> None:
    happened = check_against_reference(name, long_stream(11, 1500, 3, name), 3)
    assert happened == set(Outcome) - {Outcome.EXPIRED, DUPLICATE}


def test_an_episode_carries_the_task_and_its_label_count() -> None:
    driven = drive("balanced", 2)
    driven.fold([observation(1, task=1), label(1, 0.0, task=1)], theta("balanced", 1))
    assert [episode[:3] for episode in driven.episodes] == [(1, 1, 1)]


# Fast parameters are a cache


@every_spec
@settings(max_examples=15)
@given(script=st.lists(actions, min_size=1, max_size=60), seed=seeds)
@example(script=[], seed=1)
def test_wiped_fast_parameters_are_recomputed_to_the_same_bits(
    name: str, script: list[Any], seed: int
) -> None:
    events = [*long_stream(seed, 120, 3, name), *sequence(script, name)]
    driven = fold_in_cuts(name, events, [], [(0, 0), (20, 1)], 3)
    wiped = drive(name, 3)
    wiped.table.rows[:] = driven.table.rows
    wiped.table.rows["fast"], wiped.table.rows["fast_version"] = 0.0, 0
    wiped.folded = driven.folded
    more = [observation(90_000 + u, 0.0, task=u) for u in range(3)]
    driven.fold(more, theta(name, 1))
    wiped.fold(more, theta(name, 1))
    assert wiped.table.rows.tobytes() == driven.table.rows.tobytes()


@every_spec
def test_fast_parameters_are_adapted_on_what_the_slow_reference_remembers(name: str) -> None:
    events = long_stream(12, 500, 3, name)
    driven = fold_in_cuts(name, events, [], [(0, 1)], 3)
    slow = [SlowTask(SPECS[name]) for _ in range(3)]
    for event, alarm in zip(events, driven.outcome("alarm"), strict=True):
        slow[event.task].step(event, bool(alarm))
    for task, row in zip(slow, driven.table.rows, strict=True):
        support, length = task.adapted.support, bucket_of(len(task.adapted.support))
        x, (y, weight) = torch.zeros(BLOCK, length, SPECS[name].problem.width), torch.zeros(2, BLOCK, length)
        x[:, : len(support)] = torch.tensor([e.x for e in support])
        y[:, : len(support)] = torch.tensor([e.y for e in support])
        weight[:, : len(support)] = torch.tensor(task.weights(task.adapted))
        fast = flatten(driven.engine.learner.adapt(theta(name, 1).params, Batch(x, y, weight)))
        assert row["fast"] == pytest.approx(fast[0].numpy(), rel=1e-4, abs=1e-6)


def test_a_recorded_adaptation_gives_the_bits_of_a_plain_one() -> None:
    for name in SPECS:
        engine, generator = engine_by_tensors(name), torch.Generator().manual_seed(0)
        x = torch.rand(BLOCK, 8, SPECS[name].problem.width, generator=generator)
        y = torch.rand(BLOCK, 8, generator=generator).round()
        meta, support = theta(name, 1).params, Batch(x, y, torch.full((BLOCK, 8), 1 / 8))
        learner: Any = engine.learner
        plain, again = learner._adapt(meta, support), learner.adapt(meta, support)
        assert all(torch.equal(plain[key], again[key]) for key in plain)


def test_outputs_of_a_learner_that_are_not_one_a_class_are_refused_at_any_fold() -> None:
    class Narrowing(GradientLearner):
        narrow = False

        def shared(self, meta: Params, x: Tensor) -> Tensor:
            outputs = super().shared(meta, x)
            return outputs[:, :-1] if self.narrow else outputs

    learner, events = Narrowing(SMALL.problem), long_stream(8, 40, 2, "balanced")
    meta, sound = theta("balanced", 1), Engine(SMALL, learner)
    drive(sound, 2).fold(events, meta)
    learner.narrow = True
    driven = drive(Engine(SMALL, learner), 2)
    with pytest.raises(
        EngineError, match=r"the learner predicts float32 of shape .* return an output a class"
    ):
        driven.fold(events, meta)


def test_a_new_version_recomputes_what_an_old_row_has_cached() -> None:
    driven = fold_in_cuts("fixed share", long_stream(2, 100, 1, "fixed share"), [], [(0, 1)], 1)
    through = driven.table.rows["adapted_through"].copy()
    driven.fold([observation(90_000, 1e6)], theta("fixed share", 2))
    assert driven.table.rows["fast_version"].tolist() == [2]
    assert driven.table.rows["adapted_through"].tolist() == through.tolist()
    always_two = fold_in_cuts("fixed share", long_stream(2, 100, 1, "fixed share"), [], [(0, 2)], 1)
    assert driven.table.rows["fast"].tobytes() == always_two.table.rows["fast"].tobytes()


# When a task adapts


def in_order(labels: list[float], start: int = 1) -> list[Event]:
    return [e for n, y in enumerate(labels, start) for e in (observation(n), label(n, y))]


def test_a_task_adapts_at_its_labels_1_2_4_8_and_then_at_every_16th() -> None:
    engine = Engine(varied(SMALL, policy=Policy(every=16), detector=Never()))
    driven = drive(engine)
    driven.fold(in_order([0.0, 1.0] * 33), Meta(1, engine.learner.init(0)))
    labels = 1 + np.flatnonzero(driven.outcome("adapted")) // 2
    assert labels.tolist() == [1, 2, 4, 8, 16, 32, 48, 64]


def test_the_first_adaptations_are_not_skipped_by_a_short_interval() -> None:
    engine = Engine(varied(SMALL, policy=Policy(every=3), detector=Never()))
    driven = drive(engine)
    driven.fold(in_order([0.0, 1.0] * 6), Meta(1, engine.learner.init(0)))
    assert (1 + np.flatnonzero(driven.outcome("adapted")) // 2).tolist() == [1, 2, 3, 6, 9, 12]


def test_a_task_without_labels_predicts_with_theta() -> None:
    driven = drive("balanced")
    driven.fold([observation(1)], theta("balanced", 1))
    prediction = driven.outcome("prediction")[0]
    assert prediction[ADAPTED] == pytest.approx(prediction[THETA], rel=1e-6)


def test_predictions_after_an_adaptation_are_made_by_it_within_one_batch() -> None:
    driven = drive("balanced")
    driven.fold([*in_order([2.0] * 4), observation(5)], theta("balanced", 1))
    prediction = driven.outcome("prediction")[-1]
    assert prediction[ADAPTED, 2] > prediction[THETA, 2]


ALARMING = varied(
    SMALL,
    support=8,
    memory=Memory(pending=8, ttl_s=50.0),
    policy=Policy(every=100, recent=2, refractory=3),
    detector=Periodic(5),
)


def test_an_alarm_cuts_to_the_recent_window_and_then_keeps_quiet_for_the_refractory_labels() -> None:
    engine = Engine(ALARMING)
    driven = drive(engine)
    driven.fold(in_order([0.0, 0.0, 0.0, 1.0, 2.0]), Meta(1, engine.learner.init(0)))
    row = driven.table.rows[0]
    present = (row["support_seq"] > 0) & (row["support_dropped"] == 0)
    assert driven.outcome("alarm").tolist() == [False] * 9 + [True]
    assert driven.outcome("adapted")[-1]
    assert sorted(row["support_y"][present].tolist()) == [1.0, 2.0]
    assert row["class_counts"].tolist() == [0, 1, 1]
    assert (row["adapted_through"], row["epoch"]) == (5, 1)
    driven.fold(in_order([0.0] * 20, start=6), Meta(1, engine.learner.init(0)))
    labels = 1 + np.flatnonzero(driven.outcome("alarm")) // 2
    assert labels.tolist() == [5, 5 + 3 + 5, 5 + 2 * (3 + 5)]


def test_a_correction_of_a_label_from_before_the_window_changes_no_count() -> None:
    engine = Engine(ALARMING)
    driven, meta = drive(engine), Meta(1, engine.learner.init(0))
    driven.fold(in_order([1.0, 1.0, 1.0, 1.0, 0.0]), meta)
    driven.fold([label(1, 0.0), label(1, 0.0), label(4, 2.0)], meta)
    assert driven.codes[-3:] == [Outcome.CORRECTED, Outcome.REPEATED_LABEL, Outcome.CORRECTED]
    assert driven.table.rows["class_counts"][0].tolist() == [1, 0, 1]


def test_the_base_rate_stays_in_range_whatever_is_corrected_after_an_alarm() -> None:
    engine = Engine(varied(ALARMING, target=Regression(0.0, 1.0)))
    driven = drive(engine)
    events = [
        *in_order([1.0, 1.0, 1.0, 1.0, 0.0]),
        label(1, 0.0),
        label(2, 0.0),
        label(3, 0.0),
        observation(6),
    ]
    driven.fold(events, Meta(0, {}))
    assert driven.outcome("prediction")[-1, SERVED, 0] == pytest.approx((1.0 + 0.0 + 0.5) / 3)


def test_an_alarm_never_resets_the_hedge() -> None:
    engine = Engine(ALARMING)
    driven = drive(engine)
    driven.fold(in_order([0.0, 1.0, 0.0, 1.0]), Meta(1, engine.learner.init(0)))
    driven.fold(in_order([2.0], start=5), Meta(1, engine.learner.init(0)))
    assert driven.outcome("alarm")[-1]
    sums = driven.outcome("loss")[1::2, :EXPERTS].sum(axis=0)
    assert driven.table.rows["shared"][0, :EXPERTS] == pytest.approx(sums - sums.min(), abs=1e-9)


def test_predictions_of_an_older_epoch_are_not_fed_to_the_detector() -> None:
    engine = Engine(varied(ALARMING, policy=Policy(every=100, recent=2, refractory=0), detector=Periodic(2)))
    driven, meta = drive(engine), Meta(1, engine.learner.init(0))
    driven.fold([*map(observation, range(1, 7)), *(label(n, 0.0) for n in range(1, 7))], meta)
    assert np.flatnonzero(driven.outcome("alarm")).tolist() == [7]
    assert driven.table.rows["detector"][0, 0] == 0
    driven.fold(in_order([0.0, 0.0], start=7), meta)
    assert driven.outcome("alarm").tolist()[-4:] == [False, False, False, True]


def test_a_detector_outside_the_scan_does_what_the_same_one_inside_does() -> None:
    options = (("min_instances", 3), ("delta", 0.0), ("threshold", 0.15), ("mode", "up"))
    events, meta = long_stream(8, 500, 2, "balanced"), theta("balanced", 1)
    outside = drive(Engine(varied(SMALL, detector=River("PageHinkley", options, window=500))), 2)
    inside = drive("balanced", 2)
    outside.fold(events, meta)
    inside.fold(events, meta)
    assert inside.outcome("alarm").sum() > 3
    assert set(outside.same_bits(inside)) == {"fingerprint", "detector"}


def test_the_support_set_is_weighed_back_to_the_class_counts() -> None:
    engine = Engine(varied(SMALL, policy=Policy(every=8), detector=Never()))
    driven = drive(engine)
    driven.fold(in_order([1.0, 0, 0, 0, 0, 0, 0, 0]), Meta(1, engine.learner.init(0)))
    driven.fold(in_order([2.0] * 8, start=9), Meta(1, engine.learner.init(0)))
    _, labels, _, _, support_y, weight, _, _ = driven.episodes[-1]
    assert labels == 16
    assert sorted(support_y.tolist()) == [0, 0, 0, 1]
    expected = {0.0: 7 / 8 / 3, 1.0: 1 / 8}
    assert weight.tolist() == pytest.approx([expected[y] for y in support_y.tolist()])


def test_an_unbalanced_support_set_is_the_last_examples_weighed_alike() -> None:
    driven = drive(Engine(varied(SPECS["unbalanced"], detector=Never())))
    driven.fold(in_order([0.0, 0, 0, 1, 2, 0, 0, 0]), theta("unbalanced", 1))
    _, _, _, _, support_y, weight, _, query_y = driven.episodes[-1]
    assert (support_y.tolist(), weight.tolist()) == ([0, 0, 0, 1], [0.25] * 4)
    assert query_y.tolist() == [2, 0, 0, 0]


# Before there is any theta


def test_before_the_first_version_the_base_rate_is_served() -> None:
    driven = drive("balanced")
    driven.fold([observation(1), label(1, 2.0), observation(2)], theta("balanced", 0))
    assert driven.outcome("prediction")[0] == pytest.approx(np.full((len(PREDICTORS), 3), 1 / 3))
    assert driven.outcome("prediction")[2, SERVED] == pytest.approx([0.5 / 2.5, 0.5 / 2.5, 1.5 / 2.5])
    assert driven.adaptations == 0
    assert driven.table.rows["fast_version"].tolist() == [0]


def test_before_the_first_version_a_regression_serves_the_smoothed_mean() -> None:
    driven = drive("regression")
    driven.fold([observation(1), label(1, 2.0), observation(2)], theta("regression", 0))
    assert driven.outcome("prediction")[0, :, 0].tolist() == [0.5] * len(PREDICTORS)
    assert driven.outcome("prediction")[2, SERVED, 0] == pytest.approx((2.0 + 0.5) / 2)


def test_what_was_learned_before_the_first_version_is_adapted_on_at_the_first() -> None:
    events = in_order([2.0] * 4)
    late = fold_in_cuts("balanced", [*events, observation(5)], [], [(0, 0), (8, 1)], 1)
    early = fold_in_cuts("balanced", [*events, observation(5)], [], [(0, 1)], 1)
    assert late.table.rows["fast"].tobytes() == early.table.rows["fast"].tobytes()


# The finite guard


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), -float("inf")])
def test_a_theta_that_is_not_finite_keeps_the_previous_fast_parameters(poison: float) -> None:
    driven = drive("balanced")
    driven.fold(in_order([0.0, 1.0]), theta("balanced", 1))
    before = driven.table.rows["fast"].tobytes()
    sick = {name: torch.full_like(value, poison) for name, value in theta("balanced", 1).params.items()}
    driven.fold(in_order([0.0, 1.0, 2.0], start=3), Meta(2, sick))
    assert driven.table.rows["fast"].tobytes() == before
    assert driven.not_finite > 0
    assert np.isfinite(driven.outcome("prediction")).all()
    assert np.isfinite(driven.table.rows["score_sums"]).all()


@every_spec
def test_a_theta_that_is_never_finite_still_serves_finite_predictions(name: str) -> None:
    driven = drive(name)
    sick = {key: torch.full_like(value, float("nan")) for key, value in theta(name, 1).params.items()}
    driven.fold(in_order([0.0, 1.0] * 4), Meta(1, sick))
    assert np.isfinite(driven.outcome("prediction")).all()
    assert driven.not_finite > 0
    middle = 0.5 if isinstance(SPECS[name].problem.target, Regression) else 1 / 3
    assert driven.outcome("prediction")[0, THETA:].ravel() == pytest.approx(middle)


@pytest.mark.parametrize("lr", [1e4, 1e20, 1e38])
def test_a_huge_step_size_changes_nothing_worse_than_theta(lr: float) -> None:
    engine = Engine(varied(SMALL, inner=InnerLoop(steps=3, lr=lr), network=partial(mlp, hidden=())))
    driven = drive(engine)
    driven.fold(long_stream(1, 200, 1, "balanced"), Meta(1, engine.learner.init(0)))
    assert np.isfinite(driven.table.rows["fast"]).all()
    served = np.isin(driven.outcome("code"), (PREDICTED, SCORED))
    assert np.isfinite(driven.outcome("prediction")[served]).all()


def test_one_sick_adaptation_leaves_its_batch_mates_alone() -> None:
    engine = engine_for("unbalanced")
    sick = [e._replace(x=(3e38, 3.0), task=0) for e in in_order([0.0, 1.0])]
    healthy = [e._replace(task=1, id=e.id + 100) for e in in_order([0.0, 1.0])]
    both, alone = drive(engine, 2), drive(engine, 2)
    both.fold([*sick, *healthy], theta("unbalanced", 1))
    alone.fold(healthy, theta("unbalanced", 1))
    assert both.table.rows["fast"][1].tobytes() == alone.table.rows["fast"][1].tobytes()
    assert np.isfinite(both.table.rows["fast"]).all()


# What a detector is fed

SQUARED = varied(
    SPECS["regression"],
    network=partial(mlp, hidden=()),
    policy=Policy(every=4, recent=2, refractory=3),
    detector=PageHinkley(min_instances=5, delta=0.1, threshold=2.0),
)


def alarms_in(unit: float, spec: StreamSpec) -> tuple[list[int], np.ndarray]:
    """A stream of values in a unit, with two shifts; the alarms, and what was served in that unit."""
    scaled = varied(spec, target=Regression(-1.0 * unit, 2.0 * unit))
    engine, rng = Engine(scaled), np.random.default_rng(0)
    params = engine.learner.init(0)
    params |= {"0.label_mean": torch.tensor(0.1 * unit), "0.label_std": torch.tensor(0.5 * unit)}
    events = []
    for n in range(1, 400):
        y = float(np.clip(rng.normal(-0.5 if n % 200 < 120 else 1.5, 0.1), -1, 2)) * unit
        events += [observation(n, n, (float(rng.normal()), float(n % 4))), label(n, y, n)]
    driven = drive(engine)
    driven.fold(events, Meta(1, params))
    return np.flatnonzero(driven.outcome("alarm")).tolist(), driven.outcome("prediction")[:, :, 0] / unit


@pytest.mark.parametrize("unit", [10.0, 0.01, 1024.0])
def test_alarms_of_a_regression_are_the_same_in_any_unit_of_its_labels(unit: float) -> None:
    alarms, served = alarms_in(1.0, SQUARED)
    again, said = alarms_in(unit, SQUARED)
    assert 2 <= len(alarms) < 40
    assert again == alarms
    np.testing.assert_allclose(said, served, rtol=1e-3, atol=1e-3)


def test_a_detector_outside_the_scan_is_fed_the_same_surprise_of_a_regression() -> None:
    options = (("min_instances", 5), ("delta", 0.1), ("threshold", 2.0), ("mode", "up"))
    outside = varied(SQUARED, detector=River("PageHinkley", options, window=500))
    assert alarms_in(1.0, outside)[0] == alarms_in(1.0, SQUARED)[0]


# What was learned, for the trainer


@every_spec
def test_a_label_that_was_learned_says_so_with_the_tasks_count_and_the_features_it_came_with(
    name: str,
) -> None:
    events = long_stream(15, 400, 2, name)
    driven = fold_in_cuts(name, events, [100], [(0, 0), (50, 1)], 2)
    learned, own = driven.outcome("learned"), SPECS[name].problem.features.width
    asked: dict[tuple[int, int], tuple[float, ...] | None] = {}
    for n, (event, code) in enumerate(zip(events, driven.codes, strict=True)):
        if code == PREDICTED:
            asked[event.task, event.id] = event.x
        assert (learned[n] > 0) == (code in (SCORED, Outcome.EXAMPLE))
        if code in (SCORED, Outcome.EXAMPLE):
            came_with = asked[event.task, event.id] if code == SCORED else event.x
            np.testing.assert_array_equal(
                driven.outcome("learned_x")[n, :own], np.array(came_with, np.float32)
            )
    for task in range(2):
        mine = learned[[n for n, e in enumerate(events) if e.task == task and learned[n]]]
        assert (np.diff(mine) > 0).all()


# What is asked again


@every_spec
@settings(max_examples=20)
@given(script=st.lists(actions, min_size=1, max_size=70), cuts=st.lists(st.integers(1, 69), max_size=5))
def test_an_observation_that_comes_again_is_answered_as_it_was_while_it_is_pending(
    name: str, script: list[Any], cuts: list[Any]
) -> None:
    events = sequence(script, name)
    driven = fold_in_cuts(name, events, cuts, VERSIONS, 3)
    prediction, version, seen = (driven.outcome(column) for column in ("prediction", "version", "seen"))
    pending: dict[tuple[int, int], int] = {}
    for n, (event, code) in enumerate(zip(events, driven.codes, strict=True)):
        place = event.task, event.id
        if code == PREDICTED:
            pending[place] = n
        elif code == SCORED:
            first = pending.pop(place)
            assert prediction[n].tobytes() == prediction[first].tobytes()
        elif code == Outcome.REPEATED_OBSERVATION and np.isfinite(prediction[n]).all():
            first = pending[place]
            assert prediction[n].tobytes() == prediction[first].tobytes()
            assert (version[n], seen[n]) == (version[first], seen[first])
        else:
            assert np.isnan(prediction[n]).all()


@pytest.mark.parametrize("again", ["in the same batch", "in a later one", "delivered again"])
def test_a_pending_observation_is_answered_as_it_was_however_it_comes_again(again: str) -> None:
    driven = drive("balanced", 2)
    first = [observation(1, 1.0, task=1), observation(2, 2.0), label(2, 1.0, 3.0)]
    if again == "in the same batch":
        driven.fold([*first, observation(1, 4.0, task=1)], theta("balanced", 1))
        repeated = driven.outcome("prediction")[3]
    else:
        driven.fold(first, theta("balanced", 1))
        offset = 3 if again == "in a later one" else 0
        batch = batch_of([observation(1, 1.0, task=1)], offset)
        repeated = driven.engine.fold(driven.table, batch, theta("balanced", 2)).outcomes.prediction[0]
    assert np.isfinite(repeated).all()
    assert repeated.tobytes() == driven.outcome("prediction")[0].tobytes()


@pytest.mark.parametrize("resolved", [label(1, 0.0, 1.0), observation(2, 60.0)], ids=["labelled", "expired"])
def test_a_resolved_observation_that_comes_again_has_no_prediction_rather_than_another(
    resolved: Event,
) -> None:
    driven = drive("balanced")
    driven.fold([observation(1, 0.0), resolved, observation(1, 61.0)], theta("balanced", 1))
    assert driven.codes[2] == Outcome.REPEATED_OBSERVATION
    assert np.isnan(driven.outcome("prediction")[2]).all()
    delivered = driven.engine.fold(driven.table, batch_of([observation(1)]), theta("balanced", 1))
    assert list(delivered.outcomes.code) == [DUPLICATE]
    assert np.isnan(delivered.outcomes.prediction).all()


# The clock


@every_spec
@settings(max_examples=15)
@given(
    script=st.lists(actions, min_size=1, max_size=70), began_s=st.sampled_from([-100.0, -101.0, -(2.0**30)])
)
def test_a_stream_before_1970_or_around_it_is_folded_like_any_other(
    name: str, script: list[Any], began_s: Any
) -> None:
    events = sequence(script, name)
    after = fold_in_cuts(name, events, [9], VERSIONS, 3)
    before = fold_in_cuts(name, moved_in_time(events, began_s), [9], VERSIONS, 3)
    times = {"clock_s", "pending_s", "event_s", "label_s"}
    assert set(before.same_bits(after)) <= times


def test_the_clock_of_a_task_first_seen_at_the_epoch_does_not_run_back() -> None:
    driven = drive("balanced")
    driven.fold([observation(1, 0.0), observation(2, -60.0)], theta("balanced", 1))
    assert driven.table.rows["clock_s"].tolist() == [0.0]
    driven.fold([label(2, 0.0, 1.0)], theta("balanced", 1))
    assert driven.codes[-1] == Outcome.LATE


@every_spec
def test_an_event_from_the_future_is_taken_to_have_happened_when_its_log_took_it_at_the_latest(
    name: str,
) -> None:
    events = long_stream(4, 200, 2, name)
    now = np.array([event.time_s for event in events])
    future = [event._replace(time_s=4e9) if n % 7 == 3 else event for n, event in enumerate(events)]
    folds = [
        engine_for(name).fold(
            drive(name, 2).table, replace(batch_of(stream), not_after_s=limit), theta(name, 1)
        )
        for stream, limit in ((events, np.inf), (future, now))
    ]
    assert folds[0].states.rows.tobytes() == folds[1].states.rows.tobytes()
    assert folds[0].outcomes.prediction.tobytes() == folds[1].outcomes.prediction.tobytes()


def test_one_event_from_the_year_2096_makes_no_later_label_late() -> None:
    driven, after = drive("balanced"), 1_700_000_000.0
    batch = batch_of([observation(1, 4e9), observation(2, after + 1), label(2, 1.0, after + 2)])
    bounded = driven.engine.fold(driven.table, replace(batch, not_after_s=after), theta("balanced", 1))
    assert bounded.outcomes.code.tolist() == [PREDICTED, PREDICTED, SCORED]
    assert bounded.states.rows["clock_s"].tolist() == [after]


# The read path


@every_spec
@settings(max_examples=20)
@given(
    seed=seeds,
    length=st.integers(0, 150),
    version=st.integers(0, 2),
    passed=st.sampled_from([-5.0, 0.0, 3.0, 55.0, 1e5]),
    began_s=st.sampled_from([0.0, -1e6]),
)
def test_predict_changes_nothing_and_says_what_the_fold_would_serve_at_that_time(
    name: str, seed: int, length: int, version: int, passed: Any, began_s: Any
) -> None:
    stream = [*long_stream(seed, length, 3, name), observation(80_000, 1000.0)]
    driven = fold_in_cuts(name, moved_in_time(stream, began_s), [], [(0, 1)], 3)
    before, x = driven.table.rows.tobytes(), np.array([[0.3, 1.0], [-1.0, 2.0], [2.0, 3.0]], np.float32)
    now = driven.table.rows["clock_s"] + passed
    prediction = driven.engine.predict(driven.table, x, theta(name, version), now)
    assert driven.table.rows.tobytes() == before
    asked = [observation(90_000 + u, now[u], tuple(x[u]), task=u) for u in range(3)]
    served = driven.fold(asked, theta(name, version)).outcomes.prediction
    for column, expected in enumerate(prediction):
        assert served[:, column].tobytes() == expected.tobytes()


def test_predict_gives_up_on_what_has_expired_by_then() -> None:
    driven = drive("balanced")
    busy = [observation(n, 10.0) for n in (1, 2, 3)]
    driven.fold([observation(8, 0.0), label(8, 2.0, 1.0), *busy, label(2, 2.0, 11.0)], theta("balanced", 1))
    x = np.array([[0.5, 1.0]], np.float32)
    soon, later = (
        driven.engine.predict(driven.table, x, theta("balanced", 1), np.array([now])) for now in (12.0, 80.0)
    )
    assert soon.adapted.tobytes() == later.adapted.tobytes()
    assert (
        soon.served.tobytes() != later.served.tobytes()
    )  # the lowest lane, which has learned, is free again


def test_predict_takes_more_tasks_than_a_block() -> None:
    driven = drive("balanced", 2 * BLOCK + 5)
    x = np.random.default_rng(0).normal(size=(len(driven.table), 2)).astype(np.float32)
    whole = driven.engine.predict(driven.table, x, theta("balanced", 1), np.zeros(len(x)))
    two = driven.table.take(np.array([3, 66]))
    some = driven.engine.predict(two, x[[3, 66]], theta("balanced", 1), np.zeros(2))
    assert whole.served[[3, 66]].tobytes() == some.served.tobytes()


def test_predict_refuses_features_and_times_that_no_observation_has() -> None:
    driven, x = drive("balanced", 2), np.zeros((2, 2), np.float32)
    with pytest.raises(EngineError, match=r"EventBatch.x has shape \(2, 3\), expected \(2, 2\)"):
        driven.engine.predict(driven.table, np.zeros((2, 3), np.float32), theta("balanced", 1), np.zeros(2))
    with pytest.raises(EngineError, match=r"EventBatch.time_s has shape \(1,\), expected \(2,\)"):
        driven.engine.predict(driven.table, x, theta("balanced", 1), np.zeros(1))
    with pytest.raises(EngineError, match=r"event 1 .*time_s is nan, expected seconds since the epoch"):
        driven.engine.predict(driven.table, x, theta("balanced", 1), np.array([0.0, np.nan]))


# Equal bits


@pytest.mark.parametrize("hidden", [(9,), (8,), (13, 7), (32,)])
def test_the_place_in_a_block_changes_no_bit(hidden: tuple[int] | tuple[int, int]) -> None:
    """The same event, and the same support set, in every place of a block: aligned differently in memory."""
    spec = varied(SMALL, network=partial(mlp, hidden=hidden), adapts="all")
    engine = Engine(spec)
    meta, rng = engine.learner.init(0), np.random.default_rng(0)
    for size in (4, 16, 64):
        x = torch.from_numpy(rng.normal(size=(1, size, 2)).astype(np.float32)).repeat(BLOCK, 1, 1)
        y = torch.from_numpy(rng.integers(0, 2, (1, size)).astype(np.float32)).repeat(BLOCK, 1)
        fast = flatten(engine.learner.adapt(meta, Batch(x, y, torch.full((BLOCK, size), 1 / size)))).numpy()
        assert {row.tobytes() for row in fast} == {fast[0].tobytes()}
        many = torch.from_numpy(np.repeat(fast[:1], AT_ONCE, 0))
        shown = x[:1, :1].repeat(AT_ONCE, 1, 1)
        outputs = engine.predict_adapted(meta, unflatten(engine.learner.fast_shapes, many), shown).numpy()
        assert {row.tobytes() for row in outputs} == {outputs[0].tobytes()}
