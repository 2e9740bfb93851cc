"""iMAML: the gradient through adaptation from where it ended, not from the path it took.

    v = (I + H / lambda)^-1 g,    g = grad loss(phi, query),    H = Hessian of loss(phi, support), both at phi

(Rajeswaran, Finn, Kakade, Levine 2019, arXiv:1909.04630, lemma 1 and algorithm 2.) It holds where the inner loop,
whose proximal term lambda/2 |phi - theta|^2 makes phi a function of theta, has come to rest; then its cost does not
grow with the inner steps. What does not adapt moves by its plain gradient with phi in place, and by how it shifts
phi: minus v / lambda times the mixed derivatives of the support loss. Not MAML, which differentiates the
steps themselves and needs no proximal term.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.learners.base import Learner, flatten, losses, unflatten
from engine.outer.base import Report, gradient_of, leaves, query_loss, report, takes_steps
from engine.types import EngineError, Episodes, Params

TOLERANCE = 1e-5
"""A task's system is solved where its residual is this small a part of g."""


@dataclass(frozen=True)
class Implicit:
    """An `OuterRule` of at most so many `iterations` of conjugate gradient a task; with none it is FOMAML."""

    iterations: int = 5

    def __post_init__(self) -> None:
        if self.iterations < 0:
            raise EngineError(f"iterations of conjugate gradient must not be negative, got {self.iterations}")

    def __call__(self, learner: Learner, meta: Params, episodes: Episodes) -> tuple[Params, Report]:
        """Pseudo-gradient of every learned parameter."""
        pull = takes_steps(learner, "Implicit").spec.inner.proximal
        if not pull:
            raise EngineError(
                "Implicit needs an inner loop that a proximal term holds near theta; set inner.proximal above 0"
            )
        theta = leaves({name: meta[name] for name in learner.learned})
        values = {**meta, **theta}
        phi = flatten(learner.adapt(meta, episodes.support)).requires_grad_()
        start = flatten({name: meta[name].unsqueeze(0) for name in learner.fast_shapes})
        fast = unflatten(learner.fast_shapes, phi)
        after = query_loss(learner, values, fast, episodes)
        plain = gradient_of(after, {**theta, "phi": phi})
        # A task that kept theta, empty or diverged, came to no rest: its phi is theta, and its v is g.
        moved = (phi != start).any(1)
        inner = (losses(learner, values, fast, episodes.support) * moved).sum()
        (slope,) = torch.autograd.grad(inner, phi, create_graph=True)

        def bend(p: Tensor) -> Tensor:
            """H p / lambda; tasks share nothing, so one backward pass is a product for each."""
            (curved,) = torch.autograd.grad(slope, phi, p, retain_graph=True)
            return curved / pull

        v = solved(bend, plain.pop("phi"), self.iterations)
        mixed = torch.autograd.grad(slope, list(theta.values()), -v / pull, materialize_grads=True)
        moves = {name: plain[name] + shift for name, shift in zip(theta, mixed, strict=True)}
        total = unflatten(learner.fast_shapes, v.sum(0, keepdim=True))
        moves |= {name: value.squeeze(0) for name, value in total.items()}
        return moves, report(learner, meta, episodes, after.detach())


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
