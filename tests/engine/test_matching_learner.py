"""Matching networks: attention and both contexts by a slow loop over one task, and what theta brings of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from engine.learners.base import fast_size
from engine.learners.embedding import EmbeddingLearner
from engine.learners.matching import MatchingLearner
from engine.learners.transformer import TransformerLearner
from engine.outer.backprop import Backprop
from engine.problem import Problem
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

matching = partial(MatchingLearner, width=4)
alone = partial(matching, full_context=False)


# By hand


def bidirectional(context: Any, width: int) -> nn.LSTM:
    """Torch's own LSTM over a sequence, with the values of two cells."""
    lstm = nn.LSTM(width, width, bidirectional=True)
    for cell, end in ((context.onward, ""), (context.backward, "_reverse")):
        for name, value in cell.named_parameters():
            getattr(lstm, f"{name}_l0{end}").data = value.data
    return lstm


def in_context(
    cell: nn.LSTMCell, f: torch.Tensor, keys: list[torch.Tensor], mass: list[float], reads: int
) -> torch.Tensor:
    h, c = f, torch.zeros_like(f)
    for _ in range(reads):
        weights = common.shares([h @ key / len(f) ** 0.5 for key in keys], mass)
        read = torch.stack([weight * key for weight, key in zip(weights, keys, strict=True)]).sum(0)
        step, c = cell(torch.cat([f, read]), (h, c))
        h = f + step
    return h


@torch.no_grad()
def slowly(learner: MatchingLearner, theta: Params, batch: Batch, task: int, x: torch.Tensor) -> torch.Tensor:
    """Outputs of one query of one task."""
    own, keys, labels, mass, f = common.of_one_task(learner, theta, batch, task, x)
    if learner.full_context:
        both, _ = bidirectional(own.support, learner.width)(keys)
        keys = keys + both[:, : learner.width] + both[:, learner.width :]
    all_keys, y, mass = common.after_those_of_theta(own.match, learner.problem.target, keys, labels, mass)
    if learner.full_context:
        f = in_context(own.query.cell, f, all_keys, mass, learner.reads)
    return common.matched(own.match, learner.problem.target, f, all_keys, y, mass)


@PROBLEMS
@pytest.mark.parametrize("full_context", [True, False])
def test_a_query_takes_labels_by_attention(problem: Problem, full_context: bool) -> None:
    common.assert_predicts_as(slowly, matching(problem, full_context=full_context))


# The support set


def test_places_without_an_example_are_stepped_over_wherever_they_are() -> None:
    learner, x = matching(NAMED), queries()
    theta, batch = stirred(learner), gapped()
    without = Batch(*(torch.cat([part[:, :2], part[:, 3:]], 1) for part in batch))
    torch.testing.assert_close(outputs(learner, theta, batch, x), outputs(learner, theta, without, x))


def test_without_context_the_order_of_the_examples_does_not_matter() -> None:
    batch, x = gapped(), queries()
    turned = Batch(*(part[:, [4, 3, 2, 1, 0]] for part in batch))
    for learner, alike in ((alone(NAMED), True), (matching(NAMED), False)):
        theta = stirred(learner)
        here, there = (outputs(learner, theta, one, x) for one in (batch, turned))
        assert torch.allclose(here, there, atol=1e-5) is alike


def test_an_example_of_twice_the_weight_counts_twice() -> None:
    learner, x, y = alone(EPISODIC), torch.randn(1, 3, 2), torch.tensor([[0.0, 1, 2]])
    theta, twice = stirred(learner), [0, 0, 1, 2]
    weighed = Batch(x, y, torch.tensor([[0.5, 0.25, 0.25]]))
    repeated = Batch(x[:, twice], y[:, twice], torch.full((1, 4), 0.25))
    torch.testing.assert_close(
        outputs(learner, theta, weighed, queries(1)), outputs(learner, theta, repeated, queries(1))
    )


def test_classes_renamed_are_outputs_renamed() -> None:
    common.assert_classes_renamed_are_outputs_renamed(matching(EPISODIC))


def test_a_class_without_an_example_is_unlikely_and_still_costs_a_finite_loss() -> None:
    learner, batch = matching(EPISODIC), gapped()
    theta = learner.init(0)
    query = Batch(queries(), torch.tensor([[0.0, 1, 2]] * 2), torch.full((2, 3), 1 / 3))
    found = outputs(learner, theta, batch, query.x)
    assert bool((found[..., 2] < found[..., :2].amin(-1) - 10).all())
    moves, report = Backprop()(learner, theta, Episodes(batch, query))
    assert report.query_loss_after > 20
    assert all(bool(value.isfinite().all()) for value in moves.values())


def test_of_exchangeable_classes_without_examples_nothing_is_known() -> None:
    learner = matching(EPISODIC)
    known = learner.shared(learner.init(0), queries(1)[0])
    torch.testing.assert_close(torch.softmax(known, 1), torch.full((3, 3), 1 / 3))


def test_a_regression_without_examples_is_what_the_head_says() -> None:
    learner = alone(NUMBER)
    theta, x = stirred(learner), queries(1)[0]
    embedded = learner.embed(theta, x[None])[0]
    said = embedded @ theta["2.match.head.weight"].T + theta["2.match.head.bias"]
    torch.testing.assert_close(learner.shared(theta, x), common.in_unit_of_labels(learner, theta, said))


@pytest.mark.parametrize("kind", [matching, partial(TransformerLearner, width=4, heads=2)])
def test_more_examples_than_were_expected_are_compared_with_as_all_others(
    kind: Callable[[Problem], EmbeddingLearner],
) -> None:
    expecting, roomy = kind(NAMED), kind(replace(NAMED, support=16))
    x = torch.randn(2, 11, 2, generator=torch.Generator().manual_seed(2))
    batch = Batch(x, torch.arange(11.0).expand(2, 11) % 3, torch.full((2, 11), 1 / 11))
    theta = stirred(roomy)
    torch.testing.assert_close(
        outputs(expecting, theta, batch, queries()), outputs(roomy, theta, batch, queries())
    )


def test_a_query_that_never_reads_is_refused() -> None:
    with pytest.raises(EngineError, match="reads"):
        matching(NAMED, reads=0)


def test_a_task_keeps_a_key_a_label_and_a_mass_for_each_place() -> None:
    assert fast_size(matching(replace(NAMED, support=25))) == 32 * (4 + 2)


# Conformance and training


@PROBLEMS
def test_the_gradient_is_that_of_finite_differences(problem: Problem) -> None:
    common.assert_gradient_is_that_of_finite_differences(matching(problem))


@pytest.mark.parametrize("full_context", [True, False])
def test_training_learns_what_makes_examples_alike(full_context: bool) -> None:
    learner = MatchingLearner(EPISODIC, width=16, full_context=full_context)
    early, late = common.losses_early_and_late(learner, common.one_column_tells())
    assert late < 0.5 < 0.9 < early
