"""Outer rules against arithmetic by hand, plain loops of torch, and finite differences."""

from __future__ import annotations

import gc
import math
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from functools import partial
from typing import Literal, cast

import pytest
import torch
from torch import Tensor, nn

from engine.features.columns import Category, Numeric
from engine.features.encoder import Features
from engine.learners.base import Learner
from engine.learners.gradient import GradientLearner
from engine.learners.prototype import PrototypeLearner
from engine.outer.backprop import Backprop
from engine.outer.base import OuterRule, query_loss
from engine.outer.descent import FitSettings
from engine.outer.fit import fit, start
from engine.outer.implicit import Implicit
from engine.outer.pooled import Pooled
from engine.outer.reptile import Reptile
from engine.problem import InnerLoop, Problem
from engine.targets import Classification, Regression
from engine.types import Batch, EngineError, Episodes, Params

RULES: tuple[OuterRule, ...] = (Backprop(), Backprop(first_order=False), Reptile(), Pooled(), Implicit())
MAML = Backprop(first_order=False)
Rates = Literal["fixed", "learned"]
TASKS = 4


def smooth(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, 6), nn.LayerNorm(6), nn.Tanh(), nn.Linear(6, outputs))


def learner(
    adapts: str = "head+norms", clip: float = 0.3, rule: OuterRule = MAML, rates: Rates = "fixed"
) -> GradientLearner:
    features = Features((Numeric("amount"), Category("country", buckets=4, embedding=2)))
    proximal = 5.0 if isinstance(rule, Implicit) else 0.0
    inner = InnerLoop(steps=3, lr=0.2, clip=clip, rates=rates, proximal=proximal)
    return GradientLearner(Problem(features, Classification((0, 1)), smooth, adapts=adapts, inner=inner))


def theta_of(subject: GradientLearner) -> Params:
    return {name: value.double() for name, value in subject.init(0).items()}


def batch(examples: int, seed: int, tasks: int = TASKS) -> Batch:
    g = torch.Generator().manual_seed(seed)
    numbers = torch.randn(tasks, examples, 1, generator=g)
    countries = torch.randint(4, (tasks, examples, 1), generator=g)
    y = torch.randint(2, (tasks, examples), generator=g).double()
    weight = torch.full((tasks, examples), 1 / max(examples, 1), dtype=torch.float64)
    return Batch(torch.cat([numbers, countries], -1).double(), y, weight)


def episodes() -> Episodes:
    return Episodes(batch(5, seed=1), batch(7, seed=2))


def padded(batch: Batch, by: int) -> Batch:
    return Batch(*(torch.cat([v, v.new_zeros(v.shape[0], by, *v.shape[2:])], 1) for v in batch))


def task(episodes: Episodes, at: int) -> Episodes:
    return Episodes(*(Batch(*(value[at : at + 1] for value in side)) for side in episodes))


def assert_same(a: Params, b: Params, tolerance: float = 1e-9) -> None:
    assert set(a) == set(b)
    for name in a:
        torch.testing.assert_close(
            a[name], b[name], rtol=tolerance, atol=tolerance, msg=partial("{}: {}".format, name)
        )


@pytest.mark.parametrize(
    ("adapts", "rates", "clip"),
    [
        pytest.param("all", "fixed", 0.05, id="MAML, clipped"),
        pytest.param("all", "fixed", 100.0, id="MAML"),
        pytest.param("head", "fixed", 100.0, id="ANIL"),
        pytest.param("head+norms", "fixed", 0.05, id="head+norms, clipped"),
        pytest.param("head+norms", "learned", 0.05, id="Meta-SGD, clipped"),
    ],
)
def test_the_second_order_gradient_is_the_derivative_by_finite_differences(
    adapts: str, rates: Rates, clip: float
) -> None:
    subject, cases = learner(adapts, clip, rates=rates), episodes()
    theta = theta_of(subject)
    gradient, _ = MAML(subject, theta, cases)

    def loss(name: str, at: int, shift: float) -> float:
        moved = theta[name].clone()
        moved.view(-1)[at] += shift
        meta = {**theta, name: moved}
        return float(query_loss(subject, meta, subject.adapt(meta, cases.support), cases))

    for name in subject.learned:
        for at in range(theta[name].numel()):
            difference = (loss(name, at, 1e-6) - loss(name, at, -1e-6)) / 2e-6
            assert gradient[name].view(-1)[at].item() == pytest.approx(difference, rel=1e-5, abs=1e-8)


