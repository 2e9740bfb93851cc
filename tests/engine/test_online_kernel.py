"""Training in compiled code: the gradient of automatic differentiation in double precision, and torch's steps."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.kernels.plan import named
from engine.kernels.training import MLPTraining
from engine.learners.base import without_kernel
from engine.learners.gradient import GradientLearner
from engine.learners.training import Pace, Trained
from engine.outer.backprop import Backprop
from engine.outer.base import Report
from engine.outer.descent import FitSettings
from engine.outer.fit import TrainState, start
from engine.outer.gate import losses_by_size
from engine.outer.online import EPISODES, Lesson, Online, Rates, step_by_step
from engine.outer.reptile import Reptile
from engine.outer.step_size import SIZES
from engine.problem import Problem
from engine.targets import Regression
from engine.types import Batch, EngineError, Episodes, Params
from tests.engine.test_kernel import KNOWN, doubled, learner, theta
from tests.engine.test_online import differences
from tests.engine.test_row_by_row import rows_of

TRAINED = [name for name in KNOWN if name != "learned rates"]
RATES = Rates(FitSettings("Adam", lr=0.01, clip=1.0))


def batch(problem: Problem, tasks: int, examples: int, seed: int) -> Batch:
    """Examples of some tasks, of which some have fewer, and one may have none."""
    rng = np.random.default_rng(seed)
    x = rows_of(problem, tasks * examples, seed).reshape(tasks, examples, -1)
    shape, target = (tasks, examples), problem.target
    if isinstance(target, Regression):
        y = rng.uniform(target.low, target.high, shape)
    else:
        y = rng.integers(0, len(target.classes), shape).astype(np.float64)
    there = np.arange(examples) < rng.integers(tasks > 1 and 0, examples + 1, (tasks, 1))
    there[0, 0] = True
    weight = there / np.maximum(there.sum(1, keepdims=True), 1)
    return Batch(*(torch.from_numpy(np.asarray(part, np.float32)) for part in (x, y, weight)))


def lesson(problem: Problem, seed: int) -> Lesson:
    labels = batch(problem, 1, 33, 3 * seed)
    labels = labels._replace(weight=(labels.weight > 0).float())
    episodes = Episodes(batch(problem, 3, 5, 3 * seed + 1), batch(problem, 3, 4, 3 * seed + 2))
    return Lesson(labels, episodes if seed % 3 != 2 else None)


def begun(name: str) -> TrainState:
    return replace(start(learner(name), 0), params=theta(name))


def in_training(subject: GradientLearner, params: Params) -> MLPTraining:
    """Theta in training, before the first step."""
    squares = {
        n: torch.zeros_like(v)
        for n, v in params.items()
        if n.startswith(("0.embeddings", "0.wide", "1.linear"))
    }
    assert subject.kernel is not None
    found = subject.kernel.in_training(Trained(params, squares, {}, {}, 0))
    assert isinstance(found, MLPTraining)
    return found


ALONG = Pace(1e9, np.zeros(1), 0.0, 1.0, 0.0, 0.9, 0.999, np.ones(1))
"""A step that leaves the network where it is, and moves tables so that what they are moved along can be told."""


def slope(subject: GradientLearner, params: Params, taught: Lesson) -> tuple[Params, Report, float]:
    """What compiled code says of a lesson, by name."""
    found = in_training(subject, params)
    before = found.moved.front.tables.copy()
    [said] = found.steps(*taught, EPISODES, ALONG)
    labels = max(float(taught.labels.weight.sum()), 1.0)
    tables = np.sign(before - found.moved.front.tables) * np.sqrt(found.moved.sums) / labels
    gradient = {**found.plan.body.named(found.moved.gradient), **named(tables, found.theta.tables)}
    return gradient, Report(said.before, said.after), said.norm


def exact(subject: GradientLearner, params: Params, taught: Lesson) -> tuple[Params, Report]:
    """The same by automatic differentiation in double precision."""
    plain = Online(without_kernel(subject).unrecorded(), Backprop(), RATES)
    sides = [
        Batch(*(column.double() for column in side)) for side in (taught.labels, *(taught.episodes or ()))
    ]
    return plain._gradient(doubled(params), Lesson(sides[0], Episodes(*sides[1:]) if sides[1:] else None))


@settings(max_examples=40, deadline=None)
@given(name=st.sampled_from(TRAINED), seed=st.integers(0, 300))
def test_the_gradient_is_that_of_automatic_differentiation_in_double_precision(name: str, seed: int) -> None:
    taught, params = lesson(KNOWN[name], seed), theta(name)
    expected, told = exact(learner(name), params, taught)
    found, report, norm = slope(learner(name), params, taught)
    assert found.keys() == set(learner(name).learned)
    largest = max(float(value.abs().max()) for value in expected.values())
    for part, value in found.items():
        torch.testing.assert_close(value.double(), expected[part], rtol=1e-4, atol=1e-5 * largest, msg=part)
    squares = sum(float(value.square().sum()) for value in expected.values())
    assert norm == pytest.approx(squares**0.5, rel=1e-5)
    assert (report.query_loss_before, report.query_loss_after) == pytest.approx(
        (told.query_loss_before, told.query_loss_after), rel=1e-5, nan_ok=True
    )


@settings(max_examples=20, deadline=None)
@given(name=st.sampled_from(TRAINED), seed=st.integers(0, 300), steps=st.integers(2, 6))
def test_reptile_moves_theta_as_by_tensors_in_double_precision(name: str, seed: int, steps: int) -> None:
    problem, params, rule = KNOWN[name], theta(name), Reptile(steps, minibatches=2)
    support, query = batch(problem, 3, 5, 3 * seed + 1), batch(problem, 3, 4, 3 * seed + 2)
    sides = [Batch(*(column.double() for column in side)) for side in (support, query)]
    expected, told = rule(without_kernel(learner(name)), doubled(params), Episodes(*sides))
    found, report = rule(learner(name), params, Episodes(support, query))
    assert found.keys() == expected.keys() == set(learner(name).learned)
    largest = max(float(value.abs().max()) for value in expected.values())
    for part, value in found.items():
        torch.testing.assert_close(value.double(), expected[part], rtol=1e-3, atol=1e-4 * largest, msg=part)
    assert report.query_loss_after == pytest.approx(told.query_loss_after, rel=1e-3, nan_ok=True)


def test_reptile_leaves_theta_as_it_is_and_moves_nothing_for_tasks_that_nothing_judges() -> None:
    name = "everything"
    params, rule = theta(name), Reptile()
    before = {part: value.clone() for part, value in params.items()}
    support, query = batch(KNOWN[name], 3, 5, 1), batch(KNOWN[name], 3, 4, 2)
    nobody = query._replace(weight=torch.zeros_like(query.weight))
    first = rule(learner(name), params, Episodes(support, query))[0]
    assert all(
        not value.any() for value in rule(learner(name), params, Episodes(support, nobody))[0].values()
    )
    again = rule(learner(name), params, Episodes(support, query))[0]
    assert all(torch.equal(value, again[part]) for part, value in first.items())
    assert all(torch.equal(value, before[part]) for part, value in params.items())


class Taught(Online):
    """By tensors, along the gradients of compiled code."""

    def __init__(self, subject: GradientLearner, rates: Rates) -> None:
        super().__init__(without_kernel(subject), Backprop(), rates)
        self.subject = subject

    def _gradient(self, meta: Params, taught: Lesson) -> tuple[Params, Report]:
        gradient, report, _ = slope(self.subject, {n: v.detach().clone() for n, v in meta.items()}, taught)
        return gradient, report


@pytest.mark.parametrize("name", ["head and norms", "no linear model", "a number"])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_steps_along_it_are_those_that_torch_takes(name: str, decay: float) -> None:
    network = FitSettings("Adam", lr=0.01, clip=1.0, weight_decay=decay, betas=(0.8, 0.99), warmup=3)
    rates, taught = Rates(network), [lesson(KNOWN[name], seed) for seed in range(5)]
    found, rounds = Online(learner(name), Backprop(), rates).learn(taught, begun(name))
    expected, told = Taught(learner(name), rates).learn(taught, begun(name))
    assert [one.step for one in rounds] == [one.step for one in told] == [0, 1, 2, 3, 4]
    for ours, theirs in (
        (found.params, expected.params),
        (found.sums, expected.sums),
        (found.optimizer, expected.optimizer),
    ):
        assert list(ours) == list(theirs)
        for part, value in ours.items():
            torch.testing.assert_close(value, theirs[part], rtol=2e-3, atol=1e-5, msg=part)


def copied(state: TrainState) -> TrainState:
    params, optimizer, sums = (
        {n: v.clone() for n, v in part.items()} for part in (state.params, state.optimizer, state.sums)
    )
    return replace(state, params=params, optimizer=optimizer, sums=sums)


@pytest.mark.parametrize("name", ["head", "everything", "a number"])
def test_resumed_from_its_state_it_goes_on_bit_for_bit_and_leaves_that_state_as_it_was(name: str) -> None:
    taught, subject = (
        [lesson(KNOWN[name], seed) for seed in range(6)],
        Online(learner(name), Backprop(), RATES),
    )
    whole, _ = subject.learn(taught, begun(name))
    half, _ = subject.learn(taught[:3], begun(name))
    before = copied(half)
    resumed, _ = subject.learn(taught[3:], half)
    assert differences(whole, resumed) == []
    assert whole.step == resumed.step == 6
    assert differences(half, before) == []
    nothing, _ = subject.learn([], half)
    assert differences(nothing, half) == []


@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.parametrize("changed", ["nothing", "params", "optimizer", "sums", "steps"])
def test_what_it_goes_on_with_in_place_is_what_was_trained_and_else_it_lays_out_what_it_is_given(
    name: str, changed: str
) -> None:
    taught, subject = [lesson(KNOWN[name], n) for n in range(5)], Online(learner(name), Backprop(), RATES)
    half, _ = subject.learn(taught[:3], begun(name))
    if changed == "steps":
        half = replace(half, optimizer={n: v + n.endswith(":step") for n, v in half.optimizer.items()})
    elif changed != "nothing":
        part = getattr(half, changed)
        part[[n for n in sorted(part) if "1." in n][-1]].add_(0.25)
    before = copied(half)
    found, _ = subject.learn(taught[3:], half)
    expected, _ = subject.learn(taught[3:], before)
    assert differences(found, expected) == []
    assert differences(half, before) == []


def in_a_row(taught: list[Lesson]) -> Lesson:
    """One lesson of many steps, with the episodes of the first."""
    labels = Batch(*map(torch.cat, zip(*(one.labels for one in taught), strict=True)))
    return Lesson(labels, taught[0].episodes)


@pytest.mark.parametrize(("name", "is_poisoned"), [*((name, False) for name in TRAINED), ("a number", True)])
def test_steps_in_a_row_are_those_taken_one_by_one_bit_for_bit(name: str, is_poisoned: bool) -> None:
    subject, each = Online(learner(name), Backprop(), RATES), [lesson(KNOWN[name], n) for n in (0, 2, 5, 8)]
    each[1].labels.y[0, 0] *= math.inf if is_poisoned else 1
    before, _ = subject.learn([lesson(KNOWN[name], 1)], begun(name))
    for state in (begun(name), before):
        (found, rounds), (expected, told) = (
            subject.learn(taught, state) for taught in ([in_a_row(each)], step_by_step([in_a_row(each)]))
        )
        assert differences(found, expected) == []
        assert [one.applied for one in rounds] == [True, not is_poisoned, True, True]
        ours, theirs = (
            [(one.step, one.norm, one.report.query_loss_before, one.report.query_loss_after) for one in taken]
            for taken in (rounds, told)
        )
        np.testing.assert_array_equal(ours, theirs)


def test_what_was_trained_by_tensors_is_gone_on_with_and_the_other_way_round() -> None:
    name, taught = "head and norms", [lesson(KNOWN["head and norms"], seed) for seed in range(4)]
    ways = Online(learner(name), Backprop(), RATES), Online(without_kernel(learner(name)), Backprop(), RATES)
    for first, second in (ways, ways[::-1]):
        half, _ = first.learn(taught[:2], begun(name))
        whole, _ = second.learn(taught[2:], half)
        same, _ = ways[1].learn(taught, begun(name))
        for part, value in whole.params.items():
            torch.testing.assert_close(value, same.params[part], rtol=0.05, atol=0.02, msg=part)


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_lesson_whose_gradient_is_not_finite_moves_nothing_then_or_later(poison: float) -> None:
    taught = lesson(KNOWN["a number"], 0)
    broken = taught._replace(labels=taught.labels._replace(y=taught.labels.y.clone()))
    broken.labels.y[0, 0] = poison
    subject = Online(learner("a number"), Backprop(), RATES)
    after, [one] = subject.learn([broken], begun("a number"))
    assert not one.applied
    assert differences(replace(after, sums={}), replace(begun("a number"), sums={})) == []
    [passed, taken], [alone] = (
        subject.learn([broken, taught], begun("a number")),
        subject.learn([taught], after)[0:1],
    )
    assert [one.applied for one in taken] == [False, True]
    assert differences(passed, alone) == []


def test_a_label_that_is_no_class_is_refused_and_not_looked_up() -> None:
    taught = lesson(KNOWN["head"], 2)
    taught.labels.y[0, 0] = float("nan")
    with pytest.raises(EngineError, match="labels of classes are 0 or more, got nan"):
        Online(learner("head"), Backprop(), RATES).learn([taught], begun("head"))


def test_a_class_that_another_process_named_counts_for_nothing() -> None:
    name, taught = "room for classes", lesson(KNOWN["room for classes"], 0)
    taught.labels.y[0, 0] = 4.0
    expected, _ = exact(learner(name), theta(name), taught)
    for part, value in slope(learner(name), theta(name), taught)[0].items():
        torch.testing.assert_close(value.double(), expected[part], rtol=1e-4, atol=1e-5, msg=part)


@pytest.mark.parametrize("rates", [Rates(FitSettings("SGD", lr=0.1)), RATES], ids=["SGD", "Adam"])
def test_another_rule_or_optimizer_is_left_to_tensors(rates: Rates) -> None:
    rule = Backprop() if rates is not RATES else Backprop(first_order=False)
    taught = [lesson(KNOWN["head"], seed) for seed in range(2)]
    one, other = (
        Online(subject, rule, rates).learn(taught, begun("head"))[0]
        for subject in (learner("head"), without_kernel(learner("head")))
    )
    for part, value in one.params.items():
        torch.testing.assert_close(value, other.params[part], rtol=1e-3, atol=1e-4, msg=part)


def test_state_of_another_optimizer_is_refused() -> None:
    by_sgd, _ = Online(learner("head"), Backprop(), Rates(FitSettings("SGD", lr=0.1, momentum=0.9))).learn(
        [lesson(KNOWN["head"], 0)], begun("head")
    )
    with pytest.raises(EngineError, match="does not fit optimizer 'Adam'"):
        Online(learner("head"), Backprop(), RATES).learn([], by_sgd)


@pytest.mark.parametrize("name", KNOWN)
def test_step_sizes_judged_together_cost_what_each_does_by_tensors(name: str) -> None:
    episodes, subject = Episodes(batch(KNOWN[name], 32, 5, 1), batch(KNOWN[name], 32, 4, 2)), learner(name)

    def stacked(some: Any, size: int) -> Episodes:
        return episodes

    found, expected = (
        losses_by_size(one, theta(name), SIZES, [None] * 32, stacked)  # type: ignore[list-item]
        for one in (subject, without_kernel(subject).unrecorded())
    )
    assert found.shape == (len(SIZES), 32)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
