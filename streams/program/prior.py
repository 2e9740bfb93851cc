"""The prior of the hedge: how often each of what a lane mixes turned out to be the best for a task.

A mixture over tasks, fitted by expectation and maximisation (Dempster, Laird, Rubin 1977): each task is taken to be
of one kind, for which one predictor is right, and its losses say of which. The prior belongs to a version of
theta, so a new task begins where tasks like it ended.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from engine.stream.mixture import UNIFORM
from engine.types import Float64
from streams.events.learned_labels import UNSCORED, LearnedLabel, task_numbers

PASSES = 200
"""Two that are nearly as good for every task come apart slowly."""

FLOOR = 0.005
"""No predictor is given less, so that none costs a task more than -ln of it."""


def learned_prior(labels: Sequence[LearnedLabel], squared: bool) -> tuple[float, ...]:
    """Fit the prior [5] to the losses of scored labels; even where there are none.

    >>> learned_prior([], squared=False)
    (0.2, 0.2, 0.2, 0.2, 0.2)
    """
    losses = np.concatenate([UNSCORED, *[one.losses for one in labels]]).reshape(-1, len(UNIFORM))[1:]
    scored = np.isfinite(losses).all(axis=1)
    if not scored.any():
        return tuple(UNIFORM.tolist())
    task, losses = task_numbers(labels)[scored], losses[scored]
    each = [np.bincount(task, weights=column) for column in losses.T]
    sums = np.array(each, np.float64)[:, np.bincount(task) > 0]
    if squared:  # as the log likelihood of a normal distribution about the best of them
        sums /= max(2 * float(losses.mean(axis=0).min()), 1e-300)
    prior: Float64 = np.full(len(sums), 1 / len(sums))
    likelihood = np.exp(sums.min(axis=0) - sums)
    for _ in range(PASSES):
        before, shares = prior, prior * (likelihood @ (1 / (prior @ likelihood)))
        prior = (shares + 1 / len(prior)) / (sums.shape[1] + 1)
        if (prior == before).all():  # as after any further pass
            break
    return tuple((FLOOR + (1 - len(prior) * FLOOR) * prior).tolist())
