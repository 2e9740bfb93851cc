"""How a label is read: the name of a class, or a value of a range."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isfinite
from typing import Any

import numpy as np

from engine.features.columns import PLAIN_CATEGORIES, exact_numbers
from engine.targets import Classification, Regression
from engine.types import Float64
from streams.events.numbers import REAL, number_of
from streams.events.wording import shown

NO_LABEL = 'the label is null; an observation leaves the member "label" out'


class Refusal(Exception):
    """Stays in `streams.events`: `reading` turns it into `Rejected`, and `labels_of` into NaN."""

    def __init__(self, reason: str, detail: str) -> None:
        self.reason = reason
        self.detail = detail


def labels_of(target: Classification | Regression, labels: Sequence[Any]) -> Float64:
    """The engine's `y` of raw labels [L], as `label_reader` reads each; NaN of one that it refuses."""
    if not labels:
        return np.empty(0)
    read = label_reader(target)

    def readable(label: Any) -> float | None:
        """The label, or None."""
        try:
            return read(label)
        except Refusal:
            return None

    if isinstance(target, Classification) and PLAIN_CATEGORIES.issuperset(map(type, labels)):
        known = {label: readable(label) for label in set(labels)}
        return np.array([known[label] for label in labels], np.float64)
    if isinstance(target, Regression) and (y := exact_numbers(labels)) is not None:
        return np.where((y >= target.low) & (y <= target.high), y, np.nan)
    return np.array([readable(label) for label in labels], np.float64)


def label_reader(target: Classification | Regression) -> Callable[[Any], float]:
    """Build what turns a raw label into the engine's `y`, or refuses it."""
    return _class_reader(target) if isinstance(target, Classification) else _value_reader(target)


def _class_reader(target: Classification) -> Callable[[Any], float]:
    """Labels to class indices: a class as it was declared, else one that means the same, if only one does."""
    classes, room = target.classes, target.outputs - len(target.classes)
    way_out = f"; append it to target.classes, there is room for {room}" if room else ""
    exact: dict[Any, float] = {name: float(i) for i, name in enumerate(classes)}
    meanings = [_meaning(name) for name in classes]
    alike: dict[Any, float] = {
        meaning: float(i) for i, meaning in enumerate(meanings) if meanings.count(meaning) == 1
    }

    def read(label: Any) -> float:
        """The index of the class that a label names; refuses what names none."""
        if label is None:
            raise Refusal("bad_label", NO_LABEL)
        if not isinstance(label, str | REAL | np.bool_):
            raise Refusal("bad_label", f"label: expected text or a number, got {shown(label)}")
        y = exact.get(label)
        y = alike.get(_meaning(label)) if y is None else y
        if y is None:
            raise Refusal("unknown_class", f"label {shown(label)} is none of {list(classes)}"[:200] + way_out)
        return y

    return read


def _meaning(label: Any) -> Any:
    """Give the same value for 1, 1.0, True, "1" and "true"; any other text stands for itself."""
    if isinstance(label, str) and label.lower() in ("true", "false"):
        return float(label.lower() == "true")
    number = float(label) if isinstance(label, bool | np.bool_) else number_of(label)
    return label if number is None else number


def _value_reader(target: Regression) -> Callable[[Any], float]:
    def read(label: Any) -> float:
        """The number that a label is; refuses what is none, or lies outside the target's range."""
        if label is None:
            raise Refusal("bad_label", NO_LABEL)
        y = number_of(label)
        if y is None or not isfinite(y):
            raise Refusal("bad_label", f"label: expected a finite number, got {shown(label)}")
        if not target.low <= y <= target.high:
            raise Refusal("out_of_range", f"label {y:g} is outside {target.low:g} to {target.high:g}")
        return y

    return read
