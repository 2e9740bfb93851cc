"""An episode's examples split anew into support and query set, and trained on in every split at once."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch

from engine.batches import resplit
from engine.features.columns import Numeric
from engine.features.encoder import Features
from engine.learners.gradient import GradientLearner
from engine.learners.matching import MatchingLearner
from engine.learners.prototype import PrototypeLearner
from engine.networks.mlp import mlp
from engine.outer.backprop import Backprop
from engine.problem import Problem
from engine.targets import Classification, Regression
from engine.types import Batch, EngineError, Episodes

PROBLEM = Problem(
    Features((Numeric("a"),)), Classification((0, 1, 2), exchangeable=True), partial(mlp, hidden=(4,))
)


def episode() -> Episodes:
    """Classes 0, 1 and 2 with 1 support and 2, 3 and 1 query examples; every example is a number of its own."""
    support = Batch(
        torch.tensor([[[0.0], [10], [20]]]), torch.tensor([[0.0, 1, 2]]), torch.full((1, 3), 1 / 3)
    )
    query = Batch(
        torch.tensor([[[11.0], [1], [21], [12], [2], [13], [99]]]),
        torch.tensor([[1.0, 0, 2, 1, 0, 1, 0]]),
        torch.tensor([[1 / 6] * 6 + [0]]),
    )
    return Episodes(support, query)


def examples(side: Batch) -> list[int]:
    return sorted(int(x) for x, w in zip(side.x[0, :, 0], side.weight[0], strict=True) if w > 0)


@pytest.mark.parametrize(
    ("turn", "support"), [(0, [0, 10, 20]), (1, [1, 11, 21]), (2, [2, 12, 20]), (3, [0, 13, 21])]
)
def test_each_example_of_a_class_takes_its_turn_in_the_support_set(turn: int, support: list[int]) -> None:
    after = resplit(episode(), turn)
    assert examples(after.support) == support
    everything = sorted(examples(episode().support) + examples(episode().query))
    assert sorted(examples(after.support) + examples(after.query)) == everything
    for side in after:
        torch.testing.assert_close(side.weight.sum(1), torch.ones(1))
        for x, y, w in zip(side.x[0, :, 0], side.y[0], side.weight[0], strict=True):
            assert w == 0 or int(x) // 10 == int(y)


def test_every_split_keeps_the_weight_of_each_class() -> None:
    support, query = episode()
    weighed = Episodes(support._replace(weight=torch.tensor([[0.1, 0.6, 0.3]])), query)
    for turn in range(3):
        for side, before in zip(resplit(weighed, turn), weighed, strict=True):
            for k in range(3):
                torch.testing.assert_close(side.weight[side.y == k].sum(), before.weight[before.y == k].sum())


def test_training_in_all_splits_at_once_is_training_on_each() -> None:
    learner = PrototypeLearner(PROBLEM, width=4)
    theta = learner.init(0)
    together, report = Backprop(splits=3)(learner, theta, episode())
    apart = [Backprop()(learner, theta, resplit(episode(), turn)) for turn in range(3)]
    for name, value in together.items():
        torch.testing.assert_close(value, sum(moves[name] for moves, _ in apart) / 3)
    assert report.query_loss_after == pytest.approx(sum(r.query_loss_after for _, r in apart) / 3, rel=1e-5)


def test_a_learner_that_embeds_nothing_has_nothing_to_split() -> None:
    learner = GradientLearner(replace(PROBLEM, adapts="all"))
    with pytest.raises(EngineError, match="leave splits at 1"):
        Backprop(splits=2)(learner, learner.init(0), episode())


def test_no_split_is_refused() -> None:
    with pytest.raises(EngineError, match="at least 1"):
        Backprop(splits=0)


def test_a_learner_of_embeddings_adapts_on_what_is_embedded_already() -> None:
    learner = PrototypeLearner(PROBLEM, width=4)
    theta, (support, query) = learner.init(0), episode()
    outputs = learner.predict(theta, learner.adapt(theta, support), query.x)
    reader = learner.of_embeddings()
    fast = reader.adapt(theta, support._replace(x=learner.embed(theta, support.x)))
    torch.testing.assert_close(reader.predict(theta, fast, learner.embed(theta, query.x)), outputs)


def test_a_regression_has_no_classes_to_split_by() -> None:
    learner = MatchingLearner(replace(PROBLEM, target=Regression(0, 1)), width=4)
    with pytest.raises(EngineError, match="a regression has none"):
        Backprop(splits=2)(learner, learner.init(0), episode())
