"""Report: what an evaluation found, as one frozen value of plain lists, dicts and numbers, ready for JSON.

A figure that does not apply, or has no value (the area under the curve of a single class), is None.
Times are event time in seconds since the epoch; losses are log loss in nats, or squared error.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal, TypedDict, cast

import numpy as np

from engine.evaluation.metrics import Metric
from engine.types import Float64


class ClassScores(TypedDict):
    """One class of a classification."""

    name: str
    labels: int
    precision: float | None
    recall: float | None
    f1: float | None


class ReliabilityBin(TypedDict):
    """Labels whose predicted probability was about the same."""

    labels: int
    predicted: float
    observed: float


class Scores(TypedDict):
    """One predictor over the whole stream. A classification has no `rmse` and `mae`, a regression only those.

    `reliability` is of class 1 where there are two classes, else of the class predicted.
    """

    loss: float | None
    log_loss: float | None
    auc: float | None
    accuracy: float | None
    kappa_temporal: float | None
    calibration_error: float | None
    reliability: list[ReliabilityBin]
    per_class: list[ClassScores]
    rmse: float | None
    mae: float | None


class Difference(TypedDict):
    """`metric` of `predictor` minus that of `against`; no 95% interval where there are too few days."""

    predictor: str
    against: str
    metric: Metric
    value: float | None
    low: float | None
    high: float | None


class Bucket(TypedDict):
    """One stretch of time: mean losses by predictor, and the lift, theta's minus that as served."""

    start_s: float
    labels: int
    loss: dict[str, float]
    lift: float


class SeenBin(TypedDict):
    """Labels that came when their task had learned from `low` to `high` others: mean losses by predictor."""

    low: int
    high: int
    labels: int
    loss: dict[str, float]


class TaskLift(TypedDict):
    """One task: mean losses, and the lift summed over its labels."""

    task: str
    labels: int
    theta: float
    served: float
    lift: float


class TaskSummary(TypedDict):
    """All tasks: how many have a scored label, and how many of those gain or lose by adaptation."""

    tasks: int
    scored: int
    gaining: int
    losing: int
    quantiles: dict[str, float]
    """Lift per label at the 5th, 25th, 50th, 75th and 95th percentile of scored tasks."""
    most: list[TaskLift]
    least: list[TaskLift]


class ReportDict(TypedDict):
    """`Report.as_dict()`; the fields are those of `Report`."""

    target: Literal["binary", "classes", "regression"]
    classes: list[str]
    class_labels: list[int]
    labels: int
    first_s: float | None
    last_s: float | None
    bucket_s: float
    predictors: dict[str, Scores]
    differences: list[Difference]
    buckets: list[Bucket]
    learning: list[SeenBin]
    tasks: TaskSummary | None


@dataclass(frozen=True)
class Report:
    """What one pass over a stream found."""

    target: Literal["binary", "classes", "regression"]
    classes: list[str]
    """Empty for a regression, and so is `class_labels`."""
    class_labels: list[int]
    """How many labels of each class."""
    labels: int
    first_s: float | None
    last_s: float | None
    """The earliest and the latest event time of a label."""
    bucket_s: float
    """How long each of `buckets` is."""
    predictors: dict[str, Scores]
    differences: list[Difference]
    """Of every other predictor against what was served."""
    buckets: list[Bucket]
    """In order of time; stretches without labels are left out."""
    learning: list[SeenBin]
    tasks: TaskSummary | None

    def as_dict(self) -> ReportDict:
        """Return a deep copy as plain dicts and lists."""
        return cast(ReportDict, asdict(self))


def number(value: float | np.floating | Float64) -> float | None:
    """Return the value as a Python float; None for NaN and infinities, which JSON does not have."""
    return float(value) if np.isfinite(value) else None
