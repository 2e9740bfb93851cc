"""The same meta-gradients one task at a time, for `benchmarks.family` to compare with: a plain loop, and learn2learn.

The loop is what learn2learn (Arnold et al. 2020, arXiv:2008.12284, section 3) does, without its library: for each
task a fresh copy of the weights, inner steps by `torch.autograd.grad`, the query loss, and its gradient added to
the sum. Neither clips the inner gradient, which on these tasks stays below the clip of ours.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from engine.learners.base import Learner, TakesSteps
from engine.learners.gradient import RATES, WIDEST
from engine.types import Episodes, Params

try:
    import learn2learn
except ImportError:
    learn2learn = None

LEARN2LEARN = learn2learn is not None
"""Whether it can be imported."""

Sides = tuple[Tensor, Tensor, Tensor, Tensor]
"""Support x [S, W] and y [S], query x [Q, W] and y [Q] of one task."""


def looped(
    learner: TakesSteps, model: nn.Module, meta: Params, episodes: Episodes, *, second_order: bool
) -> Params:
    """Gradient of MAML (FOMAML, ANIL, Meta-SGD), task by task; `model` is an empty vessel."""
    theta = {name: meta[name].detach().requires_grad_() for name in learner.learned}
    rates = {name.removeprefix(RATES): value for name, value in theta.items() if name.startswith(RATES)}
    values = {**meta, **theta}
    weights = {name: value for name, value in values.items() if not name.startswith(RATES)}
    total = {name: torch.zeros_like(value) for name, value in theta.items()}
    for support_x, support_y, query_x, query_y in tasks(episodes):
        phi = {name: weights[name] for name in learner.fast_shapes}
        for _ in range(learner.problem.inner.steps):
            loss = F.cross_entropy(functional_call(model, {**weights, **phi}, (support_x,)), support_y)
            slopes = torch.autograd.grad(loss, list(phi.values()), create_graph=second_order)
            phi = {
                name: value - _rate(learner, rates, name) * slope
                for (name, value), slope in zip(phi.items(), slopes, strict=True)
            }
        loss = F.cross_entropy(functional_call(model, {**weights, **phi}, (query_x,)), query_y)
        _add(total, theta, loss)
    return {name: value / len(episodes.query.x) for name, value in total.items()}


def _rate(learner: TakesSteps, rates: Params, name: str) -> float | Tensor:
    """The step size of a parameter; that of Meta-SGD as `GradientLearner` bounds it."""
    lr = learner.problem.inner.lr
    assert lr != "auto"
    return lr * WIDEST * torch.sigmoid(rates[name] - math.log(WIDEST - 1)) if name in rates else lr


def looped_prototypes(learner: Learner, model: nn.Module, meta: Params, episodes: Episodes) -> Params:
    """Gradient of Prototypical Networks, task by task."""
    theta = {name: meta[name].detach().requires_grad_() for name in learner.learned}
    weights = {name: value for name, value in {**meta, **theta}.items() if not name.startswith("2.")}
    total = {name: torch.zeros_like(value) for name, value in theta.items()}
    for support_x, support_y, query_x, query_y in tasks(episodes):
        embed = partial(functional_call, model, weights)
        embedded = embed((support_x,))
        prototypes = torch.stack([embedded[support_y == k].mean(0) for k in support_y.unique()])
        _add(total, theta, F.cross_entropy(-torch.cdist(embed((query_x,)), prototypes).square(), query_y))
    return {name: value / len(episodes.query.x) for name, value in total.items()}


def learn2learned(
    learner: TakesSteps, model: nn.Module, meta: Params, episodes: Episodes, *, second_order: bool
) -> Params:
    """Gradient of MAML, FOMAML or Meta-SGD by learn2learn, as in its examples."""
    model.load_state_dict({name: value for name, value in meta.items() if not name.startswith(RATES)})
    model.zero_grad()
    inner = learner.problem.inner
    if inner.rates == "learned":
        algorithm: Any = learn2learn.algorithms.MetaSGD(model, lr=inner.lr, first_order=not second_order)
    else:
        algorithm = learn2learn.algorithms.MAML(model, lr=inner.lr, first_order=not second_order)
    for support_x, support_y, query_x, query_y in tasks(episodes):
        clone = algorithm.clone()
        for _ in range(inner.steps):
            clone.adapt(F.cross_entropy(clone(support_x), support_y))
        F.cross_entropy(clone(query_x), query_y).backward()
    count = len(episodes.query.x)
    return {name: value.grad / count for name, value in model.named_parameters() if value.grad is not None}


def learn2learned_prototypes(model: nn.Module, meta: Params, episodes: Episodes) -> Params:
    """Gradient of Prototypical Networks with learn2learn's classifier."""
    model.load_state_dict({name: value for name, value in meta.items() if not name.startswith("2.")})
    model.zero_grad()
    for support_x, support_y, query_x, query_y in tasks(episodes):
        classifier = learn2learn.nn.PrototypicalClassifier(model(support_x), support_y)
        F.cross_entropy(classifier(model(query_x)), query_y).backward()
    count = len(episodes.query.x)
    return {name: value.grad / count for name, value in model.named_parameters() if value.grad is not None}


def tasks(episodes: Episodes) -> Iterator[Sides]:
    """Each task's examples, without an axis for tasks."""
    support, query = episodes
    for u in range(len(query.x)):
        (xs, ys), (xq, yq) = ((side.x[u], side.y[u].long()) for side in (support, query))
        yield xs, ys, xq, yq


def _add(total: Params, theta: Params, loss: Tensor) -> None:
    slopes = torch.autograd.grad(loss, list(theta.values()), materialize_grads=True)
    for name, slope in zip(total, slopes, strict=True):
        total[name] += slope
