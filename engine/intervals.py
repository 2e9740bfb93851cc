"""Means over episodes with what is not known of them: 95% intervals, percentiles, and paired differences.

Episodes of one task are not independent: a user drawn ten times is not ten users. Where episodes come from a
finite number of tasks, the interval is that of a mean over clusters (Liang and Zeger 1986, Biometrika 73; with the
small-sample factor G / (G - 1)), and its width follows the number of tasks, not of draws. An episode that
is a task of its own is a cluster of one, and the formula the usual one.
"""

from __future__ import annotations

from math import hypot, pi, sqrt, tan
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from engine.types import Float64, Int64

NORMAL = 1.959963984540054
"""The 97.5th percentile of the normal distribution."""

PERCENTILES = (0.05, 0.5, 0.95)


class Estimate(NamedTuple):
    """A mean, and how well it is known."""

    mean: float
    error: float
    """Standard error."""
    wide: float
    """Standard errors on either side that make a 95% interval."""

    @property
    def low(self) -> float:
        """Lower end of the 95% interval."""
        return self.mean - self.wide * self.error

    @property
    def high(self) -> float:
        """Upper end of the 95% interval."""
        return self.mean + self.wide * self.error


def estimate(values: Float64, task: Int64) -> Estimate:
    """Mean of N episodes, given the number of the task that each is drawn from, of at least two.

    >>> estimate(np.array([0.0, 1.0, 1.0, 0.0]), np.arange(4)).error
    0.28867513459481287
    """
    mean, tasks = float(values.mean()), np.unique(task, return_inverse=True)
    sums = np.bincount(tasks[1], weights=values - mean)
    count = len(sums)
    error = sqrt(count / (count - 1) * float(np.square(sums).sum())) / len(values)
    return Estimate(mean, error, student(count - 1))


def percentiles(values: Float64, task: Int64) -> tuple[float, float, float]:
    """The 5th, 50th and 95th of a hundred tasks, each by the mean of its episodes."""
    _, index, count = np.unique(task, return_inverse=True, return_counts=True)
    low, middle, high = np.quantile(np.bincount(index, weights=values) / count, PERCENTILES)
    return float(low), float(middle), float(high)


def apart(first: Estimate, second: Estimate) -> Estimate:
    """The difference of two independent means, first minus second, with the interval of the fewer tasks."""
    error = hypot(first.error, second.error)
    return Estimate(first.mean - second.mean, error, max(first.wide, second.wide))


def noted(before: Tensor, values: Tensor, memory: float) -> Tensor:
    """Count N values [..., N] into their number, sum and sum of squares [3, ...].

    What was there before fades by half in `memory` values.
    """
    count, sums = values.shape[-1], (values.sum(-1), values.square().sum(-1))
    found = before.numpy() * 2.0 ** (-count / memory)  # what a call of torch costs is most of a few numbers
    found += np.stack([np.full(found.shape[1:], count, found.dtype), *(part.numpy() for part in sums)])
    return torch.from_numpy(found)


def faded_mean(noted: Tensor) -> tuple[Float64, Float64]:
    """Mean [...] of what was noted [3, ...], and its standard error as of independent values; 0 of nothing."""
    number, total, squares = noted.numpy()
    count = np.maximum(number, 1)
    mean = total / count
    return mean, np.sqrt(np.maximum(squares / count - mean * mean, 0) / count)


def student(freedom: int) -> float:
    """The 97.5th percentile of Student's t, by its expansion about the normal one (Fisher and Cornish 1960).

    Within 1% from 3 degrees of freedom on; with the hundreds that episodes give it is the normal one. With 1 and 2
    its distribution has a closed form.
    """
    if freedom == 1:
        return tan(0.475 * pi)
    if freedom == 2:
        return 0.95 * sqrt(2 / (1 - 0.95**2))
    z = NORMAL
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return z + sum(term / float(freedom ** (i + 1)) for i, term in enumerate(terms))
