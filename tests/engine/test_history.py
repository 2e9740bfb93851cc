"""A task's own past as features: only what was known then, and by hand what the slow reference does not spell out."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.detectors.detectors import Never
from engine.features.columns import Category, Numeric
from engine.features.encoder import Features
from engine.features.history import LARGEST, MOST_CLASSES, History
from engine.stream.fold import Engine
from engine.stream.spec import StreamSpec
from engine.targets import Classification, Regression
from engine.types import EngineError, Kind, Meta, Outcome
from tests.engine.driving import (
    SMALL,
    SPECS,
    Driven,
    Event,
    actions,
    drive,
    fold_in_cuts,
    label,
    long_stream,
    observation,
    sequence,
)
from tests.varied import varied

WITH_PAST = [name for name, spec in SPECS.items() if spec.problem.history]
QUIET = varied(SMALL, detector=Never(), history=History(numbers=("a",)))


def folded(spec: StreamSpec, *events: Event) -> Driven:
    engine = Engine(spec)
    driven = drive(engine)
    driven.fold(events, Meta(1, engine.learner.init(0)))
    return driven


def past(driven: Driven, slot: int = 0) -> np.ndarray:
    """What is written beside the features of a pending observation."""
    own = driven.engine.spec.problem.features.width
    return driven.table.rows["pending_x"][0, slot, own:]


# Nothing that was not known


def moved(events: list[Event], after: int, by: float) -> list[Any]:
    """The same events, with other values for every label after one of them."""
    return [
        e._replace(y=(e.y + by) % 3 if by >= 1 else e.y + by) if n > after and e.kind == Kind.LABEL else e
        for n, e in enumerate(events)
    ]


@pytest.mark.parametrize("name", SPECS)
@settings(max_examples=20)
@given(script=st.lists(actions, min_size=2, max_size=60), seed=st.integers(0, 999), data=st.data())
def test_labels_that_come_after_an_event_change_no_bit_of_its_features_or_prediction(
    name: str, script: list[Any], seed: int, data: st.DataObject
) -> None:
    events = [*long_stream(seed, 60, 3, name), *sequence(script, name)]
    after = data.draw(st.integers(0, len(events) - 1))
    by = (
        0.25 if isinstance(SPECS[name].problem.target, Regression) else data.draw(st.sampled_from([1.0, 2.0]))
    )
    whole = fold_in_cuts(name, events, [], [(0, 1)], 3)
    other = fold_in_cuts(name, moved(events, after, by), [], [(0, 1)], 3)
    for column in ("prediction", "weight", "version", "seen", "code"):
        mine, its = whole.outcome(column), other.outcome(column)
        assert mine[: after + 1].tobytes() == its[: after + 1].tobytes(), column
    asked = {(e.task, e.id) for e in events[: after + 1] if e.kind == Kind.OBSERVATION}
    codes = whole.outcome("code"), other.outcome("code")
    for n, e in enumerate(events):
        if (e.task, e.id) in asked and all(code[n] == Outcome.SCORED for code in codes):
            assert whole.outcome("learned_x")[n].tobytes() == other.outcome("learned_x")[n].tobytes()


@pytest.mark.parametrize("name", WITH_PAST)
def test_a_label_that_came_before_does_change_what_is_served(name: str) -> None:
    events = long_stream(4, 200, 1, name)
    whole = fold_in_cuts(name, events, [], [(0, 2)], 1)
    by = 0.25 if isinstance(SPECS[name].problem.target, Regression) else 1.0
    other = fold_in_cuts(name, moved(events, -1, by), [], [(0, 2)], 1)
    known = (whole.outcome("seen") > 0) & (whole.outcome("code") == Outcome.PREDICTED)
    mine, its = (driven.outcome("prediction")[known, 2] for driven in (whole, other))
    free = np.ones(len(mine), np.bool_)
    if isinstance(
        target := SPECS[name].problem.target, Regression
    ):  # at an end of the range they are clipped alike
        free = (mine[:, 0] > target.low) & (mine[:, 0] < target.high)
    assert free.mean() > 0.3
    assert (mine != its)[free].any(axis=1).mean() > 0.9


def test_a_label_is_known_when_it_comes_and_not_when_it_was_asked_for() -> None:
    late = folded(QUIET, observation(1, 0.0), observation(2, 1.0), label(2, 2.0, 2.0), observation(3, 3.0))
    first, third = past(late, 0), past(late, 1)
    assert not first[:9].any()
    assert third[:9].reshape(3, 3).tolist() == [[0, 0, 1]] * 3
    assert third[9] == 3.0
    assert third[11] == pytest.approx(math.log(1 + 3.0 - 2.0))


# By hand


def test_of_a_task_never_seen_all_counts_are_zero_and_every_time_is_missing() -> None:
    fresh = past(folded(QUIET, observation(1, 5.0)))
    assert not fresh[:11].any()
    assert np.isnan(fresh[11:13]).all()
    assert not fresh[13:16].any()
    assert np.isnan(fresh[16:18]).all()


def test_a_correction_is_no_label_and_does_not_make_a_change_of_the_last_value() -> None:
    spec = varied(QUIET, target=Regression(-10.0, 10.0))
    events = [observation(1, 10.0), label(1, 5.0, 20.0), label(1, 6.0, 30.0), observation(2, 40.0)]
    row = past(folded(spec, *events))
    assert row[:2].tolist() == [1.0, 6.0]
    assert row[6] == 6.0
    assert np.isnan(row[7:9]).all()
    assert row[9] == pytest.approx(math.log(2))


def test_a_correction_of_an_earlier_label_leaves_the_last_as_it_is_though_they_were_equal() -> None:
    events = [e for n in (1, 2) for e in (observation(n), label(n, 1.0))]
    row = past(folded(QUIET, *events, label(1, 0.0), observation(3)))
    assert row[9] == 1.0 + 1
    assert row[:3].tolist() == [1.0, 1.0, 0.0]


def test_a_number_that_was_missing_at_first_is_compared_with_what_came_later_alone() -> None:
    spec = varied(
        QUIET, features=Features((Numeric("a", optional=True), Numeric("b"))), history=History(numbers=("a",))
    )
    row = past(
        folded(
            spec,
            observation(1, x=(math.nan, 0.0)),
            observation(2, x=(100.0, 0.0)),
            observation(3, x=(101.0, 0.0)),
        ),
        2,
    )
    assert row[16:].tolist() == [0.0, 1.0]


def test_a_difference_of_huge_numbers_is_kept_finite() -> None:
    row = past(folded(QUIET, observation(1, x=(3e38, 0.0)), observation(2, x=(-3e38, 0.0))), 1)
    assert row[17] == pytest.approx(-LARGEST, rel=1e-6)


def test_where_it_goes_is_the_slope_of_the_last_two_values_and_at_most_ten_times_their_distance() -> None:
    spec = varied(QUIET, target=Regression(-10.0, 10.0), memory=replace(QUIET.memory, ttl_s=1e9))
    events = [observation(1), label(1, 1.0, 10.0), observation(2), label(2, 3.0, 20.0)]
    near, far = folded(spec, *events, observation(3, 25.0)), folded(spec, *events, observation(3, 1e5))
    assert past(near)[6:9].tolist() == [3.0, 2.0, 1.0]
    assert past(far)[6:9].tolist() == [3.0, 2.0, 20.0]


# What is written at all


@pytest.mark.parametrize("classes", [2, MOST_CLASSES, MOST_CLASSES + 1, 40])
def test_of_more_classes_than_the_limit_no_counts_are_written_and_all_else_is(classes: int) -> None:
    spec = varied(
        SMALL,
        features=Features((Numeric("a"), Category("b", buckets=4, embedding=2))),
        target=Classification(tuple(range(classes))),
        history=History(by=("b",), numbers=("a",)),
    )
    counts = classes * (classes <= MOST_CLASSES)
    assert spec.problem.width == 2 + (3 + 1) * counts + 1 + 3 + 3 + 2
    driven = folded(
        spec, observation(1), label(1, classes - 1.0), observation(2), label(2, 0.0), observation(3)
    )
    assert np.isfinite(driven.outcome("prediction")).all()
    assert past(driven)[3 * counts] == 1.0


def test_a_history_of_what_is_no_field_is_refused_by_name() -> None:
    with pytest.raises(EngineError, match=r"history\.by: 'a' is not one of \[\]"):
        varied(SMALL, history=History(by=("a",)))
    with pytest.raises(EngineError, match=r"history\.numbers: 'c' is not one of \['a', 'b'\]"):
        varied(SMALL, history=History(numbers=("c",)))
    with pytest.raises(EngineError, match=r"history\.slots must be positive"):
        History(slots=0)
