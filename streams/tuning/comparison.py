"""What two trials lost on the same labels, in pairs, with a 95% interval."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.intervals import Estimate, estimate
from engine.types import SERVED, Float64, Int64
from streams.pages.run.evaluation import Scores
from streams.system.files import writing

FEWEST_TASKS = 10
"""With fewer tasks, the interval is over blocks of time."""

BLOCKS = 20


@dataclass(frozen=True)
class Judged:
    """The M labels that a trial is judged by."""

    offset: Int64
    """[M] rising."""
    loss: Float64
    """[M] as served."""
    task: Int64
    """[M] a number for each task, of this trial alone."""

    @classmethod
    def of(cls, scores: Iterator[Scores], judged_from: int) -> Judged:
        """The labels of a run from an offset on."""
        numbers: dict[str, int] = {}
        parts = [np.zeros((3, 0))]
        for part in scores:
            task = [numbers.setdefault(name, len(numbers)) for name in part.task]
            columns = np.stack([part.offset, part.labels.loss[:, SERVED], np.array(task)])
            parts.append(columns[:, part.offset >= judged_from])
        offset, loss, tasks = np.concatenate(parts, axis=1)
        return cls(offset.astype(np.int64), loss, tasks.astype(np.int64))

    def write(self, path: Path) -> None:
        """Keep it for a search that is started again."""
        with writing(path):
            np.savez(path, **vars(self))

    @classmethod
    def read(cls, path: Path) -> Judged:
        """What was kept."""
        with np.load(path) as arrays:
            return cls(arrays["offset"], arrays["loss"], arrays["task"])


@dataclass(frozen=True)
class Gain:
    """What one trial lost more than another, in the mean."""

    labels: int
    estimate: Estimate
    over: str
    """What the interval is over."""

    @property
    def is_beyond_chance(self) -> bool:
        """Whether all of the interval is a gain."""
        return self.estimate.low > 0

    @property
    def described(self) -> str:
        """In words."""
        half = self.estimate.wide * self.estimate.error
        return f"{self.estimate.mean:.4f} ± {half:.4f} a label (95% interval over {self.over})"


def gain(stand: Judged, other: Judged) -> Gain:
    """What the settings that stand lost more than others did, on the labels that both scored."""
    _, here, there = np.intersect1d(stand.offset, other.offset, assume_unique=True, return_indices=True)
    difference = stand.loss[here] - other.loss[there]
    task = stand.task[here]
    count, over = len(np.unique(task)), "tasks"
    if count < FEWEST_TASKS:
        count, over = min(BLOCKS, len(here)), "blocks of time"
        task = np.arange(len(here)) * count // max(len(here), 1)
    if count < 2:
        return Gain(len(here), Estimate(float(difference.sum()), np.inf, 1.0), "one label")
    return Gain(len(here), estimate(difference, task), f"{count:,} {over}")
