"""What an episodic evaluation found, as one frozen value of plain lists, dicts and numbers, ready for JSON.

A figure without a value, because a contender predicted what is not finite, is None. Accuracy is a share of 1;
log loss is in nats, with the floor that predictions are served with; squared error is of predictions clipped to
the range of the target, as they are when served.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal, TypedDict, cast

import numpy as np

from engine.intervals import apart, estimate, percentiles
from engine.types import Float64, Int64

Metric = Literal["accuracy", "log_loss", "squared_error"]
Mode = Literal["inductive", "transductive"]
Tasks = Literal["held out", "training"]

MARGIN = 0.05
"""Training and held-out tasks part when accuracy differs by more than this share of 1 ..."""

MARGIN_ERROR = 0.2
"""... or squared error by more than this share of that on held-out tasks; both beyond their 95% interval."""


class Figures(TypedDict):
    """One metric over the episodes: its mean with a 95% interval, and the 5th, 50th and 95th percentile.

    Percentiles are over tasks, by the mean of their episodes, where episodes repeat tasks, else over episodes.
    """

    mean: float
    low: float
    high: float
    p5: float
    p50: float
    p95: float


class Gain(TypedDict):
    """A contender's mean minus the reference's, on the same episodes, with a 95% interval."""

    value: float
    low: float
    high: float


class Judgement(TypedDict):
    """One contender, adapted by so many steps, under one metric."""

    contender: str
    shots: int
    tasks: Tasks
    mode: Mode
    """Transductive: the queries of an episode were predicted together and could tell on each other. Such a
    figure stands beside the others and counts for nothing."""
    steps: int | None
    """None for what adapts in one pass."""
    headline: bool
    """Whether it is what the contender is judged by: inductive, after the last of the steps asked for."""
    metric: Metric
    figures: Figures | None
    against_reference: Gain | None
    """Of headline figures of every contender but the reference."""


class Gap(TypedDict):
    """How much better a contender is on training tasks than on held-out ones, by the main metric."""

    contender: str
    shots: int
    held_out: float
    training: float
    value: float
    low: float
    high: float
    parts: bool
    """Whether the gap is beyond its 95% interval and larger than the margin."""


class Size(TypedDict):
    """How much a setting was judged on."""

    shots: int
    tasks: Tasks
    episodes: int
    drawn_from: int | None
    """How many tasks the episodes repeat; None where each episode is a task of its own."""


class Image(TypedDict):
    """One example of an episode."""

    label: int
    predicted: int | None
    """Class index; None for an example of the support set."""
    pixels: list[int]
    """0 to 255, channel by channel, row by row."""


class DrawnEpisode(TypedDict):
    """A few examples of an episode as images, with what the first contender predicted."""

    shots: int
    side: int
    channels: int
    support: list[Image]
    query: list[Image]


class EpisodicDict(TypedDict):
    """`EpisodicReport.as_dict()`; the fields are those of `EpisodicReport`."""

    metric: Metric
    reference: str
    contenders: dict[str, str]
    steps: list[int]
    seed: int
    sizes: list[Size]
    judgements: list[Judgement]
    gaps: list[Gap]
    episodes: list[DrawnEpisode]


@dataclass(frozen=True)
class EpisodicReport:
    """What one evaluation found."""

    metric: Metric
    """The main one: accuracy, or squared error."""
    reference: str
    """The contender that all others are compared with."""
    contenders: dict[str, str]
    """A line on each, by name, in the order they were given; the first one is the subject."""
    steps: list[int]
    seed: int
    sizes: list[Size]
    judgements: list[Judgement]
    gaps: list[Gap]
    """Empty where no training tasks were given."""
    episodes: list[DrawnEpisode]
    """Empty where the data are no images."""

    def as_dict(self) -> EpisodicDict:
        """Return a deep copy as plain dicts and lists."""
        return cast(EpisodicDict, asdict(self))


def figures_of(values: Float64, task: Int64) -> Figures | None:
    """Figures of N episodes, given the task that each is drawn from; None where a value is not finite."""
    if not np.isfinite(values).all():
        return None
    found, (p5, p50, p95) = estimate(values, task), percentiles(values, task)
    return Figures(mean=found.mean, low=found.low, high=found.high, p5=p5, p50=p50, p95=p95)


def gain_of(values: Float64, reference: Float64, task: Int64) -> Gain | None:
    """Paired difference of N episodes to the reference."""
    difference = values - reference
    if not np.isfinite(difference).all():
        return None
    found = estimate(difference, task)
    return Gain(value=found.mean, low=found.low, high=found.high)


def gap_of(
    contender: str,
    shots: int,
    metric: Metric,
    training: tuple[Float64, Int64],
    held_out: tuple[Float64, Int64],
) -> Gap:
    """Say whether a contender is better on training tasks by more than chance and more than the margin."""
    trained, judged = estimate(*training), estimate(*held_out)
    better = apart(trained, judged) if metric == "accuracy" else apart(judged, trained)
    margin = MARGIN if metric == "accuracy" else MARGIN_ERROR * judged.mean
    return Gap(
        contender=contender,
        shots=shots,
        held_out=judged.mean,
        training=trained.mean,
        value=better.mean,
        low=better.low,
        high=better.high,
        parts=better.low > 0 and better.mean > margin,
    )
