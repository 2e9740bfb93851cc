"""The implicit gradient against a dense solve, and against the derivative of an inner loop run to its end."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor, nn

from engine.checks.suite import check_spec
from engine.features.columns import Category, Numeric
from engine.features.encoder import Features
from engine.learners.base import below
from engine.learners.gradient import GradientLearner
from engine.outer.backprop import Backprop
from engine.outer.implicit import Implicit, solved
from engine.problem import InnerLoop, Problem
from engine.stream.spec import StreamSpec
from engine.targets import Classification, Regression
from engine.types import Batch, EngineError, Episodes, Params
from tests.engine.test_outer import TASKS, assert_same, episodes, points, task, theta_of

LAMBDA = 0.5


@cache
def logistic(steps: int = 24, proximal: float = LAMBDA, lr: float = 1.0) -> GradientLearner:
    """A logistic regression a task, on a number and an embedded category; the embedding does not adapt."""
    features = Features((Numeric("amount"), Category("country", buckets=4, embedding=2)))
    inner = InnerLoop(steps, lr, clip=1e6, proximal=proximal)
    return GradientLearner(Problem(features, Classification((0, 1)), nn.Linear, adapts="all", inner=inner))


def adapting(learner: GradientLearner, values: Params) -> Params:
    return {name: values[name] for name in learner.fast_shapes}


def by_dense_solve(learner: GradientLearner, theta: Params, cases: Episodes) -> Params:
    """Equation by equation: each task's Hessian in full, and the linear system solved."""
    total = {name: torch.zeros_like(theta[name]) for name in learner.fast_shapes}
    for at in range(TASKS):
        support, query = task(cases, at)
        phi = {name: value[0] for name, value in learner.adapt(theta, support).items()}

        def loss(batch: Batch, weight: Tensor, bias: Tensor) -> Tensor:
            values = theta | {"1.weight": weight, "1.bias": bias}
            return learner.problem.target.loss(learner.shared(values, batch.x[0]), batch.y[0]).mean()

        at_rest = (phi["1.weight"], phi["1.bias"])
        blocks = torch.autograd.functional.hessian(
            lambda *p, batch=support, loss=loss: loss(batch, *p), at_rest
        )
        sizes = [value.numel() for value in at_rest]
        hessian = torch.cat(
            [torch.cat([blocks[i][j].reshape(sizes[i], sizes[j]) for j in range(2)], 1) for i in range(2)]
        )
        ask = [value.clone().requires_grad_() for value in at_rest]
        g = torch.cat([part.flatten() for part in torch.autograd.grad(loss(query, *ask), ask)])
        v = torch.linalg.solve(torch.eye(len(g)).double() + hessian / LAMBDA, g) / TASKS
        for (name, value), part in zip(phi.items(), v.split(sizes), strict=True):
            total[name] += part.view_as(value)
    return total


def test_it_is_the_exact_solve_of_each_task_s_system() -> None:
    subject, cases = logistic(), episodes()
    theta = theta_of(subject)
    gradient, _ = Implicit(iterations=12)(subject, theta, cases)
    assert_same(adapting(subject, gradient), by_dense_solve(subject, theta, cases), tolerance=1e-6)


def test_it_is_the_gradient_through_an_inner_loop_that_has_come_to_rest() -> None:
    subject, cases = logistic(), episodes()
    theta = theta_of(subject)
    implicit, seen = Implicit(iterations=12)(subject, theta, cases)
    explicit, also = Backprop(first_order=False)(subject, theta, cases)
    assert_same(implicit, explicit, tolerance=1e-6)
    assert seen.query_loss_after == pytest.approx(also.query_loss_after)
    first_order, _ = Backprop()(subject, theta, cases)
    for name in subject.learned:
        assert (first_order[name] - explicit[name]).abs().max() > 1e-3


def test_without_iterations_what_adapts_moves_as_under_the_first_order_rule() -> None:
    subject, cases = logistic(steps=5), episodes()
    theta = theta_of(subject)
    gradient, _ = Implicit(iterations=0)(subject, theta, cases)
    assert_same(adapting(subject, gradient), adapting(subject, Backprop()(subject, theta, cases)[0]))


def test_tasks_not_yet_at_rest_move_theta_by_their_first_order_gradient() -> None:
    subject, cases = logistic(steps=2, lr=0.05), episodes()
    theta = theta_of(subject)
    assert_same(Implicit()(subject, theta, cases)[0], Backprop()(subject, theta, cases)[0])


