"""Prototypical networks: class means by hand, classes that are absent, and theta's own examples."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch

from engine.features.columns import Numeric
from engine.features.encoder import Features
from engine.learners.prototype import PrototypeLearner
from engine.networks.mlp import mlp
from engine.outer.backprop import Backprop
from engine.outer.descent import FitSettings
from engine.outer.fit import fit, start
from engine.problem import Problem
from engine.targets import Classification, Regression
from engine.types import Batch, EngineError, Episodes

NAMED = Problem(
    Features((Numeric("a"), Numeric("b"))),
    Classification(("x", "y", "z")),
    partial(mlp, hidden=(8,)),
    support=8,
)
EPISODIC = replace(NAMED, target=Classification(("x", "y", "z"), exchangeable=True))


def support(tasks: int = 2) -> Batch:
    """Class 2 has no example; the last example is padding."""
    x = torch.randn(tasks, 5, 2, generator=torch.Generator().manual_seed(0))
    y = torch.tensor([0.0, 1, 0, 1, 2]).expand(tasks, 5)
    return Batch(x, y, torch.tensor([0.1, 0.2, 0.4, 0.3, 0]).expand(tasks, 5))


def by_hand(
    learner: PrototypeLearner, theta: dict[str, torch.Tensor], batch: Batch, task: int, x: torch.Tensor
) -> tuple[Any, Any]:
    """Embeddings of one task's examples and query by plain torch modules."""
    model = learner._built(0)
    model.load_state_dict(theta)
    return model[1](model[0](batch.x[task])), model[1](model[0](x))


def test_a_query_is_as_far_from_a_class_as_from_the_mean_of_its_examples() -> None:
    learner = PrototypeLearner(EPISODIC, width=4)
    theta, batch, x = learner.init(0), support(), torch.randn(2, 3, 2)
    outputs = learner.predict(theta, learner.adapt(theta, batch), x)
    for task in range(2):
        embedded, queries = by_hand(learner, theta, batch, task, x[task])
        centres = torch.stack([embedded[[0, 2]].mean(0), embedded[[1, 3]].mean(0)])
        expected = torch.log_softmax(-torch.cdist(queries, centres).square(), -1)
        found = torch.log_softmax(outputs[task], -1)
        torch.testing.assert_close(found[:, :2], expected, atol=1e-4, rtol=1e-4)
        assert bool((found[:, 2] < -1000).all())


def test_where_classes_have_names_theta_brings_an_example_of_each() -> None:
    learner = PrototypeLearner(NAMED, width=4)
    theta, batch, x = learner.init(0), support(), torch.randn(2, 3, 2)
    theta["2.log_weight"] = torch.tensor(0.7)
    theta["2.bias"] = torch.tensor([0.1, 0.2, -0.3])
    outputs = learner.predict(theta, learner.adapt(theta, batch), x)
    weight, own = torch.tensor(0.7).exp(), theta["2.prototypes"]
    for task in range(2):
        embedded, queries = by_hand(learner, theta, batch, task, x[task])
        centres = torch.stack(
            [
                (weight * own[0] + embedded[[0, 2]].sum(0)) / (weight + 2),
                (weight * own[1] + embedded[[1, 3]].sum(0)) / (weight + 2),
                own[2],
            ]
        )
        expected = theta["2.bias"] - torch.cdist(queries, centres).square()
        torch.testing.assert_close(outputs[task], expected, atol=1e-4, rtol=1e-4)


def test_of_exchangeable_classes_without_examples_nothing_is_known() -> None:
    learner = PrototypeLearner(EPISODIC, width=4)
    theta = learner.init(0)
    torch.testing.assert_close(
        torch.softmax(learner.shared(theta, torch.randn(5, 2)), 1), torch.full((5, 3), 1 / 3)
    )
    assert not any(name.startswith("2.") for name in theta)


def test_the_gradient_reaches_support_and_query_through_one_network() -> None:
    learner = PrototypeLearner(NAMED, width=4)
    batch = support()
    query = Batch(torch.randn(2, 3, 2), torch.tensor([[0.0, 1, 2]] * 2), torch.full((2, 3), 1 / 3))
    moves, report = Backprop()(learner, learner.init(0), Episodes(batch, query))
    assert all(bool(value.any()) for value in moves.values())
    assert report.query_loss_after > 0


def test_training_brings_classes_together() -> None:
    learner = PrototypeLearner(EPISODIC, width=4)
    generator = torch.Generator().manual_seed(0)

    def episodes() -> Iterator[Episodes]:
        for _ in range(60):
            centre = torch.randn(16, 3, 2, generator=generator)
            sides = (
                centre.repeat_interleave(count, 1) + 0.1 * torch.randn(16, 3 * count, 2, generator=generator)
                for count in (1, 4)
            )
            yield Episodes(
                *(
                    Batch(x, torch.arange(3.0).repeat_interleave(x.shape[1] // 3).expand(16, -1),
                          torch.full(x.shape[:2], 1 / x.shape[1]))
                    for x in sides
                )
            )  # fmt: skip

    _, rounds = fit(learner, Backprop(), episodes(), start(learner, 0), FitSettings(lr=0.01))
    early, late = ([r.report.query_loss_after for r in part] for part in (rounds[:5], rounds[-5:]))
    assert sum(late) < 0.7 * sum(early)


def test_a_regression_has_no_prototypes() -> None:
    with pytest.raises(EngineError, match="prototypes need classes"):
        PrototypeLearner(replace(NAMED, target=Regression(0, 1)))


def test_an_embedding_of_nothing_is_refused() -> None:
    with pytest.raises(EngineError, match="width"):
        PrototypeLearner(NAMED, width=0)


@pytest.mark.parametrize("scale", [1.0, 100.0, 1000.0])
def test_the_nearest_class_is_told_at_any_distance_where_another_is_absent(scale: float) -> None:
    problem = replace(EPISODIC, network=lambda inputs, outputs: torch.nn.Identity())
    learner = PrototypeLearner(problem, width=2)
    rows = scale * torch.tensor([[[0.0, 0.0], [1.0, 0.0]]])
    fast = {"sums": torch.cat([rows, torch.zeros(1, 1, 2)], 1), "counts": torch.tensor([[1.0, 1.0, 0.0]])}
    embedded = learner.of_embeddings()
    outputs = embedded.predict(learner.init(0), fast, scale * torch.tensor([[[1.0, 1.0], [-1.0, 1.0]]]))
    assert outputs.argmax(-1).tolist() == [[1, 0]]
    assert bool((outputs.max(-1).values == 0).all())
