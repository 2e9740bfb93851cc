"""A task's own past, number by number, from lists of all that has happened: the slow reference of the scan.

Written from the documentation of `engine.features.history`. Nothing decays here step by step: every number is a
sum over everything there was, as if it were asked for the first time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from engine.stream.spec import StreamSpec
from engine.targets import Regression

LABEL_HALF_LIVES = (math.inf, 16.0, 4.0)
EVENT_HALF_LIVES_S = (3_600.0, 86_400.0, 604_800.0)
BY_HALF_LIFE, NUMBER_MEMORY, MOST_DEVIATIONS, MOST_CLASSES = 8.0, 32, 10.0, 16


@dataclass
class Known:
    """A label, and when it became known."""

    id: int
    y: float
    time_s: float
    as_corrected: float
    when_followed: float = math.nan
    """As it stood when the next label came."""


@dataclass
class Category:
    """What is kept of one value of a category: the labels since it was last forgotten."""

    labels: list[float] = field(default_factory=list)
    seen: int = 0


@dataclass
class SlowHistory:
    spec: StreamSpec
    labels: list[Known] = field(default_factory=list)
    events: list[tuple[float, float]] = field(default_factory=list)
    """Time, and the latest time up to it."""
    values: dict[int, list[float]] = field(default_factory=dict)
    by: dict[int, dict[float, Category]] = field(default_factory=dict)

    def numbers(self, own: tuple[float, ...], time_s: float) -> list[float]:
        """What stands behind an event's own features."""
        past = self.spec.problem.history_columns
        known = len(self.labels)
        found = [n for half_life in LABEL_HALF_LIVES for n in self.of_labels(half_life)]
        found += (
            self.last_values(time_s)
            if self.regression
            else [self.labels[-1].as_corrected + 1 if known else 0]
        )
        found += [math.log(1 + known), since(time_s, self.labels[-1].time_s) if known else math.nan]
        found += [since(time_s, self.events[-1][1]) if self.events else math.nan]
        found += [math.log(1 + self.of_events(half_life, time_s)) for half_life in EVENT_HALF_LIVES_S]
        for place in past.numbers:
            found += self.of_number(self.values.get(place, []), own[place])
        for place in past.by:
            kept = self.by.get(place, {}).get(own[place])
            found += self.counted([(y, BY_HALF_LIFE) for y in kept.labels] if kept else [])
        return found

    @property
    def regression(self) -> bool:
        return isinstance(self.spec.problem.target, Regression)

    def counted(self, labels: list[tuple[float, float]]) -> list[float]:
        """Counts of each class, or count and mean, each label halved as often as its half-life has passed."""
        weights = [2.0 ** (-(len(labels) - 1 - i) / half_life) for i, (_, half_life) in enumerate(labels)]
        if self.regression:
            total = sum(w * y for w, (y, _) in zip(weights, labels, strict=True))
            return [sum(weights), total / sum(weights) if labels else 0.0]
        classes = self.spec.problem.target.outputs
        pairs = list(zip(weights, labels, strict=True))
        return [
            sum(w for w, (y, _) in pairs if y == k) for k in range(classes if classes <= MOST_CLASSES else 0)
        ]

    def of_labels(self, half_life: float) -> list[float]:
        """A correction mends what never decays, and that alone."""
        mended = half_life == math.inf
        return self.counted([(known.as_corrected if mended else known.y, half_life) for known in self.labels])

    def last_values(self, time_s: float) -> list[float]:
        """The last value, its change, and where it would be by now had it gone on."""
        if not self.labels:
            return [math.nan] * 3
        last = self.labels[-1].as_corrected
        if len(self.labels) == 1:
            return [last, math.nan, math.nan]
        before = self.labels[-2]
        change, passed = last - before.when_followed, self.labels[-1].time_s - before.time_s
        gone_on = min(max(time_s - self.labels[-1].time_s, 0) / passed, MOST_DEVIATIONS) if passed > 0 else 0
        return [last, change, change * gone_on]

    def of_events(self, half_life_s: float, time_s: float) -> float:
        """Events so far, each halved as often as its half-life has passed; the clock never runs back."""
        if not self.events:
            return 0.0
        now = max(time_s, self.events[-1][1])
        return sum(float(2.0 ** (-(now - latest) / half_life_s)) for _, latest in self.events)

    def of_number(self, values: list[float], value: float) -> list[float]:
        """Deviations from the task's mean, and the difference from the last value."""
        if not values or math.isnan(value):
            return [math.nan, math.nan]
        weights: list[float] = []
        for n in range(1, len(values) + 1):
            share = max(1 / n, 1 / NUMBER_MEMORY)
            weights = [w * (1 - share) for w in weights] + [share]
        mean = sum(w * v for w, v in zip(weights, values, strict=True))
        spread = math.sqrt(sum(w * (v - mean) ** 2 for w, v in zip(weights, values, strict=True)))
        if not spread > 1e-6 * abs(mean) + 1e-12:
            return [0.0, value - values[-1]]
        limited = min(max((value - mean) / spread, -MOST_DEVIATIONS), MOST_DEVIATIONS)
        return [limited, value - values[-1]]

    def observed(self, own: tuple[float, ...], time_s: float) -> None:
        latest = max(time_s, self.events[-1][1]) if self.events else time_s
        self.events.append((time_s, latest))
        for place in self.spec.problem.history_columns.numbers:
            if not math.isnan(own[place]):
                self.values.setdefault(place, []).append(own[place])

    def labelled(self, id: int, own: tuple[float, ...], y: float, time_s: float) -> None:
        if self.labels:
            self.labels[-1].when_followed = self.labels[-1].as_corrected
        self.labels.append(Known(id, y, time_s, y))
        slots = self.spec.problem.history.slots if self.spec.problem.history else 0
        for place in self.spec.problem.history_columns.by:
            kept = self.by.setdefault(place, {})
            if own[place] not in kept and len(kept) == slots:
                del kept[min(kept, key=lambda value: kept[value].seen)]
            category = kept.setdefault(own[place], Category())
            category.labels.append(y)
            category.seen = len(self.labels)

    def corrected(self, id: int, y: float) -> None:
        next(known for known in reversed(self.labels) if known.id == id).as_corrected = y


def since(now: float, then: float) -> float:
    return math.log(1 + max(now - then, 0))
