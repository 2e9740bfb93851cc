"""The gate before a version of theta is published: no worse on tasks that it was never trained on.

The same episodes of held-out tasks are judged under both versions, so the difference is paired, and only
what chance does not explain refuses a candidate.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from engine.batches import blocks
from engine.intervals import estimate
from engine.learners.base import Learner, losses, theta_rows, unit_of
from engine.learners.gradient import LR
from engine.types import Episode, Episodes, Float64, Int64, Params, is_finite

BLOCK = 32
"""Episodes of one call."""

Stacked = Callable[[Sequence[Episode], int], Episodes]
"""Pads episodes to so many, in as few shapes as the caller likes."""

FEWEST = 8
"""Fewer held-out tasks than this say nothing."""

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
    learner: Learner,
    before: Params,
    candidate: Params,
    episodes: Sequence[Episode],
    task: Int64,
    stacked: Stacked,
) -> Verdict:
    """Judge a candidate on held-out episodes, each of a numbered `task` [N]; one that is not finite is refused.

    Losses are in the unit of the labels, since the two may count a regression's in units of their own.
    """
    if not all(map(is_finite, candidate.values())):
        return Verdict(len(episodes), float("nan"), float("nan"), refused=True)
    if not episodes:
        return Verdict(0, float("nan"), float("nan"), refused=False)
    old, new = (
        losses_after_adaptation(learner, theta, episodes, stacked) * float(unit_of(learner.problem, theta))
        for theta in (before, candidate)
    )
    return Verdict(len(episodes), float(old.mean()), float(new.mean()), _worse(new - old, task))


@torch.no_grad()
def losses_after_adaptation(
    learner: Learner, theta: Params, episodes: Sequence[Episode], stacked: Stacked
) -> Float64:
    """Query loss [N] of each episode after adaptation on its support set."""
    found: Float64 = _judged(learner, [theta], None, episodes, stacked)[0]
    return found


@torch.no_grad()
def losses_by_size(
    learner: Learner, theta: Params, sizes: Sequence[float], episodes: Sequence[Episode], stacked: Stacked
) -> Float64:
    """The same [S, N] by steps of each of S sizes, whatever theta's own."""
    each = [{**theta, LR: torch.tensor(size)} for size in sizes]
    return _judged(learner, each, sizes, episodes, stacked)


def _judged(
    learner: Learner,
    each: Sequence[Params],
    sizes: Sequence[float] | None,
    episodes: Sequence[Episode],
    stacked: Stacked,
) -> Float64:
    """Losses [S, N] under several thetas, which differ in nothing but the `sizes` of their steps."""
    rows, found = theta_rows(learner, each[0]), []
    for part in blocks(len(episodes), BLOCK):
        block = stacked(episodes[part], BLOCK)
        if rows is not None:
            found.append(rows.losses(*block, sizes))
        else:
            found.append(np.stack([_by_tensors(learner, theta, block) for theta in each]))
    return np.concatenate(found, axis=1)[:, : len(episodes)]


def _by_tensors(learner: Learner, theta: Params, block: Episodes) -> Float64:
    fast = learner.adapt(theta, block.support)
    found: Float64 = losses(learner, theta, fast, block.query).double().numpy()
    return found


def _worse(difference: Float64, task: Int64) -> bool:
    """Whether the mean is above 0 by more than chance explains; tasks are counted, not how often each was judged."""
    _, index, count = np.unique(task, return_inverse=True, return_counts=True)
    if len(count) < FEWEST:
        return False
    found = estimate(np.bincount(index, weights=difference) / count, np.arange(len(count)))
    return not found.mean <= STANDARD_ERRORS * found.error
