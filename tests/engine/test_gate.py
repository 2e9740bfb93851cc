"""A candidate passes unless held-out tasks are worse off by more than chance explains."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from engine.batches import stack
from engine.features.columns import Numeric
from engine.features.encoder import Features
from engine.learners.base import LABEL_MEAN, LABEL_STD
from engine.learners.gradient import GradientLearner
from engine.networks.mlp import mlp
from engine.outer.gate import BLOCK, FEWEST, Verdict, gate, losses_after_adaptation
from engine.problem import InnerLoop, Problem
from engine.targets import Classification, Regression
from engine.types import Batch, Episode, Params, is_finite

PROBLEM = Problem(
    Features((Numeric("a"), Numeric("b"))),
    Classification((0, 1)),
    network=partial(mlp, hidden=(8,)),
    inner=InnerLoop(steps=1),
)
LEARNER = GradientLearner(PROBLEM)
THETA = LEARNER.init(0)


def episodes(count: int) -> list[Episode]:
    rng = np.random.default_rng(3)

    def drawn(n: int) -> tuple[np.ndarray, np.ndarray]:
        x = rng.normal(size=(n, 2)).astype(np.float32)
        return x, (x[:, 0] > 0).astype(np.float32)

    made = []
    for number in range(count):
        (sx, sy), (qx, qy) = drawn(int(rng.integers(0, 9))), drawn(5)
        weight = np.full(len(sy), 1 / max(len(sy), 1), np.float32)
        made.append(Episode(-1, number, -1, sx, sy, weight, qx, qy))
    return made


def judge(before: Params, candidate: Params, some: list[Episode], tasks: int | None = None) -> Verdict:
    """Each episode of a task of its own, or of so many tasks in turn."""
    return gate(LEARNER, before, candidate, some, np.arange(len(some)) % (tasks or max(len(some), 1)), stack)


def shifted(by: float) -> Params:
    """Theta that favours one class, whatever it is shown."""
    last = [name for name in THETA if name.endswith("bias")][-1]
    return {**THETA, last: THETA[last] + torch.tensor([by, -by])}


def test_the_loss_of_an_episode_is_that_of_its_query_set_after_adaptation() -> None:
    [one] = episodes(1)
    x, y = torch.from_numpy(one.support_x), torch.from_numpy(one.support_y)
    fast = LEARNER.adapt(THETA, Batch(x[None], y[None], torch.from_numpy(one.support_weight)[None]))
    outputs = LEARNER.predict(THETA, fast, torch.from_numpy(one.query_x)[None])[0]
    by_hand = torch.nn.functional.cross_entropy(outputs, torch.from_numpy(one.query_y).long())
    assert losses_after_adaptation(LEARNER, THETA, [one], stack)[0] == pytest.approx(float(by_hand), rel=1e-5)


def test_the_loss_does_not_depend_on_what_an_episode_is_padded_beside() -> None:
    some = episodes(BLOCK + 5)
    alone = [losses_after_adaptation(LEARNER, THETA, [one], stack)[0] for one in some]
    np.testing.assert_allclose(losses_after_adaptation(LEARNER, THETA, some, stack), alone, rtol=1e-5)


def test_theta_against_itself_passes() -> None:
    verdict = judge(THETA, THETA, episodes(20))
    assert not verdict.refused
    assert verdict.loss_before == verdict.loss_after
    assert verdict.episodes == 20


def test_a_candidate_that_is_worse_is_refused_and_the_other_way_round_it_passes() -> None:
    worse = shifted(4.0)
    assert judge(THETA, worse, episodes(40)).refused
    assert not judge(worse, THETA, episodes(40)).refused


def test_few_tasks_refuse_nothing() -> None:
    assert not judge(THETA, shifted(4.0), episodes(FEWEST - 1)).refused


def test_a_candidate_that_is_not_finite_is_refused_without_any_episode() -> None:
    broken = {**THETA, next(iter(LEARNER.learned)): torch.full_like(THETA[LEARNER.learned[0]], float("nan"))}
    assert judge(THETA, broken, []).refused


def test_without_episodes_a_candidate_passes() -> None:
    verdict = judge(THETA, shifted(4.0), [])
    assert (verdict.episodes, verdict.refused) == (0, False)


def test_tasks_are_counted_and_not_how_often_each_was_judged() -> None:
    """Enough episodes to refuse it, were each a task; of fewer tasks than say anything they refuse nothing."""
    some = episodes(8 * FEWEST)
    assert judge(THETA, shifted(4.0), some).refused
    assert not judge(THETA, shifted(4.0), some, tasks=FEWEST - 1).refused
    assert judge(THETA, shifted(4.0), some, tasks=FEWEST).refused


def test_a_task_judged_often_is_no_more_certain_than_one_judged_once() -> None:
    """A candidate that is worse for one task alone, which is judged a hundred times, is not worse for tasks."""
    spared = [replace(one, query_y=(one.query_x[:, 0] > 0).astype(np.float32)) for one in episodes(9)]
    hit = [replace(spared[0], query_y=np.ones(5, np.float32), support_y=one.support_y) for one in spared[:1]]
    some, task = [*spared[1:], *hit * 100], np.array([*range(1, 9), *[0] * 100])
    verdict = gate(LEARNER, THETA, shifted(0.3), some, task, stack)
    assert verdict.loss_after > verdict.loss_before
    assert not verdict.refused
    assert gate(LEARNER, THETA, shifted(0.3), some, np.arange(len(some)), stack).refused


@pytest.mark.parametrize("deviation", [0.1, 10.0])
def test_a_regression_is_judged_in_the_unit_of_its_labels_whatever_versions_count_in(
    deviation: float,
) -> None:
    """Labels of .5 and -.5, no support sets, and versions that say one number each, in two units."""
    learner = GradientLearner(replace(PROBLEM, target=Regression(-100.0, 100.0)))
    blank = learner.init(0)
    theta = blank | {name: torch.zeros_like(blank[name]) for name in learner.learned}
    none: dict[str, Any] = {
        "support_x": np.zeros((0, 2), np.float32),
        **dict.fromkeys(("support_y", "support_weight"), np.zeros(0)),
    }
    some = [replace(one, query_y=one.query_y - 0.5, **none) for one in episodes(40)]

    def saying(number: float, unit: float) -> Params:
        return {**theta, LABEL_MEAN: theta[LABEL_MEAN] + number, LABEL_STD: theta[LABEL_STD] * unit}

    def judged(before: float, after: float) -> Verdict:
        return gate(learner, saying(before, 1.0), saying(after, deviation), some, np.arange(len(some)), stack)

    assert judged(0.0, 0.0).loss_before == pytest.approx(0.25, rel=1e-3)
    assert judged(0.0, 0.0).loss_after == pytest.approx(0.25, rel=1e-3)
    assert not judged(5.0, 0.0).refused
    assert judged(0.0, 5.0).refused


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("count", [1, 7, 1000])
def test_a_number_that_is_not_finite_is_found_wherever_it_lies(broken: float, count: int) -> None:
    for place in (0, count // 2, count - 1):
        value = torch.linspace(-1, 1, count)
        assert is_finite(value)
        value[place] = broken
        assert not is_finite(value)
    assert is_finite(torch.zeros(0))