def first_order_by_hand(subject: GradientLearner, theta: Params, cases: Episodes) -> Params:
    """One deep copy a task, adapted by torch's SGD; then the query loss's gradient in the copy."""
    total = {name: torch.zeros_like(theta[name]) for name in subject.learned}
    model = subject.problem.model().double()
    model.load_state_dict(theta)
    for at in range(TASKS):
        copy, (support, query) = deepcopy(model), task(cases, at)
        moving = [copy.get_parameter(name) for name in subject.fast_shapes]
        optimizer = torch.optim.SGD(moving, lr=float(subject.problem.inner.lr))
        for _ in range(subject.problem.inner.steps):
            optimizer.zero_grad()
            subject.problem.target.loss(copy(support.x[0]), support.y[0]).mean().backward()
            nn.utils.clip_grad_norm_(moving, subject.problem.inner.clip)
            optimizer.step()
        copy.zero_grad()
        subject.problem.target.loss(copy(query.x[0]), query.y[0]).mean().backward()
        for name in total:
            gradient = copy.get_parameter(name).grad
            assert gradient is not None
            total[name] += gradient / TASKS
    return total


@pytest.mark.parametrize("adapts", ["head", "head+norms", "all"])
def test_the_first_order_gradient_is_that_of_a_plain_loop_over_copies(adapts: str) -> None:
    subject, cases = learner(adapts), episodes()
    theta = theta_of(subject)
    gradient, _ = Backprop()(subject, theta, cases)
    # torch's clipping adds 1e-6 to the norm
    assert_same(gradient, first_order_by_hand(subject, theta, cases), tolerance=1e-5)


def test_first_and_second_order_differ_where_a_task_adapts() -> None:
    subject, cases = learner("all"), episodes()
    first, _ = Backprop()(subject, theta_of(subject), cases)
    second, _ = Backprop(first_order=False)(subject, theta_of(subject), cases)
    assert (first["1.0.weight"] - second["1.0.weight"]).abs().max() > 1e-3


def test_without_inner_steps_both_orders_are_the_plain_gradient_of_the_query_loss() -> None:
    still = GradientLearner(replace(learner().problem, inner=InnerLoop(steps=0)))
    theta, cases = theta_of(still), episodes()
    swapped = Episodes(cases.query._replace(weight=torch.zeros_like(cases.query.weight)), cases.query)
    plain, _ = Pooled()(still, theta, swapped)
    for rule in (Backprop(), Backprop(first_order=False)):
        assert_same(rule(still, theta, cases)[0], plain)


def test_the_pooled_gradient_is_that_of_the_mean_loss_over_all_examples() -> None:
    subject, cases = learner(), episodes()
    theta = theta_of(subject)
    model = subject.problem.model().double()
    model.load_state_dict(theta)
    x = torch.cat([side.x.flatten(0, 1) for side in cases])
    y = torch.cat([side.y.flatten() for side in cases])
    subject.problem.target.loss(model(x), y).mean().backward()
    assert_same(
        Pooled()(subject, theta, cases)[0],
        {n: p.grad for n, p in model.named_parameters() if p.grad is not None},
    )


def test_pooled_training_keeps_the_weights_of_a_balanced_support_set() -> None:
    subject, cases = learner(), task(episodes(), 0)
    weight = torch.tensor([[0.6, 0.1, 0.1, 0.1, 0.1]], dtype=torch.float64)
    cases = Episodes(cases.support._replace(weight=weight), cases.query)
    theta = theta_of(subject)
    leaves = {name: theta[name].clone().requires_grad_() for name in subject.learned}
    x, y = torch.cat([side.x[0] for side in cases]), torch.cat([side.y[0] for side in cases])
    losses = subject.problem.target.loss(subject.shared({**theta, **leaves}, x), y)
    # Five support examples count five in all, by their weights; seven query examples count one each.
    loss = (losses * torch.cat([5 * weight[0], torch.ones(7)])).sum() / 12
    expected = dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))
    assert_same(Pooled()(subject, theta, cases)[0], expected)


