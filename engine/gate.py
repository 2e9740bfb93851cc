"""The gate before a version of theta is published: no worse on tasks that it was never trained on.

The same episodes of held-out tasks are judged under both versions, so the difference is paired, and only
what chance does not explain refuses a candidate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from engine.episodes import stack
from engine.learners.base import Learner, losses
from engine.types import Episode, Float64, Params

FEWEST = 8
"""Fewer held-out episodes than this say nothing."""

STANDARD_ERRORS = 2.0
"""A candidate is refused where its mean loss is higher by more than this."""


@dataclass(frozen=True)
class Verdict:
    """What held-out tasks say of a candidate; losses are NaN where there were no episodes."""

    episodes: int
    loss_before: float
    """Mean query loss after adaptation from the version in force."""
    loss_after: float
    """The same from the candidate."""
    refused: bool


def gate(
    learner: Learner, before: Params, candidate: Params, episodes: Sequence[Episode], batch: int
) -> Verdict:
    """Judge a candidate on held-out episodes, in blocks of `batch`; one that is not finite is refused."""
    if not all(bool(torch.isfinite(value).all()) for value in candidate.values()):
        return Verdict(len(episodes), float("nan"), float("nan"), refused=True)
    if not episodes:
        return Verdict(0, float("nan"), float("nan"), refused=False)
    old, new = (losses_after_adaptation(learner, theta, episodes, batch) for theta in (before, candidate))
    return Verdict(len(episodes), float(old.mean()), float(new.mean()), _worse(new - old))


@torch.no_grad()
def losses_after_adaptation(
    learner: Learner, theta: Params, episodes: Sequence[Episode], batch: int
) -> Float64:
    """Query loss [N] of each episode after adaptation on its support set."""
    found = []
    for start in range(0, len(episodes), batch):
        stacked = stack(episodes[start : start + batch], batch)
        fast = learner.adapt(theta, stacked.support)
        found.append(losses(learner, theta, fast, stacked.query).double().numpy())
    return np.concatenate(found)[: len(episodes)]


def _worse(difference: Float64) -> bool:
    if len(difference) < FEWEST:
        return False
    error = difference.std(ddof=1) / len(difference) ** 0.5
    return not float(difference.mean()) <= STANDARD_ERRORS * float(error)
