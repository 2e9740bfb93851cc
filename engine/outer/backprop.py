"""MAML and FOMAML: the gradient of the query loss after adaptation, with respect to theta.

    g = d/d theta  mean over tasks of  loss(phi(theta, support), query)

(Finn, Abbeel, Levine 2017, arXiv:1703.03400, algorithm 1, line 8 and section 5.2.) Second order
differentiates through the inner loop; first order takes d phi / d theta to be the identity, so the gradient
at phi stands for the gradient at theta. A parameter that does not adapt moves by its plain gradient with phi
in place. Not Reptile, which never looks at the gradient at phi and needs no split into support and query.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from engine.learners.gradient import GradientLearner
from engine.outer.base import Report, leaves, query_loss, report
from engine.types import Episodes, Fast, Params


@dataclass(frozen=True)
class Backprop:
    """An `OuterRule`. What the learner adapts makes it MAML (all) or ANIL (the head)."""

    first_order: bool = True

    def __call__(self, learner: GradientLearner, meta: Params, episodes: Episodes) -> tuple[Params, Report]:
        """Pseudo-gradient of every learned parameter."""
        gradient = _first_order if self.first_order else _second_order
        moves, fast = gradient(learner, meta, episodes)
        return moves, report(learner, meta, fast, episodes)


def _first_order(learner: GradientLearner, meta: Params, episodes: Episodes) -> tuple[Params, Fast]:
    fast = leaves(learner.adapt(meta, episodes.support))
    rest = leaves({name: meta[name] for name in learner.learned if name not in fast})
    loss = query_loss(learner, {**meta, **rest}, fast, episodes)
    moves = _gradient(loss, {**rest, **fast})
    return {name: moves[name].sum(0) if name in fast else moves[name] for name in learner.learned}, fast


def _second_order(learner: GradientLearner, meta: Params, episodes: Episodes) -> tuple[Params, Fast]:
    theta = leaves({name: meta[name] for name in learner.learned})
    fast = learner.adapt_differentiably({**meta, **theta}, episodes.support)
    loss = query_loss(learner, {**meta, **theta}, fast, episodes)
    return _gradient(loss, theta), fast


def _gradient(loss: Tensor, params: Params) -> Params:
    """Zero for a parameter that the loss does not reach."""
    values = torch.autograd.grad(loss, list(params.values()), materialize_grads=True)
    return dict(zip(params, values, strict=True))