def test_a_task_that_diverged_moves_theta_by_its_plain_gradient() -> None:
    inner = InnerLoop(steps=3, lr=0.5, clip=1e6, proximal=LAMBDA)
    problem = Problem(Features((Numeric("x"),)), Regression(-99, 99), nn.Linear, adapts="all", inner=inner)
    subject = GradientLearner(problem)
    theta = theta_of(subject)
    cases = Episodes(points((9, 3), (-9, 2)), points((1, 5), (2, 0)))
    assert all(torch.equal(v[0], theta[n]) for n, v in subject.adapt(theta, cases.support).items())
    assert_same(Implicit()(subject, theta, cases)[0], Backprop()(subject, theta, cases)[0])


def test_tasks_are_solved_each_for_itself() -> None:
    subject, cases = logistic(steps=20), episodes()
    theta = theta_of(subject)
    alone = [Implicit()(subject, theta, task(cases, at))[0] for at in range(TASKS)]
    mean = {name: torch.stack([moves[name] for moves in alone]).mean(0) for name in subject.learned}
    assert_same(Implicit()(subject, theta, cases)[0], mean)


def systems() -> tuple[Tensor, Tensor]:
    """Upwards everywhere; downwards along the first direction, or the second; flat; nothing asked."""
    diagonals = [[2.0, 0.5, 1.0], [-1.5, -2.0, 0.5], [3.0, 0.2, -0.5], [0.0, 0.0, 0.0], [2.0, 0.5, 1.0]]
    b = torch.tensor([[1.0, -2.0, 0.5]]).repeat(5, 1).double()
    b[4] = 0
    return torch.tensor(diagonals).double(), b


def test_a_system_is_left_where_it_curves_downwards_and_the_others_go_on() -> None:
    curves, b = systems()
    directions: list[Tensor] = []

    def bend(p: Tensor) -> Tensor:
        directions.append(p)
        return curves * p

    v = solved(bend, b, iterations=6)
    torch.testing.assert_close(v[0], b[0] / (1 + curves[0]))
    assert torch.equal(v[1], b[1])
    along = [float((curves[2] * p[2] * p[2]).sum()) for p in directions[1:]]
    downwards = next(at for at, curvature in enumerate(along) if curvature < 0)
    assert downwards > 0
    assert torch.equal(v[2], solved(lambda p: curves * p, b, iterations=downwards)[2])
    assert not torch.equal(v[2], b[2])
    assert torch.equal(v[3:], b[3:])


def test_a_solved_system_stays_solved_however_many_iterations_follow() -> None:
    curves, b = systems()
    enough, many = (solved(lambda p: curves * p, b, iterations=n) for n in (4, 60))
    assert torch.equal(enough, many)


def test_an_inner_loop_that_nothing_holds_near_theta_is_refused() -> None:
    subject = logistic(proximal=0.0)
    with pytest.raises(EngineError, match=r"set inner\.proximal"):
        Implicit()(subject, theta_of(subject), episodes())


def test_a_negative_number_of_iterations_is_refused() -> None:
    with pytest.raises(EngineError, match="iterations"):
        Implicit(iterations=-1)


def test_the_proximal_inner_loop_ends_where_its_gradient_is_zero() -> None:
    subject, cases = logistic(), episodes()
    theta = theta_of(subject)
    phi = {n: v.requires_grad_() for n, v in subject.adapt(theta, cases.support).items()}
    x, y, weight = cases.support
    outputs = torch.einsum("usd,ucd->usc", embedded(subject, theta, x), phi["1.weight"])
    loss = (
        subject.problem.target.loss(outputs + phi["1.bias"].unsqueeze(1), y) * weight
    ).sum() + LAMBDA / 2 * sum((phi[name] - theta[name]).square().sum() for name in phi)
    for slope in torch.autograd.grad(loss, list(phi.values())):
        assert slope.abs().max() < 1e-8


def embedded(subject: GradientLearner, theta: Params, x: Tensor) -> Tensor:
    front = subject.problem.model().double()[0]
    front.load_state_dict(below("0.", theta))
    embedding: Tensor = front(x)
    return embedding.detach()


def test_a_learner_with_a_proximal_term_conforms() -> None:
    problem = Problem(Features((Numeric("x"),)), Classification((0, 1)), inner=InnerLoop(2, proximal=1.0))
    check_spec(StreamSpec(problem))
