"""Theta's deviation of labels is the unit of a regression, inside every learner; what comes out is in the user's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor

from engine.features.columns import Numeric
from engine.features.encoder import Features
from engine.learners.base import LABEL_MEAN, LABEL_STD, Learner, example_losses, flatten
from engine.learners.gradient import GradientLearner
from engine.learners.matching import MatchingLearner
from engine.learners.memory import MemoryLearner
from engine.learners.snail import SnailLearner
from engine.learners.transformer import TransformerLearner
from engine.networks.mlp import mlp
from engine.problem import InnerLoop, Problem
from engine.targets import Regression
from engine.types import Batch, Params

PROBLEM = Problem(
    Features((Numeric("a"), Numeric("b"))),
    Regression(-4.0, 8.0),
    partial(mlp, hidden=(8,)),
    inner=InnerLoop(steps=3),
    support=8,
)
LEARNERS: dict[str, Callable[[Problem], Learner]] = {
    "gradient": GradientLearner,
    "matching": partial(MatchingLearner, width=6),
    "memory": partial(MemoryLearner, width=6, slots=4),
    "snail": partial(SnailLearner, width=6, filters=4),
    "transformer": partial(TransformerLearner, width=8, depth=1, heads=2),
}
every_learner = pytest.mark.parametrize("name", LEARNERS)


def moved(learner: Learner, mean: float, std: float) -> Params:
    """A theta in which nothing is zero, with statistics of labels."""
    theta, g = learner.init(3), torch.Generator().manual_seed(5)
    for key in learner.learned:
        theta[key] = theta[key] + 0.2 * torch.randn(theta[key].shape, generator=g)
    return theta | {LABEL_MEAN: torch.tensor(mean), LABEL_STD: torch.tensor(std)}


def examples() -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 6, 2, generator=g), torch.rand(2, 6, generator=g) * 12 - 4
    return x, y, torch.tensor([0.2, 0.2, 0, 0.3, 0.3, 0]).expand(2, 6)


@every_learner
def test_in_another_unit_the_same_theta_says_the_same_in_that_unit(name: str) -> None:
    x, y, weight = examples()
    said = []
    for unit, zero in ((1.0, 0.0), (10.0, 300.0)):
        problem = replace(PROBLEM, target=Regression(-4 * unit + zero, 8 * unit + zero))
        learner = LEARNERS[name](problem)
        theta = moved(learner, 1.5 * unit + zero, 2.5 * unit)
        fast = learner.adapt(theta, Batch(x, y * unit + zero, weight))
        adapted, alone = learner.predict(theta, fast, x), learner.shared(theta, x[0])
        said.append([(part - zero) / unit for part in (adapted, alone)])
    for mine, its in zip(*said, strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-3, atol=1e-3)


@every_learner
def test_what_is_standardised_is_neither_the_range_nor_nothing(name: str) -> None:
    """The range says nothing to a learner; the statistics do."""
    x, y, weight = examples()
    wider = LEARNERS[name](replace(PROBLEM, target=Regression(-4e3, 8e3)))
    learner = LEARNERS[name](PROBLEM)
    theta, other = moved(learner, 1.5, 2.5), moved(learner, 0.0, 1.0)
    support = Batch(x, y, weight)
    mine, its = (one.predict(theta, one.adapt(theta, support), x) for one in (learner, wider))
    torch.testing.assert_close(mine, its, rtol=1e-4, atol=1e-4)
    assert (learner.shared(theta, x[0]) - learner.shared(other, x[0])).abs().min() > 0.01


@every_learner
def test_training_descends_losses_in_units_of_the_deviation_of_labels(name: str) -> None:
    learner = LEARNERS[name](PROBLEM)
    outputs, y = torch.tensor([[[3.0], [1.0]]]), torch.tensor([[1.0, 1.0]])
    assert example_losses(PROBLEM, moved(learner, 0.0, 4.0), outputs, y).tolist() == [[0.25, 0.0]]


@every_learner
def test_recorded_and_differentiable_adaptation_agree_on_standardised_labels(name: str) -> None:
    x, y, weight = examples()
    learner = LEARNERS[name](PROBLEM)
    theta, support = moved(learner, 1.5, 2.5), Batch(x, y, weight)
    plain = learner.adapt_differentiably(theta, support, second_order=False)
    torch.testing.assert_close(flatten(learner.adapt(theta, support)), flatten(plain), rtol=1e-4, atol=1e-5)
