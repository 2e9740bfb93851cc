"""A task's own past as features: its labels as they became known, its events, its numbers; a few numbers of the row.

This says which there are, and where in a stored row they lie; `engine.stream.history` writes them, in order, so they
hold nothing that was not known then. Stored rows hold counts and differences; `engine.features.front_end.FrontEnd`
turns them into what a network reads, by the statistics of theta's version:

    of labels    decayed counts of each class (or count and mean of a regression) at three half-lives, the last label,
                 how many there were, the time since the last
    of events    the time since the last, decayed counts at three half-lives of event time
    of a number  this value against the task's own decayed mean, in its own deviations, and against its last value
    by category  the decayed counts of labels again, of the events with this event's category alone

What a category of this task looked like is kept for its `slots` values that were seen last, found by their bucket.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from engine.types import EngineError

LABEL_HALF_LIVES = (math.inf, 16.0, 4.0)
"""In labels."""

EVENT_HALF_LIVES_S = (3_600.0, 86_400.0, 604_800.0)

MOST_CLASSES = 16
"""Of a target with more classes the counts of labels are no features: they would be most of a row."""

LARGEST = float(np.finfo(np.float32).max)

RATES, EVENT_RATES = len(LABEL_HALF_LIVES), len(EVENT_HALF_LIVES_S)


@dataclass(frozen=True)
class History:
    """Which of the task's past is written: `by` which categories, and of which `numbers`, by their field names."""

    by: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()
    slots: int = 32

    def __post_init__(self) -> None:
        if self.slots < 1:
            raise EngineError(f"history.slots must be positive, got {self.slots}")


@dataclass(frozen=True)
class HistoryColumns:
    """Where each part of the history lies in a stored row; `start` is the width of the event's own features."""

    start: int
    outputs: int
    """C of the target."""
    regression: bool
    by: tuple[int, ...]
    """Stored places of the categories."""
    numbers: tuple[int, ...]
    """Stored places of the numbers."""

    @property
    def label_width(self) -> int:
        """Numbers of one set of counts: a class each, or count and sum; 0 where there are too many classes."""
        return 2 if self.regression else self.outputs * (self.outputs <= MOST_CLASSES)

    @property
    def sets(self) -> list[int]:
        """Where each set of counts of labels begins."""
        width = self.label_width
        if not width:
            return []
        return [*range(self.start, self.last, width), *range(self.by_counts, self.stop, width)]

    @property
    def scales(self) -> list[int]:
        """Places of numbers that say as much by a few digits: counts, logarithms, differences.

        No class is among them, and no value of a regression, which may lie far from zero.
        """
        counts = 1 if self.regression else self.label_width
        return [*(first + k for first in self.sets for k in range(counts)), *self.plain]

    @property
    def last(self) -> int:
        """Place of the last label: class + 1, 0 for none; of a regression value, change and trend."""
        return self.start + RATES * self.label_width

    @property
    def plain(self) -> range:
        """Places of numbers that are standardised like any others."""
        first = self.last + 1
        return range(first, first + 2 * self.regression + 3 + EVENT_RATES + 2 * len(self.numbers))

    @property
    def by_counts(self) -> int:
        """Place of the counts by category."""
        return self.plain.stop

    @property
    def stop(self) -> int:
        """Width of a stored row with its history."""
        return self.by_counts + len(self.by) * self.label_width