def linear(clip: float = 1e6) -> tuple[GradientLearner, Params]:
    """The model y = w x + b from w = 2, b = 1, whose gradients are done by hand."""
    inner = InnerLoop(steps=1, lr=0.1, clip=clip)
    problem = Problem(Features((Numeric("x"),)), Regression(-99, 99), nn.Linear, adapts="all", inner=inner)
    subject = GradientLearner(problem)
    weight, bias = torch.tensor([[2.0]]).double(), torch.tensor([1.0]).double()
    return subject, {**theta_of(subject), "1.weight": weight, "1.bias": bias}


def points(*pairs: tuple[float, float]) -> Batch:
    values = torch.tensor([pairs], dtype=torch.float64)
    return Batch(values[..., :1], values[..., 1], torch.full((1, len(pairs)), 1 / len(pairs)).double())


def descended(w: float, b: float, *pairs: tuple[float, float]) -> tuple[float, float]:
    """One step of 0.1 down the mean of (w x + b - y)**2."""
    errors = [(x, w * x + b - y) for x, y in pairs]
    n = len(pairs)
    return w - 0.1 * sum(2 * e * x for x, e in errors) / n, b - 0.1 * sum(2 * e for _, e in errors) / n


def test_reptile_moves_towards_where_training_on_mini_batches_ends() -> None:
    subject, theta = linear()
    cases = Episodes(points((1, 0), (0, 2)), points((-1, 1), (0.5, 3), (2, 2)))
    gradient, _ = Reptile(steps=3, minibatches=2)(subject, theta, cases)
    # Every second example, from support and query apart: the mini-batches are visited in turn.
    even, odd = ((1, 0), (-1, 1), (2, 2)), ((0, 2), (0.5, 3))
    w, b = descended(*descended(*descended(2, 1, *even), *odd), *even)
    assert gradient["1.weight"].item() == pytest.approx(2 - w)
    assert gradient["1.bias"].item() == pytest.approx(1 - b)


def test_reptile_averages_over_tasks() -> None:
    subject, theta = learner(), theta_of(learner())
    alone = [Reptile()(subject, theta, task(episodes(), at))[0] for at in range(TASKS)]
    mean = {name: torch.stack([moves[name] for moves in alone]).mean(0) for name in subject.learned}
    assert_same(Reptile()(subject, theta, episodes())[0], mean)


def test_reptile_clips_each_inner_step() -> None:
    subject, theta = linear(clip=0.5)
    gradient, _ = Reptile(steps=2, minibatches=2)(
        subject, theta, Episodes(points((0, 99), (0, 99)), points((0, 99)))
    )
    assert gradient["1.bias"].item() == pytest.approx(-2 * 0.1 * 0.5)


