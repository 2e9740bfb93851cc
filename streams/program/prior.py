"""The prior of the hedge: how often each of what a lane mixes turned out to be the best for a task.

A mixture over tasks, fitted by expectation and maximisation (Dempster, Laird, Rubin 1977): each task is taken to be
of one kind, for which one predictor is right, and its losses say of which. The prior belongs to a version of
theta, so a new task begins where tasks like it ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from engine.stream.mixture import UNIFORM
from engine.types import Float64
from streams.events.learned_labels import LearnedLabel, task_numbers

PASSES = 200
"""Two that are nearly as good for every task come apart slowly."""

FLOOR = 0.005
"""No predictor is given less, so that none costs a task more than -ln of it."""


def learned_prior(labels: Sequence[LearnedLabel], squared: bool) -> tuple[float, ...]:
    """Fit the prior [5] to the losses of scored labels; even where there are none.

    >>> learned_prior([], squared=False)
    (0.2, 0.2, 0.2, 0.2, 0.2)
    """
    each: list[Any] = [one.losses for one in labels]  # as buffers: np.concatenate takes twice as long
    losses = np.frombuffer(bytearray().join(each)).reshape(len(labels), len(UNIFORM))
    scored = np.isfinite(losses).all(axis=1)
    if not scored.any():
        return tuple(UNIFORM.tolist())
    task, losses = task_numbers(labels)[scored], losses[scored]
    sums = np.array([np.bincount(task, weights=column) for column in losses.T], np.float64)
    sums = sums[:, np.bincount(task) > 0]
    if squared:  # as the log likelihood of a normal distribution about the best of them
        sums /= max(2 * float(losses.mean(axis=0).min()), 1e-300)
    prior = _at_rest(np.exp(sums.min(axis=0) - sums))
    return tuple((FLOOR + (1 - len(prior) * FLOOR) * prior).tolist())


def _at_rest(likelihood: Float64) -> Float64:
    """The prior [K] after all passes over the likelihood [K, T] of T tasks, one more counted even."""
    kinds, tasks = likelihood.shape
    prior, before = np.full(kinds, 1 / kinds), b""
    mixed, shares = np.empty(tasks), np.empty(kinds)
    for _ in range(PASSES):
        np.divide(1, np.dot(prior, likelihood, out=mixed), out=mixed)
        prior *= np.dot(likelihood, mixed, out=shares)
        prior += 1 / kinds
        prior /= tasks + 1
        now = prior.tobytes()
        if now == before:  # as after any further pass
            break
        before = now
    return prior
