"""What an outer rule is: how episodes say where theta should move.

An episode whose query set is empty (query weights that sum to 0) contributes nothing under any rule, so a
batch may be padded with empty episodes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from engine.learners.gradient import GradientLearner
from engine.types import Batch, Episodes, Fast, Params


@dataclass(frozen=True)
class Report:
    """What one outer step saw, averaged over its episodes; NaN where none has a query set."""

    query_loss_before: float
    """Loss on the query sets under theta itself."""
    query_loss_after: float
    """Loss on the query sets after adaptation on the support sets."""


class OuterRule(Protocol):
    """Returns a pseudo-gradient: an optimizer that descends along it improves theta."""

    def __call__(self, learner: GradientLearner, meta: Params, episodes: Episodes) -> tuple[Params, Report]:
        """Pseudo-gradient by name, for the parameters to move alone, and a report."""
        ...


def leaves(params: Params) -> Params:
    """Detach the values, as fresh leaves of an autograd graph."""
    return {name: value.detach().requires_grad_() for name, value in params.items()}


def judged(episodes: Episodes) -> Tensor:
    """Tell which episodes [U] have a query set to be judged on."""
    return episodes.query.weight.sum(1) > 0


def query_loss(learner: GradientLearner, meta: Params, fast: Fast, episodes: Episodes) -> Tensor:
    """Average the loss on the query sets over the episodes that have one; 0 where none has."""
    losses = learner.support_loss(meta, fast, episodes.query)
    return losses.sum() / judged(episodes).sum().clamp(min=1)


@torch.no_grad()
def report(learner: GradientLearner, meta: Params, fast: Fast, episodes: Episodes) -> Report:
    """Judge on the query sets what adaptation from theta to `fast` was worth."""
    if not judged(episodes).any():
        return Report(float("nan"), float("nan"))
    before = query_loss(learner, meta, {}, episodes)
    return Report(float(before), float(query_loss(learner, meta, fast, episodes)))


def labelled(episodes: Episodes) -> tuple[Batch, Batch]:
    """Weigh the support and query examples of the judged episodes 1 on average; those of others, 0."""
    return _counted(episodes.support, judged(episodes)), _counted(episodes.query, judged(episodes))


def _counted(batch: Batch, kept: Tensor) -> Batch:
    examples = (batch.weight > 0).sum(1) * kept
    return batch._replace(weight=batch.weight * examples.unsqueeze(1))
