"""Learned step sizes: what they do to a step, how they are learned, and what keeps them from doing harm."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from engine.checks.suite import check_spec
from engine.features.columns import Numeric
from engine.features.encoder import Features
from engine.learners.base import losses
from engine.learners.gradient import WIDEST, GradientLearner
from engine.outer.backprop import Backprop
from engine.outer.descent import FitSettings
from engine.outer.fit import fit, start
from engine.outer.pooled import Pooled
from engine.outer.reptile import Reptile
from engine.problem import InnerLoop, Problem
from engine.stream.spec import StreamSpec
from engine.targets import Classification, Regression
from engine.types import Batch, EngineError, Episodes, Params
from tests.engine.test_outer import assert_same, episodes, learner, points, theta_of

MAML = Backprop(first_order=False)


def linear(steps: int = 1, lr: float = 0.1, clip: float = 1e6) -> GradientLearner:
    """The model y = w x + b."""
    inner = InnerLoop(steps, lr, clip, rates="learned")
    return GradientLearner(
        Problem(Features((Numeric("x"),)), Regression(-99, 99), nn.Linear, adapts="all", inner=inner)
    )


def of_rates(gradient: Params) -> Params:
    return {name: value for name, value in gradient.items() if name.startswith("rates.")}


def test_each_number_that_adapts_has_a_step_size_of_its_own_and_nothing_else_has() -> None:
    subject = learner("head", rates="learned")
    theta, plain = subject.init(0), learner("head").init(0)
    assert {name: value.shape for name, value in of_rates(theta).items()} == {
        f"rates.{name}": shape for name, shape in subject.fast_shapes.items()
    }
    assert_same({name: value for name, value in theta.items() if name not in of_rates(theta)}, plain)
    assert set(of_rates(theta)) < set(subject.learned)


def test_they_begin_at_the_inner_loop_s_step_size() -> None:
    subject, cases = learner("all", rates="learned"), episodes()
    fixed = learner("all")
    fast = subject.adapt(theta_of(subject), cases.support)
    assert_same(fast, fixed.adapt(theta_of(fixed), cases.support))


def test_a_step_is_as_long_as_each_number_s_own_step_size() -> None:
    subject = linear()
    theta = theta_of(subject) | {
        "1.weight": torch.tensor([[2.0]]).double(),
        "1.bias": torch.tensor([1.0]).double(),
        # 9 of 10 of the widest for the weight, next to nothing for the bias
        "rates.1.weight": torch.tensor([[2 * torch.tensor(9.0).log()]]).double(),
        "rates.1.bias": torch.tensor([-60.0]).double(),
    }
    fast = subject.adapt(theta, points((1, 0), (0, 2)))
    # Errors 3 and -1 make a gradient of 3 by w and of 2 by b.
    assert fast["1.weight"].item() == pytest.approx(2 - 0.9 * WIDEST * 0.1 * 3)
    assert fast["1.bias"].item() == pytest.approx(1)


TEN_STEPS = [linear(steps=10, clip=clip) for clip in (0.5, 1e3)]


@settings(deadline=None, max_examples=40)
@given(raw=st.floats(-1e30, 1e30), subject=st.sampled_from(TEN_STEPS))
def test_no_learned_step_size_leaves_a_task_worse_than_theta_or_not_finite(
    raw: float, subject: GradientLearner
) -> None:
    cases = points((9, 3), (-4, 2), (0, 1))
    theta = start(subject, 0).params
    theta |= {name: torch.full_like(value, raw) for name, value in of_rates(theta).items()}
    support = Batch(*(value.float() for value in cases))
    fast = subject.adapt(theta, support)
    unadapted = {name: theta[name].unsqueeze(0) for name in fast}
    assert all(bool(value.isfinite().all()) for value in fast.values())
    assert losses(subject, theta, fast, support) <= losses(subject, theta, unadapted, support)


@pytest.mark.parametrize("rule", [Backprop(), MAML], ids=str)
def test_training_makes_steps_that_were_too_short_longer(rule: Backprop) -> None:
    subject = linear(lr=0.01)
    cases = Episodes(points((1, 3), (-1, -3)), points((0.5, 1.5), (2, 6)))
    single = Episodes(*(Batch(*(value.float() for value in side)) for side in cases))
    state, rounds = fit(subject, rule, [single] * 30, start(subject, 0), FitSettings(lr=0.05))
    assert state.params["rates.1.weight"].item() > 0.5
    assert all(seen.applied for seen in rounds)


def test_after_one_step_the_first_order_gradient_of_the_step_sizes_is_exact() -> None:
    subject, cases = linear(), Episodes(points((1, 0), (0, 2)), points((-1, 1), (2, 2)))
    theta = theta_of(subject)
    first, second = (of_rates(rule(subject, theta, cases)[0]) for rule in (Backprop(), MAML))
    assert_same(first, second)
    assert all(value.abs().max() > 0.01 for value in first.values())


def test_a_step_size_that_has_become_zero_has_a_finite_gradient() -> None:
    subject, cases = linear(), Episodes(points((1, 0), (0, 2)), points((-1, 1), (2, 2)))
    theta = theta_of(subject)
    theta |= {name: torch.full_like(value, -1e4) for name, value in of_rates(theta).items()}
    for rule in (Backprop(), MAML):
        assert all(bool(value.isfinite().all()) for value in rule(subject, theta, cases)[0].values())


def test_pooled_training_leaves_them_where_they_are() -> None:
    subject = linear()
    gradient, _ = Pooled()(subject, theta_of(subject), Episodes(points((1, 0)), points((0, 2))))
    assert all(not value.any() for value in of_rates(gradient).values())


def test_reptile_which_could_not_learn_them_refuses() -> None:
    subject = linear()
    with pytest.raises(EngineError, match="use Backprop"):
        Reptile()(subject, theta_of(subject), Episodes(points((1, 0)), points((0, 2))))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"rates": "free"}, "rates must be"),
        ({"proximal": -1.0}, "proximal at least 0"),
        ({"rates": "learned", "proximal": 1.0}, "use one"),
    ],
)
def test_an_inner_loop_that_makes_no_sense_is_refused(setting: dict[str, object], message: str) -> None:
    with pytest.raises(EngineError, match=message):
        InnerLoop(**setting)  # type: ignore[arg-type]


def test_a_learner_with_learned_step_sizes_conforms() -> None:
    problem = Problem(Features((Numeric("x"),)), Classification((0, 1)), inner=InnerLoop(2, rates="learned"))
    check_spec(StreamSpec(problem))
