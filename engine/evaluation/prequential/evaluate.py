"""Prequential evaluation: each label is scored against the prediction made before it was known.

Dawid 1984 (J. R. Statist. Soc. A 147); Gama, Sebastiao and Rodrigues 2013 (Machine Learning 90). It is fed
in batches and its memory is bounded: 1 MB a predictor, and 8 kB a predictor and day for at most 512 days.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from engine.evaluation import metrics
from engine.evaluation.prequential.accumulators import (
    SERVED,
    THETA,
    ClassTally,
    LearningCurve,
    ScoredLabels,
    Timeline,
    ValueTally,
)
from engine.evaluation.prequential.report import (
    Difference,
    Report,
    ReportDict,
    Scores,
    TaskLift,
    TaskSummary,
    number,
)
from engine.targets import Classification, Regression
from engine.types import EngineError, Float64, Int64

__all__ = ["Prequential", "Report", "ReportDict", "ScoredLabels", "TaskScores", "task_summary"]

DAY_S = 86_400.0

MOST_TASKS = 10
"""How many of the tasks that gain, and that lose, most are named."""

COMPARED: dict[str, tuple[metrics.Metric, ...]] = {
    "binary": ("log_loss", "auc"),
    "classes": ("log_loss",),
    "regression": ("rmse",),
}


@dataclass(frozen=True)
class TaskScores:
    """Sums of U tasks, as their rows hold them."""

    task: Sequence[str]
    labels: Int64
    """[U] scored labels."""
    theta: Float64
    """[U] summed loss of theta."""
    served: Float64
    """[U] summed loss as served."""


class Prequential:
    """Accumulates the scored labels of a stream.

    `predictors` names the k predictors in the order of `ScoredLabels`, "theta" and "served" among them. Time
    is cut into buckets of `bucket_s`, the unit of the lift's course and of the bootstrap; past 512 buckets
    their width doubles. Raises `EngineError` for names that repeat or lack those two.

    >>> labels = ScoredLabels(
    ...     y=np.array([1.0], np.float32),
    ...     prediction=np.array([[[0.5, 0.5], [0.2, 0.8]]], np.float32),
    ...     loss=-np.log([[0.5, 0.8]]),
    ...     seen=np.array([3]),
    ...     time_s=np.array([0.0]),
    ... )
    >>> evaluation = Prequential(Classification(("no", "yes")), ["theta", "served"])
    >>> evaluation.add(labels)
    >>> round(evaluation.report().buckets[0]["lift"], 4)
    0.47
    """

    def __init__(
        self, target: Classification | Regression, predictors: Sequence[str], bucket_s: float = DAY_S
    ) -> None:
        names = tuple(predictors)
        if len(set(names)) != len(names) or not {THETA, SERVED} <= set(names):
            raise EngineError(
                f"predictors must differ and include {THETA!r} and {SERVED!r}, got {list(names)}"
            )
        self._names, self._target = names, target
        self._kind = _kind(target)
        self._timeline = Timeline(len(names), bucket_s, metrics.COARSE if self._kind == "binary" else 0)
        self._learning = LearningCurve(len(names))
        self._tally: ClassTally | ValueTally = (
            ClassTally(len(names), target) if isinstance(target, Classification) else ValueTally(len(names))
        )

    def add(self, labels: ScoredLabels) -> None:
        """Score one batch. Raises `EngineError` for wrong shapes, wrong labels, and what is not finite."""
        self._check(labels)
        if len(labels):
            self._learning.add(labels)
            self._timeline.add(labels, self._tally.add(labels))

    def report(self, tasks: TaskScores | None = None) -> Report:
        """Return what was found so far. The sums of tasks come from the caller, whose rows hold them."""
        losses = self._learning.mean_loss()
        scores = {name: self._tally.scores(i, float(losses[i])) for i, name in enumerate(self._names)}
        return Report(
            target=self._kind,
            classes=[str(c) for c in self._target.classes]
            if isinstance(self._target, Classification)
            else [],
            class_labels=self._tally.class_labels(),
            labels=self._learning.total(),
            first_s=number(self._timeline.first_s),
            last_s=number(self._timeline.last_s),
            bucket_s=self._timeline.bucket_s,
            predictors=scores,
            differences=self._differences(scores),
            buckets=self._timeline.buckets(self._names),
            learning=self._learning.bins(self._names),
            tasks=None if tasks is None else task_summary(tasks),
        )

    def _differences(self, scores: dict[str, Scores]) -> list[Difference]:
        days, served = self._timeline.day_sums(), self._names.index(SERVED)
        return [
            _difference(scores, name, metric, metrics.bootstrap_difference(days, place, served, metric))
            for place, name in enumerate(self._names)
            if place != served
            for metric in COMPARED[self._kind]
        ]

    def _check(self, labels: ScoredLabels) -> None:
        n, k = len(labels), len(self._names)
        shapes = {"prediction": (n, k, self._target.outputs), "loss": (n, k), "seen": (n,), "time_s": (n,)}
        for field, shape in shapes.items():
            found = getattr(labels, field).shape
            if found != shape:
                raise EngineError(
                    f"ScoredLabels.{field} must have shape {shape} for predictors {self._names}, got {found}"
                )
        if not (np.isfinite(labels.loss).all() and np.isfinite(labels.time_s).all()):
            raise EngineError("ScoredLabels.loss and .time_s must be finite; pass scored labels only")
        wrong = np.flatnonzero(~self._target.allows(labels.y))
        if len(wrong):
            raise EngineError(
                f"ScoredLabels.y[{wrong[0]}] is {labels.y[wrong[0]]}, expected {self._target.expected}; "
                "leave such labels out"
            )
        if not np.isfinite(labels.prediction).all() or (labels.seen < 0).any():
            raise EngineError(
                "ScoredLabels.prediction must be finite and .seen 0 or more; pass labels as they were scored"
            )


def task_summary(tasks: TaskScores) -> TaskSummary:
    """Summarise how the lift shares out over tasks; those with the largest sums come first."""
    lift = np.where(tasks.labels > 0, tasks.theta - tasks.served, 0.0)
    scored = tasks.labels > 0
    order = np.argsort(lift, kind="stable")
    levels: Sequence[float] | Float64 = (
        np.quantile(lift[scored] / tasks.labels[scored], [0.05, 0.25, 0.5, 0.75, 0.95])
        if scored.any()
        else []
    )
    return TaskSummary(
        tasks=len(tasks.task),
        scored=int(scored.sum()),
        gaining=int((lift > 0).sum()),
        losing=int((lift < 0).sum()),
        quantiles={
            name: float(v) for name, v in zip(("5%", "25%", "50%", "75%", "95%"), levels, strict=False)
        },
        most=[_task_lift(tasks, int(i)) for i in order[::-1][:MOST_TASKS] if lift[i] > 0],
        least=[_task_lift(tasks, int(i)) for i in order[:MOST_TASKS] if lift[i] < 0],
    )


def _task_lift(tasks: TaskScores, i: int) -> TaskLift:
    labels, theta, served = int(tasks.labels[i]), float(tasks.theta[i]), float(tasks.served[i])
    return TaskLift(
        task=tasks.task[i], labels=labels, theta=theta / labels, served=served / labels, lift=theta - served
    )


def _kind(target: Classification | Regression) -> Literal["binary", "classes", "regression"]:
    if isinstance(target, Regression):
        return "regression"
    return "binary" if target.outputs == 2 else "classes"


def _difference(
    scores: dict[str, Scores], name: str, metric: metrics.Metric, interval: metrics.Interval | None
) -> Difference:
    value, served = scores[name][metric], scores[SERVED][metric]
    return Difference(
        predictor=name,
        against=SERVED,
        metric=metric,
        value=None if value is None or served is None else value - served,
        low=interval.low if interval else None,
        high=interval.high if interval else None,
    )
