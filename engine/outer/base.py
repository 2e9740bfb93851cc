"""What an outer rule is: how episodes say where theta should move.

An episode whose query set is empty (query weights that sum to 0) contributes nothing under any rule, so a
batch may be padded with empty episodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Protocol

import torch
from torch import Tensor

from engine.learners.base import Learner, TakesSteps, example_losses, losses, theta_rows
from engine.targets import Classification
from engine.types import Batch, EngineError, Episodes, Fast, Params


@dataclass(frozen=True)
class Report:
    """What one outer step saw, averaged over its episodes; NaN where none has a query set."""

    query_loss_before: float
    """Loss on the query sets under theta itself; NaN for exchangeable classes, of which theta knows nothing."""
    query_loss_after: float
    """Loss on the query sets after adaptation on the support sets."""


def averaged(reports: Sequence[Report]) -> Report:
    """The mean of several reports."""
    before, after = zip(*((one.query_loss_before, one.query_loss_after) for one in reports), strict=True)
    return Report(fmean(before), fmean(after))


class OuterRule(Protocol):
    """Returns a pseudo-gradient: an optimizer that descends along it improves theta."""

    def __call__(self, learner: Learner, meta: Params, episodes: Episodes) -> tuple[Params, Report]:
        """Pseudo-gradient by name, for the parameters to move alone, and a report."""
        ...


def leaves(params: Params) -> Params:
    """Detach the values, as fresh leaves of an autograd graph."""
    return {name: value.detach().requires_grad_() for name, value in params.items()}


def judged(episodes: Episodes) -> Tensor:
    """Tell which episodes [U] have a query set to be judged on."""
    return episodes.query.weight.sum(1) > 0


def query_loss(learner: Learner, meta: Params, fast: Fast, episodes: Episodes) -> Tensor:
    """Average the loss on the query sets over the episodes that have one; 0 where none has."""
    return losses(learner, meta, fast, episodes.query).sum() / judged(episodes).sum().clamp(min=1)


@torch.no_grad()
def report(learner: Learner, meta: Params, episodes: Episodes, after: Tensor) -> Report:
    """Judge on the query sets what adaptation was worth; `after` is the `query_loss` that it ended with."""
    if not judged(episodes).any():
        return Report(float("nan"), float("nan"))
    return Report(_loss_before(learner, meta, episodes), float(after))


@torch.no_grad()
def reported(learner: Learner, meta: Params, episodes: Episodes) -> Report:
    """Adapt as the learner does, on the support sets alone, and judge that."""
    rows = theta_rows(learner, meta)
    if rows is None:
        after = query_loss(learner, meta, learner.adapt(meta, episodes.support), episodes)
    else:
        after = torch.from_numpy(rows.losses(*episodes)[0]).sum() / judged(episodes).sum().clamp(min=1)
    return report(learner, meta, episodes, after)


def gradient_of(loss: Tensor, params: Params) -> Params:
    """The gradient by name; zero for a parameter that the loss does not reach."""
    values = torch.autograd.grad(loss, list(params.values()), materialize_grads=True)
    return dict(zip(params, values, strict=True))


def takes_steps(learner: Learner, rule: str) -> TakesSteps:
    """A rule that is made of inner steps needs a learner that takes them.

    Raises:
        EngineError: it takes none.

    """
    if not isinstance(learner, TakesSteps):
        raise EngineError(
            f"{rule} moves theta by inner gradient steps, and {type(learner).__name__} takes none; use Backprop"
        )
    return learner


def _loss_before(learner: Learner, meta: Params, episodes: Episodes) -> float:
    target, query = learner.problem.target, episodes.query
    if isinstance(target, Classification) and target.exchangeable:
        return float("nan")
    outputs = learner.shared(meta, query.x.flatten(0, 1)).view(*query.y.shape, target.outputs)
    loss = (example_losses(learner.problem, meta, outputs, query.y) * query.weight).sum() / judged(
        episodes
    ).sum().clamp(min=1)
    return float(loss)


def labelled(episodes: Episodes) -> tuple[Batch, Batch]:
    """Weigh the support and query examples of the judged episodes 1 on average; those of others, 0."""
    return _counted(episodes.support, judged(episodes)), _counted(episodes.query, judged(episodes))


def _counted(batch: Batch, kept: Tensor) -> Batch:
    examples = (batch.weight > 0).sum(1) * kept
    return batch._replace(weight=batch.weight * examples.unsqueeze(1))
