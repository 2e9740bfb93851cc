"""Wide and deep: begins as nothing, and is the sum of a linear model of every feature and a network."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor

from engine.features.columns import MAX_TEXT_IDS, Category, Numeric, Text
from engine.features.encoder import Features
from engine.features.history import History
from engine.learners.gradient import GradientLearner
from engine.networks.mlp import mlp
from engine.problem import Problem
from engine.targets import Classification, Regression
from engine.types import Batch

PROBLEM = Problem(
    Features((Text("t", 32, 2), Numeric("n"), Category("c", 8, 3))),
    Classification(("x", "y", "z")),
    network=partial(mlp, hidden=(5,)),
    wide=True,
)
TARGETS = [PROBLEM.target, Regression(-1.0, 1.0)]


def rows(problem: Problem, count: int = 6) -> Tensor:
    g = torch.Generator().manual_seed(1)
    text = torch.randint(1, 32, (count, MAX_TEXT_IDS), generator=g) * (torch.arange(MAX_TEXT_IDS) < 4)
    parts = [text, torch.randn(count, 1, generator=g), torch.randint(8, (count, 1), generator=g)]
    past = torch.randint(4, (count, problem.width - problem.features.width), generator=g)
    return torch.cat([*(part.float() for part in parts), past.float()], 1)


@pytest.mark.parametrize("history", [None, History(by=("c",), numbers=("n",))], ids=["alone", "with history"])
@pytest.mark.parametrize("target", TARGETS, ids=["classes", "values"])
def test_wide_and_deep_begins_by_saying_nothing(
    target: Classification | Regression, history: History | None
) -> None:
    learner = GradientLearner(replace(PROBLEM, target=target, history=history))
    theta = learner.init(4)
    assert not learner.shared(theta, rows(learner.problem)).any()
    zero = {name for name in learner.learned if not theta[name].any()}
    head = [name for name in learner.learned if name.startswith("1.network.")][-2:]
    tables = {name for name in learner.learned if name.startswith(("0.embeddings.", "0.wide."))}
    assert zero >= {"1.linear.weight", "1.linear.bias", *head, *tables}


def test_its_hidden_layers_do_not_begin_at_zero_or_nothing_would_ever_be_learned() -> None:
    theta = GradientLearner(PROBLEM).init(4)
    assert theta["1.network.0.weight"].abs().mean() > 0.05


def test_outputs_are_bias_and_weights_of_buckets_and_of_numbers_and_the_network_added() -> None:
    learner = GradientLearner(PROBLEM)
    theta, x, g = learner.init(4), rows(PROBLEM), torch.Generator().manual_seed(2)
    for name in learner.learned:
        theta[name] = theta[name] + 0.3 * torch.randn(theta[name].shape, generator=g)
    # Tables are in the order categories, texts; as is what the network reads.
    text, c = x[:, :MAX_TEXT_IDS].long(), x[:, -1].long()
    dense = torch.cat(
        [
            x[:, [MAX_TEXT_IDS]],
            theta["0.embeddings.0.weight"][c],
            theta["0.embeddings.1.weight"][text[:, :4]].mean(1),
        ],
        1,
    )
    network = mlp(dense.shape[1], 3, hidden=(5,))
    network.load_state_dict(
        {n.removeprefix("1.network."): v for n, v in theta.items() if n.startswith("1.network.")}
    )
    expected = theta["1.linear.bias"] + x[:, [MAX_TEXT_IDS]] @ theta["1.linear.weight"].T
    expected = (
        expected
        + theta["0.wide.0.weight"][c]
        + theta["0.wide.1.weight"][text[:, :4]].mean(1)
        + network(dense)
    )
    torch.testing.assert_close(learner.shared(theta, x), expected.detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("adapts", ["head", "head+norms", "all"])
def test_the_linear_part_adapts_with_the_head_and_the_buckets_weights_do_not(adapts: str) -> None:
    learner = GradientLearner(replace(PROBLEM, adapts=adapts))
    assert {"1.linear.weight", "1.linear.bias"} <= set(learner.fast_shapes)
    assert not any(name.startswith("0.") for name in learner.fast_shapes)


def test_it_adapts_from_nothing_towards_the_labels_of_a_task() -> None:
    learner = GradientLearner(PROBLEM)
    theta, x = learner.init(0), rows(PROBLEM)
    fast = learner.adapt(theta, Batch(x[None], torch.full((1, 6), 2.0), torch.full((1, 6), 1 / 6)))
    assert (learner.predict(theta, fast, x[None])[0].argmax(1) == 2).all()
