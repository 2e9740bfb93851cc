"""How well one feature by itself tells the label: learned on the first half in time, judged on the second.

The predictor is a table of rates, or means, by value (a number's by quantile), the simplest that finds a copied label
under any renaming. Figures of merit: for two classes the area under the curve; for more, the share of the
errors of always guessing the commonest class that it avoids; for a number the variance explained.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import polars as pl

from engine.targets import Classification, Regression
from engine.types import Float64, Int64

FEWEST = 40
"""Labels; from fewer, nothing is said."""


BINS = 64


ALMOST_PERFECT = 0.99
"""A figure from here on is called a leak."""


class Alone(NamedTuple):
    """What one feature tells by itself, on labels that it was not fitted to."""

    measure: str
    value: float

    @property
    def leaks(self) -> bool:
        """Whether it is too good to be true."""
        return self.value >= ALMOST_PERFECT


def alone(
    values: Float64, y: Float64, target: Classification | Regression, *, is_number: bool
) -> Alone | None:
    """Judge one feature [N] by the labels [N] in order of time; None where there is too little to judge by."""
    known = ~np.isnan(y)
    values, y = values[known], y[known]
    half = len(y) // 2
    judged = y[half:]
    if len(y) < FEWEST or len(np.unique(judged)) < 2 or len(np.unique(y[:half])) < 2:
        return None
    bins = _binned(values, half) if is_number else values.astype(np.int64)
    if isinstance(target, Regression):
        return Alone("R2", max(_explained(guess, y, half) for guess in _guesses(values, bins, y, half)))
    rates = _rates(bins, y.astype(np.int64), half, target.outputs)
    if len(target.classes) == 2:
        scores = [rates[:, 1], *([_directed(values, y, half)] if is_number else [])]
        return Alone("AUC", max(_area(score, judged) for score in scores))
    right = float((rates.argmax(1) == judged).mean())
    commonest = float((np.bincount(y[:half].astype(np.int64)).argmax() == judged).mean())
    return Alone("skill", (right - commonest) / (1 - commonest) if commonest < 1 else 0.0)


def _binned(values: Float64, half: int) -> Int64:
    """Quantiles of the first half; a missing number is a bin of its own."""
    fitted = values[:half][~np.isnan(values[:half])]
    if not len(fitted):
        return np.isnan(values).astype(np.int64)
    edges = np.unique(np.quantile(fitted, np.linspace(0, 1, BINS + 1), method="inverted_cdf"))
    bins = np.searchsorted(edges, values, side="right")
    return np.where(np.isnan(values), len(edges) + 1, bins)


def _rates(bins: Int64, y: Int64, half: int, classes: int) -> Float64:
    """[N - half, C] class rates of each value, drawn towards those of all by one example; of a new value theirs."""
    overall = (np.bincount(y[:half], minlength=classes) + 1.0) / (half + classes)
    size = int(bins.max()) + 1
    counts = np.zeros((size, classes))
    np.add.at(counts, (bins[:half], y[:half]), 1.0)
    rates = (counts + overall) / (counts.sum(1, keepdims=True) + 1)
    return np.asarray(rates[bins[half:]])


def _guesses(values: Float64, bins: Int64, y: Float64, half: int) -> list[Float64]:
    """The mean of each value, and the line through all."""
    size, mean = int(bins.max()) + 1, y[:half].mean()
    sums = np.bincount(bins[:half], weights=y[:half] - mean, minlength=size)
    means = mean + sums / (np.bincount(bins[:half], minlength=size) + 1)
    filled = np.nan_to_num(values, nan=_middle(values[:half]))
    spread = filled[:half] - filled[:half].mean()
    slope = float(spread @ (y[:half] - mean)) / max(float(spread @ spread), 1e-300)
    return [means[bins[half:]], mean + slope * (filled[half:] - filled[:half].mean())]


def _explained(guess: Float64, y: Float64, half: int) -> float:
    judged = y[half:]
    return 1 - float(np.square(guess - judged).sum()) / float(np.square(judged - y[:half].mean()).sum())


def _directed(values: Float64, y: Float64, half: int) -> Float64:
    """The number itself, turned to rise with the label on the first half."""
    filled = np.nan_to_num(values, nan=_middle(values[:half]))
    return filled[half:] * (1 if _area(filled[:half], y[:half]) >= 0.5 else -1)


def _middle(values: Float64) -> float:
    """The median, which stands for a missing number; 0 where there is none."""
    present = values[~np.isnan(values)]
    return float(np.median(present)) if len(present) else 0.0


def _area(score: Float64, y: Float64) -> float:
    """Area under the curve by ranks, ties sharing theirs. Mann and Whitney 1947."""
    rank = pl.Series(score).rank("average").to_numpy()
    positives = float((y == 1).sum())
    wins = float(rank[y == 1].sum()) - positives * (positives + 1) / 2
    return wins / (positives * (len(y) - positives))
