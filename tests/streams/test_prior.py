"""The prior says how often each predictor turned out to be the one for a task, and rules none of them out."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.types import PREDICTORS
from streams.events.learned_labels import LearnedLabel
from streams.events.reading import MAX_ID_BYTES
from streams.events.record import SourcePosition
from streams.program.prior import FLOOR, learned_prior

X = np.zeros(1, np.float32)
MANY = 40
"""Labels that leave no doubt which predictor a task is for."""


def labels(task: str, losses: Sequence[float], number: int = MANY) -> list[LearnedLabel]:
    return [
        LearnedLabel(task, SourcePosition(1, 0, n), n + 1, X, 0.0, np.array(losses), None)
        for n in range(number)
    ]


def one_hot(best: int, worse: float = 5.0) -> list[float]:
    return [0.1 if n == best else worse for n in range(len(PREDICTORS))]


def test_a_task_whose_id_is_as_long_as_may_be_makes_no_array_of_ids_as_wide() -> None:
    found = [*labels("x" * MAX_ID_BYTES, one_hot(0)), *labels("user", one_hot(1), number=200)]
    tracemalloc.start()
    learned_prior(found, squared=False)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20


def test_ids_that_differ_in_a_null_at_the_end_are_two_tasks() -> None:
    found = [*labels("user", one_hot(0)), *labels("user\0", one_hot(1))]
    renamed = [*labels("user", one_hot(0)), *labels("user 1", one_hot(1))]
    assert learned_prior(found, squared=False) == learned_prior(renamed, squared=False)


@pytest.mark.parametrize("squared", [False, True])
def test_it_counts_the_tasks_of_each_kind_with_one_more_that_is_of_all(squared: bool) -> None:
    best = [0, 0, 0, 2, 2, 3]
    found = learned_prior(
        [x for n, kind in enumerate(best) for x in labels(f"task {n}", one_hot(kind, 1e4))], squared
    )
    counted = np.array([3, 0, 2, 1, 0]) + 1 / 5
    expected = FLOOR + (1 - 5 * FLOOR) * counted / (len(best) + 1)
    np.testing.assert_allclose(found, expected)


def test_a_task_with_many_labels_counts_as_one() -> None:
    found = learned_prior([*labels("a", one_hot(0), 1000), *labels("b", one_hot(1), 50)], squared=False)
    assert found[0] == pytest.approx(found[1])


def test_where_nothing_was_scored_it_is_even() -> None:
    assert learned_prior([], squared=False) == (0.2,) * 5
    assert learned_prior(labels("a", [np.nan] * 5), squared=True) == (0.2,) * 5


def test_labels_that_were_not_scored_say_nothing() -> None:
    scored = labels("a", one_hot(1))
    assert learned_prior([*scored, *labels("b", [np.nan] * 5)], False) == learned_prior(scored, False)


def test_one_pass_is_the_posterior_of_each_task_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.program.prior.PASSES", 1)
    sums = np.array([[1.0, 2.0, 0.5, 0.7, 0.6], [0.3, 0.2, 0.9, 0.1, 0.4]])
    said = [x for task, loss in zip("ab", sums / 4, strict=True) for x in labels(task, list(loss), 4)]
    share = np.exp(-sums) / np.exp(-sums).sum(axis=1, keepdims=True)
    counted = (share.sum(axis=0) + 0.2) / 3
    np.testing.assert_allclose(learned_prior(said, squared=False), FLOOR + (1 - 5 * FLOOR) * counted)


def test_of_squared_loss_the_unit_makes_no_difference() -> None:
    rng = np.random.default_rng(0)
    told = [(f"task {n % 7}", rng.random(5)) for n in range(60)]
    by_unit = [
        learned_prior([x for task, loss in told for x in labels(task, list(loss * unit), 1)], squared=True)
        for unit in (1.0, 1e6, 1e-6)
    ]
    np.testing.assert_allclose(by_unit, [by_unit[0]] * 3)


losses = st.lists(st.floats(0, 1e6), min_size=5, max_size=5)


@given(st.lists(st.tuples(st.sampled_from("abc"), losses), max_size=20), st.booleans())
def test_none_is_ever_given_less_than_the_floor_and_all_sum_to_one(told: list[Any], squared: bool) -> None:
    found = learned_prior([x for task, loss in told for x in labels(task, loss, 1)], squared)
    assert min(found) >= FLOOR * (1 - 1e-9)
    assert sum(found) == pytest.approx(1)