@pytest.mark.parametrize(("steps", "minibatches"), [(1, 2), (2, 1)])
def test_reptile_that_would_be_pooled_training_is_refused(steps: int, minibatches: int) -> None:
    with pytest.raises(EngineError, match="use Pooled"):
        Reptile(steps=steps, minibatches=minibatches)


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_every_learned_parameter_moves_whatever_a_task_adapts(rule: OuterRule) -> None:
    subject = learner("head", rule=rule)
    gradient, _ = rule(subject, theta_of(subject), episodes())
    assert set(gradient) == set(subject.learned)
    assert all(value.abs().max() > 0 for value in gradient.values())


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_padding_changes_no_pseudo_gradient_and_no_report(rule: OuterRule) -> None:
    subject, cases = learner(rule=rule), episodes()
    theta = theta_of(subject)
    plain, seen = rule(subject, theta, cases)
    same, seen_padded = rule(subject, theta, Episodes(padded(cases.support, 3), padded(cases.query, 2)))
    assert_same(plain, same)
    assert seen_padded.query_loss_before == pytest.approx(seen.query_loss_before)
    assert seen_padded.query_loss_after == pytest.approx(seen.query_loss_after)


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_an_episode_without_a_query_set_contributes_nothing(rule: OuterRule) -> None:
    subject, cases = learner(rule=rule), episodes()
    theta = theta_of(subject)
    without = Episodes(*(Batch(*(value[:3] for value in side)) for side in cases))
    cases.query.weight[3] = 0
    cases.query.x[3, :, 0] = 1e3
    alone, seen_alone = rule(subject, theta, without)
    gradient, seen = rule(subject, theta, cases)
    assert_same(gradient, alone)
    assert seen.query_loss_after == pytest.approx(seen_alone.query_loss_after)


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_nothing_to_be_judged_on_moves_nothing_and_reports_no_loss(rule: OuterRule) -> None:
    subject, cases = learner(rule=rule), Episodes(batch(5, seed=1), batch(0, seed=2))
    gradient, seen = rule(subject, theta_of(subject), cases)
    assert all(torch.equal(value, torch.zeros_like(value)) for value in gradient.values())
    assert math.isnan(seen.query_loss_before)
    assert math.isnan(seen.query_loss_after)


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_a_task_never_labelled_takes_part_with_theta(rule: OuterRule) -> None:
    subject = learner(rule=rule)
    cases = Episodes(batch(0, seed=1), batch(7, seed=2))
    gradient, seen = rule(subject, theta_of(subject), cases)
    assert all(bool(value.isfinite().all()) for value in gradient.values())
    assert seen.query_loss_after == seen.query_loss_before


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_the_report_is_the_loss_under_theta_and_after_adapting_on_the_support_alone(rule: OuterRule) -> None:
    subject, cases = learner(rule=rule), episodes()
    theta = theta_of(subject)
    _, seen = rule(subject, theta, cases)

    def loss(outputs: Tensor) -> float:
        return float(subject.problem.target.loss(outputs, cases.query.y).mean())

    before = torch.stack([subject.shared(theta, x) for x in cases.query.x])
    after = subject.predict(theta, subject.adapt(theta, cases.support), cases.query.x)
    assert seen.query_loss_before == pytest.approx(loss(before))
    assert seen.query_loss_after == pytest.approx(loss(after))


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_a_rule_changes_none_of_its_arguments(rule: OuterRule) -> None:
    subject, cases = learner(rule=rule), episodes()
    theta = theta_of(subject)
    before = deepcopy((theta, cases))
    rule(subject, theta, cases)
    assert_same(theta, before[0], tolerance=0)
    assert not any(value.requires_grad for value in theta.values())
    for side, was in zip(cases, before[1], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(side, was, strict=True))


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_memory_is_flat_over_rounds(rule: OuterRule) -> None:
    inner = InnerLoop(steps=1, proximal=float(isinstance(rule, Implicit)))
    subject = GradientLearner(Problem(Features((Numeric("x"),)), Regression(-9, 9), nn.Linear, inner=inner))
    cases = Episodes(points((1, 0), (0, 2)), points((-1, 1), (0.5, 3)))
    single = Episodes(*(Batch(*(value.float() for value in side)) for side in cases))
    alive: list[int] = []

    def weighed() -> Iterator[Episodes]:
        for step in range(50):
            if step in (10, 49):
                alive.append(bytes_of_tensors())
            yield single

    fit(subject, rule, weighed(), start(subject, 0), FitSettings())
    assert alive[0] == alive[1]


def bytes_of_tensors() -> int:
    """Of every tensor that anything in Python still holds, or that a graph of autograd holds for it."""
    gc.collect()
    # By type alone: asking a lazy module for its class would load it.
    return sum(value.nbytes for value in gc.get_objects() if type(value) is Tensor)


def test_pooled_training_of_what_knows_nothing_of_classes_is_refused() -> None:
    subject = PrototypeLearner(replace(learner().problem, target=Classification((0, 1), exchangeable=True)))
    with pytest.raises(EngineError, match="numbered anew in every episode"):
        Pooled()(subject, subject.init(0), episodes())


class OfOnesOwn:
    """A learner that is derived from none of ours, and can do what one of them can."""

    def __init__(self, subject: GradientLearner | PrototypeLearner) -> None:
        self.subject = subject

    def __getattr__(self, name: str) -> object:
        return getattr(self.subject, name)


@pytest.mark.parametrize("rule", [Reptile(), Implicit(), Backprop(splits=2)])
def test_a_rule_asks_a_learner_for_what_it_can_do_and_not_for_its_class(rule: OuterRule) -> None:
    ours = PrototypeLearner(learner().problem, 4) if isinstance(rule, Backprop) else learner(rule=rule)
    theta, cases = {name: value.double() for name, value in ours.init(0).items()}, episodes()
    moves, _ = rule(cast(Learner, OfOnesOwn(ours)), theta, cases)
    assert_same(moves, rule(ours, theta, cases)[0])
