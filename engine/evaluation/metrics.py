"""Figures of merit as pure functions of counts and sums: a stream of any length is judged in bounded memory.

Scores are counted in bins of equal width on the logit scale, where 65,536 bins keep the area under the
curve within 1e-4 of the exact one. Kappa-temporal follows Zliobaite, Bifet, Read, Pfahringer and Holmes
2015 (Machine Learning 98, equation 5); the bootstrap resamples whole days (Efron and Tibshirani 1993,
section 8.6), because labels of one day are not independent.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from engine.types import Float64, Int64

FINE, COARSE = 2**16, 2**10
"""Bins of the whole stream's scores, and of one day's."""

LOGIT_LIMIT = 16.0
"""Scores beyond this logit (a probability of 1.1e-7) share the outermost bin."""

FEWEST_DAYS = 5
"""With fewer days than this a bootstrap over days says nothing."""

RESAMPLES = 1000

Metric = Literal["log_loss", "auc", "rmse"]
Counts = npt.NDArray[Any]


class DaySums(NamedTuple):
    """What D days leave for the bootstrap, of k predictors."""

    labels: Int64
    """[D]"""
    loss: Float64
    """[D, k] sums: log loss, or squared error for `rmse`."""
    scores: Counts
    """[D, k, 2, COARSE] labels of class 0 and of class 1 by score; needed for `auc` only."""


class Interval(NamedTuple):
    """A 95% interval."""

    low: float
    high: float


def score_bin(probability: npt.NDArray[Any]) -> Int64:
    """Return the bin of each probability, 0 to FINE - 1; any shape. `bin // (FINE // COARSE)` is coarse."""
    edge = 1 / (1 + np.exp(LOGIT_LIMIT))
    clipped = np.clip(probability.astype(np.float64), edge, 1 - edge)
    logit = np.log(clipped) - np.log1p(-clipped)
    return np.clip((logit + LOGIT_LIMIT) * (FINE / (2 * LOGIT_LIMIT)), 0, FINE - 1).astype(np.int64)


def bin_probability() -> Float64:
    """[FINE] the probability in the middle of each bin."""
    logit = (np.arange(FINE) + 0.5) * (2 * LOGIT_LIMIT / FINE) - LOGIT_LIMIT
    return np.asarray(1 / (1 + np.exp(-logit)), dtype=np.float64)


def ratio(above: Counts | float, below: Counts | float) -> Float64:
    """Elementwise quotient; NaN where the divisor is 0."""
    top, bottom = np.broadcast_arrays(np.asarray(above, np.float64), np.asarray(below, np.float64))
    quotient: Float64 = np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom != 0)
    return quotient


def area_under_curve(negatives: Counts, positives: Counts) -> Float64:
    """[...] probability that a positive scores above a negative, ties counted half, from counts [..., bins].

    NaN where either class is missing. Mann and Whitney 1947.
    """
    below = np.cumsum(negatives, axis=-1, dtype=np.float64) - negatives
    wins = (positives * (below + 0.5 * negatives)).sum(axis=-1)
    return ratio(wins, negatives.sum(axis=-1, dtype=np.float64) * positives.sum(axis=-1, dtype=np.float64))


def kappa_temporal(accuracy: Float64, no_change: float) -> Float64:
    """[k] how far each accuracy [k] is above that of repeating the previous label; 1 is perfect."""
    return ratio(accuracy - no_change, 1 - no_change)


class PerClass(NamedTuple):
    """[..., C] each; NaN where undefined (a class never predicted has no precision)."""

    precision: Float64
    recall: Float64
    f1: Float64


def per_class(confusion: Int64) -> PerClass:
    """Of counts [..., C true, C predicted]."""
    right = np.diagonal(confusion, axis1=-2, axis2=-1)
    actual, predicted = confusion.sum(axis=-1), confusion.sum(axis=-2)
    return PerClass(ratio(right, predicted), ratio(right, actual), ratio(2 * right, actual + predicted))


class Reliability(NamedTuple):
    """[G] each: how many labels, the mean probability predicted, and how often it came true."""

    labels: Int64
    predicted: Float64
    observed: Float64

    def error(self) -> float:
        """Return the expected calibration error (Naeini et al. 2015) over these bins."""
        return float(ratio((self.labels * abs(self.observed - self.predicted)).sum(), self.labels.sum()))


def reliability(misses: Int64, hits: Int64, groups: int = 20) -> Reliability:
    """At most `groups` bins of about equal count (Nguyen and O'Connor 2015), from counts by score [FINE]."""
    total = misses + hits
    middle = np.cumsum(total) - 0.5 * total
    group = np.minimum(middle * (groups / max(1, int(total.sum()))), groups - 1).astype(np.int64)
    labels, sums, came_true = (
        np.bincount(group, weights=weights, minlength=groups)
        for weights in (total, total * bin_probability(), hits)
    )
    used = labels > 0
    counts = labels[used]
    return Reliability(counts.astype(np.int64), sums[used] / counts, came_true[used] / counts)


def bootstrap_difference(
    days: DaySums, first: int, second: int, metric: Metric, resamples: int = RESAMPLES, seed: int = 0
) -> Interval | None:
    """95% interval of `metric` of predictor `first` minus that of `second`, days drawn with replacement.

    Both are judged on the same draws. None with fewer than FEWEST_DAYS days, or where no draw has a value.
    """
    count = len(days.labels)
    if count < FEWEST_DAYS:
        return None
    draws = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=resamples)
    weights = draws.astype(np.float64)
    differences = resampled(days, first, metric, weights) - resampled(days, second, metric, weights)
    defined = differences[np.isfinite(differences)]
    return Interval(*(float(v) for v in np.quantile(defined, [0.025, 0.975]))) if defined.size else None


def resampled(days: DaySums, predictor: int, metric: Metric, weights: Float64) -> Float64:
    """[R] the metric of one predictor under each of R weightings [R, D] of the days."""
    if metric == "auc":
        scores = days.scores[:, predictor].astype(np.float64)
        negatives, positives = (weights @ scores[:, side] for side in (0, 1))
        return area_under_curve(negatives, positives)
    mean = ratio(weights @ days.loss[:, predictor], weights @ days.labels)
    return np.sqrt(mean) if metric == "rmse" else mean
