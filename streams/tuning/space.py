"""Which settings are tried, and over what range: one table, to be added to freely.

A row whose setting does not exist, or is not a plain value (as "auto"), is passed over. Every range is widened
to hold the value that stands, so that the settings as they are can be the first trial.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from streams.settings.tree import Settings, validated

DIGITS = 3
"""Significant digits of a rate that is tried: what is written down is what was tried."""

ROUNDS = 4
"""Rounds come at their full distance at least so often in the part that decides: see `trial.COUNTED_FROM`."""

Values = dict[str, Any]
"""Settings by their path, such as inner.lr."""


@dataclass(frozen=True)
class Rate:
    """A positive number, evenly likely in every decade."""

    low: float
    high: float

    def holding(self, value: Any) -> BaseDistribution | None:
        """The range with a value in it."""
        if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
            return None
        return FloatDistribution(min(self.low, value), max(self.high, value), log=True)


@dataclass(frozen=True)
class Whole:
    """A whole number, 1 or more, evenly likely in every octave."""

    low: int
    high: int

    def holding(self, value: Any) -> BaseDistribution | None:
        """The range with a value in it."""
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            return None
        return IntDistribution(min(self.low, value), max(self.high, value), log=True)


@dataclass(frozen=True)
class Choice:
    """One of a few values."""

    values: tuple[float | str, ...]

    def holding(self, value: Any) -> BaseDistribution | None:
        """The values with another."""
        return CategoricalDistribution(tuple(dict.fromkeys((*self.values, value))))


SPACE: dict[str, Rate | Whole | Choice] = {
    "inner.lr": Rate(0.003, 1.0),
    "inner.steps": Whole(1, 10),
    "outer.lr": Rate(1e-4, 1e-2),
    "outer.every": Whole(256, 8192),
    "outer.batch": Whole(8, 128),
    "outer.replays": Choice((0.0, 0.5, 1.0, 2.0)),
    "outer.tables_lr": Rate(0.02, 1.0),
    "outer.linear_lr": Rate(0.005, 0.5),
    "memory.support": Whole(8, 128),
    "policy.every": Whole(1, 64),
    "model.adapts": Choice(("head", "head+norms", "all")),
    "hedge.share": Choice((0.0, 0.001, 0.01, 0.03)),
}
"""Setting -> what may be tried."""

OF_STEPS = {"inner.lr", "inner.steps", "model.adapts"}
"""Only where a task adapts by gradient steps."""

OF_CLASSES = {"hedge.share"}
"""Not of a regression."""


def space_of(settings: Settings, events: int) -> dict[str, BaseDistribution]:
    """What is tried with these settings on a part of so many events."""
    tree = settings.model_dump()
    space = {}
    for key, axis in SPACE.items():
        if key in OF_STEPS and settings.learner != "gradient":
            continue
        if key in OF_CLASSES and settings.target.classes is None:
            continue
        if key == "outer.every" and isinstance(axis, Whole):
            high = max(2, min(axis.high, events // ROUNDS))
            axis = Whole(min(axis.low, high), high)
        section, _, name = key.partition(".")
        held = axis.holding(tree[section][name]) if name in tree.get(section, {}) else None
        if held is not None:
            space[key] = held
    return space


def standing(settings: Settings, space: Mapping[str, Any]) -> Values:
    """The values that stand of the settings that are tried."""
    tree = settings.model_dump()
    return {key: tree[key.partition(".")[0]][key.partition(".")[2]] for key in space}


def tried(params: Mapping[str, Any], stand: Mapping[str, Any]) -> Values:
    """What an optimizer suggests, rounded; a value that stands is left as it is."""
    return {
        key: float(f"{value:.{DIGITS}g}") if isinstance(value, float) and value != stand[key] else value
        for key, value in params.items()
    }


def changed(settings: Settings, values: Mapping[str, Any]) -> Settings:
    """The settings under other values.

    Raises:
        SettingsError: they do not go together.

    """
    tree = settings.model_dump()
    for key, value in values.items():
        section, _, name = key.partition(".")
        tree[section][name] = value
    return validated(tree, "the settings tried")
