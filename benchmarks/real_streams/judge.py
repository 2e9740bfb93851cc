"""What a stream's predictors are judged by: labels from a tenth of the stream on, as predicted before they came.

Every predictor is judged on the same labels. Differences are in pairs, with the 95% interval of a mean over clusters
(engine/intervals.py): the tasks, or, where there are fewer than `FEWEST_TASKS`, blocks of consecutive labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from engine.intervals import estimate
from engine.targets import Classification, Regression
from engine.types import Bool, Float32, Float64, Int64

WARM_UP = 0.1
FEWEST_TASKS = 20
BLOCKS = 100
SEEN_UP_TO = (0, 1, 2, 4, 9)
"""The last number of labels of each row of the table of few labels; further labels share a row."""

FEW = 10
"""The first labels of a task, on their own."""

Figures = dict[str, float]


class Predicted(NamedTuple):
    """What one predictor said of L labels."""

    prediction: Float32
    """[L, C] probabilities; [L, 1] for a regression."""
    loss: Float64
    """[L] log loss in nats, or squared error."""


def scored(prediction: Float32, y: Float64, target: Classification | Regression) -> Predicted:
    """A prediction with its losses."""
    if isinstance(target, Regression):
        return Predicted(prediction, (prediction[:, 0].astype(np.float64) - y) ** 2)
    true = np.take_along_axis(prediction, y.astype(np.int64)[:, None], axis=1)[:, 0]
    return Predicted(prediction, -np.log(true.astype(np.float64)))


def judged_labels(count: int, scored_by_all: Bool) -> Int64:
    """Which of L labels count: those after the warm-up that every predictor has scored."""
    return np.flatnonzero(scored_by_all & (np.arange(count) >= WARM_UP * count))


def figures(said: Predicted, y: Float64, target: Classification | Regression) -> Figures:
    """Every metric that applies to a target, on the labels given."""
    mean = float(said.loss.mean())
    if isinstance(target, Regression):
        return {"rmse": mean**0.5, "mae": float(np.abs(said.prediction[:, 0] - y).mean())}
    found = {"log_loss": mean, "accuracy": float((said.prediction.argmax(1) == y).mean())}
    if target.outputs == 2 and len(np.unique(y)) == 2:
        found["auc"] = auc(y, said.prediction[:, 1])
        found["average_precision"] = average_precision(y, said.prediction[:, 1])
    return found


def auc(y: Float64, score: Any) -> float:
    """Area under the curve by ranks, of labels of both classes; ties share their mean rank."""
    _, inverse, counts = np.unique(score, return_inverse=True, return_counts=True)
    rank = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    positives, negatives = float((y == 1).sum()), float((y == 0).sum())
    return float((rank[y == 1].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def average_precision(y: Float64, score: Any) -> float:
    """Precision at each threshold, weighted by the recall it adds; equal scores share a threshold."""
    order = np.argsort(-score, kind="stable")
    hits = np.cumsum(y[order] == 1)
    last = np.append(np.flatnonzero(np.diff(score[order])), len(y) - 1)
    precision = hits[last] / (last + 1)
    return float((np.diff(hits[last], prepend=0) * precision).sum() / hits[-1])


def clusters(task: Int64) -> Int64:
    """The cluster of each label, in log order: its task, or one of `BLOCKS` blocks where tasks are few."""
    if len(np.unique(task)) >= FEWEST_TASKS:
        return task
    return np.arange(len(task)) * BLOCKS // len(task)


def difference(first: Float64, second: Float64, cluster: Int64) -> Figures:
    """Mean of first minus second, losses of the same labels, with its 95% interval."""
    found = estimate(first - second, cluster)
    return {"value": found.mean, "low": found.low, "high": found.high}


def few_labels(loss: Mapping[str, Float64], seen: Int64) -> dict[str, dict[str, float]]:
    """Mean loss by how many labels of its task were known at the prediction, and of the first ten together."""
    bins = np.searchsorted(SEEN_UP_TO, seen)
    first = [0, *(last + 1 for last in SEEN_UP_TO)]
    names = [
        *(f"{a}-{b}" if a < b else str(a) for a, b in zip(first, SEEN_UP_TO, strict=False)),
        f"{first[-1]}+",
    ]
    rows = {name: bins == k for k, name in enumerate(names)} | {f"first {FEW}": seen < FEW}
    return {
        name: {"labels": int(here.sum())} | {who: float(values[here].mean()) for who, values in loss.items()}
        for name, here in rows.items()
        if here.any()
    }
