"""iMAML: the gradient through adaptation from where it ended, not from the path it took.

    v = (I + H / lambda)^-1 g,    g = grad loss(phi, query),    H = Hessian of loss(phi, support), both at phi

(Rajeswaran, Finn, Kakade, Levine 2019, arXiv:1909.04630, lemma 1 and algorithm 2.) It holds where the inner loop,
whose proximal term lambda/2 |phi - theta|^2 makes phi a function of theta, has come to rest; then its cost does not
grow with the inner steps. What does not adapt moves by its plain gradient with phi in place, and by how it shifts
phi: minus v / lambda times the mixed derivatives of the support loss. Not MAML, which differentiates the
steps themselves and needs no proximal term.

The formula knows nothing of steps that overshoot: in a sharp direction it holds that the support set decides, and
makes v small, where phi in truth jumps to and fro. Trusted there, it sharpens the loss until no task can adapt
(seen on sinusoids, within 300 rounds). So a task whose inner loop has not come to rest takes v = g, the first-order
gradient, which pushes back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.learners.base import Learner, TakesSteps, flatten, losses, unflatten
from engine.outer.base import Report, gradient_of, leaves, query_loss, report, takes_steps
from engine.types import EngineError, Episodes, Params

TOLERANCE = 1e-5
"""A task's system is solved where its residual is this small a part of g."""

REST = 0.5
"""A task is at rest where the gradient that its inner loop descends has fallen to this part of where it began."""


@dataclass(frozen=True)
class Implicit:
    """An `OuterRule` of at most so many `iterations` of conjugate gradient a task; with none v is g, as in FOMAML."""

    iterations: int = 5

    def __post_init__(self) -> None:
        if self.iterations < 0:
            raise EngineError(f"iterations of conjugate gradient must not be negative, got {self.iterations}")

    def __call__(self, learner: Learner, meta: Params, episodes: Episodes) -> tuple[Params, Report]:
        """Pseudo-gradient of every learned parameter."""
        stepping = takes_steps(learner, "Implicit")
        pull = _held(stepping)
        theta = leaves({name: meta[name] for name in learner.learned})
        values = {**meta, **theta}
        phi = flatten(learner.adapt(meta, episodes.support)).requires_grad_()
        after = query_loss(learner, values, unflatten(learner.fast_shapes, phi), episodes)
        plain = gradient_of(after, {**theta, "phi": phi})
        slope = _slope(stepping, values, phi, episodes)
        # Tasks share nothing, so one backward pass is a product with each task's own Hessian.
        v = solved(lambda p: _backward(slope, [phi], p)[0] / pull, plain.pop("phi"), self.iterations)
        shifts = _backward(slope, list(theta.values()), -v / pull)
        moves = {name: plain[name] + shift for name, shift in zip(theta, shifts, strict=True)}
        adapting = unflatten(learner.fast_shapes, v.sum(0, keepdim=True))
        moves |= {name: value.squeeze(0) for name, value in adapting.items()}
        return moves, report(learner, meta, episodes, after.detach())


def _held(learner: TakesSteps) -> float:
    """The lambda of an inner loop that has one."""
    if not learner.problem.inner.proximal:
        raise EngineError(
            "Implicit needs an inner loop that a proximal term holds near theta; set inner.proximal above 0"
        )
    return learner.problem.inner.proximal


def _slope(learner: TakesSteps, values: Params, phi: Tensor, episodes: Episodes) -> Tensor:
    """Gradient [U, F] of the support losses at phi, to be differentiated again; 0 for a task not at rest."""
    theta = flatten({name: values[name].detach().unsqueeze(0) for name in learner.fast_shapes})
    theta = theta.expand_as(phi).clone().requires_grad_()

    def slope(at: Tensor, create_graph: bool) -> Tensor:
        """Gradient [U, F] of the support losses at [U, F]."""
        each = losses(learner, values, unflatten(learner.fast_shapes, at), episodes.support)
        return torch.autograd.grad(each.sum(), at, create_graph=create_graph)[0]

    here = slope(phi, True)
    left = here.detach() + learner.problem.inner.proximal * (phi - theta).detach()
    rests = left.norm(dim=1) <= REST * slope(theta, False).norm(dim=1)
    at_rest: Tensor = here * rests.unsqueeze(1)
    return at_rest


def _backward(slope: Tensor, inputs: list[Tensor], rows: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(slope, inputs, rows, retain_graph=True, materialize_grads=True)


def solved(bend: Callable[[Tensor], Tensor], b: Tensor, iterations: int) -> Tensor:
    """Solve U systems v + B v = b [U, F] by conjugate gradient from v = b (Shewchuk 1994, section B2).

    `bend` is B p for U rows p. A task keeps its v from where it is solved, and from where a direction curves
    downwards, p B p < 0: phi is no minimum of its loss along p, and I + B may be as good as singular there. Stopped
    only where I + B itself is negative, as conjugate gradient must be, sinusoids gave v 900 times as long as g.
    """
    v, residual = b, -bend(b)
    p, size = residual, _dot(residual, residual)
    active, enough = torch.ones_like(size, dtype=torch.bool), TOLERANCE**2 * _dot(b, b)
    for _ in range(iterations):
        bent = bend(p)
        curvature = _dot(p, bent)
        active = active & (size > enough) & (curvature >= 0)
        step = size / (_dot(p, p) + curvature)
        v = torch.where(active, v + step * p, v)
        residual = residual - step * (p + bent)
        before, size = size, _dot(residual, residual)
        p = residual + size / before * p
    return v


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(1, keepdim=True)
