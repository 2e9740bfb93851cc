"""The transformer over a support set: attention by a slow loop over one task, and what may not matter to it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from engine.learners.base import fast_size
from engine.learners.matching import MatchingLearner
from engine.learners.transformer import TransformerLearner
from engine.problem import Problem
from engine.targets import Regression
from engine.types import Batch, EngineError, Episodes, Params
from tests.engine import embedding_learners as common
from tests.engine.embedding_learners import (
    EPISODIC,
    NAMED,
    NUMBER,
    PROBLEMS,
    gapped,
    outputs,
    queries,
    stirred,
)

transformer = partial(TransformerLearner, width=4, heads=2)


# By hand


def moved(
    block: Any, x: torch.Tensor, tokens: Iterable[torch.Tensor], mass: list[float], bias: list[torch.Tensor]
) -> torch.Tensor:
    """One vector x [D] by M tokens, head by head; bias: of each token, by head."""
    width, size = len(x), len(x) // block.heads
    query, normed = block.query(block.norm(x)), [block.norm_tokens(token) for token in tokens]
    read = []
    for head in range(block.heads):
        part = slice(head * size, (head + 1) * size)
        keys = [F.linear(token, block.key_value.weight[:width])[part] for token in normed]
        values = [F.linear(token, block.key_value.weight[width:])[part] for token in normed]
        scores = [query[part] @ key / size**0.5 + b[head] for key, b in zip(keys, bias, strict=True)]
        weights = common.shares(scores, mass)
        read.append(torch.stack([w * value for w, value in zip(weights, values, strict=True)]).sum(0))
    x = x + block.joined(torch.cat(read))
    moved_on: torch.Tensor = x + block.network(x)
    return moved_on


@torch.no_grad()
def slowly(
    learner: TransformerLearner, theta: Params, batch: Batch, task: int, x: torch.Tensor
) -> torch.Tensor:
    """Outputs of one query of one task."""
    target = learner.problem.target
    own, tokens, y, mass, q = common.of_one_task(learner, theta, batch, task, x)
    nothing = torch.zeros(learner.heads)
    if isinstance(target, Regression):
        tokens = tokens + own.examples.label(y[:, None])
    elif not target.exchangeable:
        tokens = tokens + own.examples.label.weight[y.long()]
    for depth, block in enumerate(own.examples.blocks):
        alike = nothing if isinstance(target, Regression) else own.examples.alike[depth].flatten()
        biases = [[alike if a == b else nothing for b in y] for a in y]
        tokens = torch.stack([moved(block, t, tokens, mass, b) for t, b in zip(tokens, biases, strict=True)])
    keys, labels, mass = common.after_those_of_theta(own.match, target, tokens, y, mass)
    for block in own.queries.blocks:
        q = moved(block, q, keys, mass, [nothing] * len(keys))
    return common.matched(own.match, target, q, keys, labels, mass)


@PROBLEMS
def test_examples_attend_to_each_other_and_queries_to_examples(problem: Problem) -> None:
    common.assert_predicts_as(slowly, transformer(problem))


def test_it_begins_as_a_matching_network_without_context() -> None:
    learner, plain = transformer(EPISODIC), MatchingLearner(EPISODIC, width=4, full_context=False)
    theta, batch, x = learner.init(0), gapped(), queries()
    same = {name: theta[name] for name in plain.init(0)}
    assert torch.equal(outputs(learner, theta, batch, x), outputs(plain, same, batch, x))


# What may not matter


@PROBLEMS
def test_neither_the_order_of_the_examples_matters_nor_where_padding_is(problem: Problem) -> None:
    learner, batch, x = transformer(problem), gapped(), queries()
    theta = stirred(learner)
    turned = Batch(*(part[:, [4, 3, 1, 0]] for part in batch))
    torch.testing.assert_close(outputs(learner, theta, batch, x), outputs(learner, theta, turned, x))


def test_classes_renamed_are_outputs_renamed() -> None:
    common.assert_classes_renamed_are_outputs_renamed(transformer(EPISODIC))


def test_which_examples_are_of_one_class_matters_to_all_of_them() -> None:
    learner, batch = transformer(EPISODIC), gapped()
    theta = stirred(learner)
    regrouped = batch._replace(y=torch.tensor([0.0, 0, 2, 1, 1]).expand(2, 5))
    one, other = (common.adapted(learner, theta, part)["keys"] for part in (batch, regrouped))
    assert bool((one - other).abs().amax(-1)[:, [0, 1, 3, 4]].gt(1e-4).all())


# What theta knows, and what a row holds


def test_of_exchangeable_classes_without_examples_nothing_is_known() -> None:
    learner = transformer(EPISODIC)
    known = learner.shared(stirred(learner), queries(1)[0])
    torch.testing.assert_close(torch.softmax(known, 1), torch.full((3, 3), 1 / 3))


def test_without_examples_each_query_is_predicted_from_what_theta_brings() -> None:
    for problem in (NAMED, NUMBER):
        learner = transformer(problem)
        known = learner.shared(stirred(learner), queries(1)[0])
        assert bool((known[0] != known[1]).all())


@pytest.mark.parametrize("sizes", [{"depth": 0}, {"heads": 0}, {"heads": 3}])
def test_sizes_that_make_no_transformer_are_refused(sizes: dict[str, int]) -> None:
    with pytest.raises(EngineError, match="heads divide width"):
        TransformerLearner(NAMED, **{"width": 4, **sizes})


def test_a_task_keeps_a_token_a_label_and_a_mass_for_each_place_however_deep() -> None:
    problem = replace(NAMED, support=25)
    assert fast_size(transformer(problem, depth=3)) == 32 * (4 + 2)


# Conformance and training


@PROBLEMS
def test_the_gradient_is_that_of_finite_differences(problem: Problem) -> None:
    common.assert_gradient_is_that_of_finite_differences(transformer(problem))


def test_training_learns_what_makes_examples_alike() -> None:
    learner = TransformerLearner(EPISODIC, width=16, depth=1)
    early, late = common.losses_early_and_late(learner, common.one_column_tells())
    assert late < 0.5 < 0.9 < early, (early, late)


def test_training_learns_a_family_of_lines() -> None:
    """A task is a line of its own slope through the middle, told by four points; the mean of them tells nothing."""
    learner, generator = TransformerLearner(NUMBER, width=16, depth=1), torch.Generator().manual_seed(0)

    def line(slopes: torch.Tensor, count: int) -> Batch:
        x = torch.rand(16, count, 2, generator=generator) * 2 - 1
        return Batch(x, 1 + slopes * x[..., 0], torch.full((16, count), 1 / count))

    slopes = torch.rand(100, 16, 1, generator=generator) * 4 - 2
    episodes = [Episodes(line(one, 4), line(one, 8)) for one in slopes]
    _, late = common.losses_early_and_late(learner, episodes)
    assert late < 0.2, late
