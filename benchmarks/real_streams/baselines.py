"""The baselines: each learns from a label when it is known, and has the best of a small grid.

The best is chosen by the very figure that is reported, on the very labels: that favours the baseline, never us.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from benchmarks.real_streams.judge import Predicted, scored
from benchmarks.real_streams.prepared import Prepared
from engine.evaluation.prequential.linear_model import LinearModel
from engine.evaluation.prequential.linear_steps import Steps
from engine.evaluation.prequential.task_rates import STRENGTHS, WEIGHTS, TaskRates
from engine.types import Float32, Int64

GRID = tuple(Steps(rate, keep) for keep in (1.0, 0.99) for rate in (0.05, 0.1, 0.25, 0.6, 1.5))

Variants = Iterator[tuple[str, Float32]]
"""Each of a grid by name, with its predictions [L, C]."""


@dataclass(frozen=True)
class Best:
    """The best of a baseline's grid."""

    said: Predicted
    chosen: str
    seconds: float
    """Of the whole grid."""


def best(stream: Prepared, judged: Int64, variants: Callable[[Prepared], Variants]) -> Best:
    """The variant with the least loss on the labels that are judged."""
    began, leading, least, chosen = perf_counter(), None, np.inf, ""
    for name, prediction in variants(stream):
        said = scored(prediction, stream.y, stream.target)
        loss = float(said.loss[judged].mean())
        if leading is None or loss < least:
            leading, least, chosen = said, loss, name
    if leading is None:
        raise ValueError(f"{stream.source.name}: a grid without variants")
    return Best(leading, chosen, perf_counter() - began)


def base_rate(stream: Prepared) -> Variants:
    """The task's rate of each class, or its mean, shrunk towards the stream's."""
    judged = TaskRates(stream.target, STRENGTHS).follow(stream.events)
    for g, strength in enumerate(STRENGTHS):
        yield f"strength {strength:g}", judged.prediction[:, g]


def last_label(stream: Prepared) -> Variants:
    """The task's last label; of classes with some probability, the stream's rates having the rest."""
    weights = (1.0,) if stream.target.outputs == 1 else WEIGHTS
    judged = TaskRates(stream.target, weights, last=True).follow(stream.events)
    for g, weight in enumerate(weights):
        yield f"weight {weight:g}", judged.prediction[:, g]


def linear(stream: Prepared) -> Variants:
    """One linear model for all tasks."""
    yield from _linear(stream, knows_task=False)


def linear_task(stream: Prepared) -> Variants:
    """The same, with the task's id as a category."""
    yield from _linear(stream, knows_task=True)


def _linear(stream: Prepared, *, knows_task: bool) -> Variants:
    judged = LinearModel(stream.columns, stream.target, GRID, knows_task=knows_task).follow(stream.events)
    for g, steps in enumerate(GRID):
        yield f"rate {steps.rate:g}, keep {steps.keep:g}", judged.prediction[:, g]


CHEAP = {"base_rate": base_rate, "last_label": last_label, "linear": linear, "linear_task": linear_task}
