"""`Online` as a classifier or regressor of river: the task is a field of x, and river's own evaluation runs on it.

River hands a label back with the features of its observation, and no id: so an observation is known by its fields.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from river import base

from engine.features.columns import Column
from engine.targets import Classification, Regression
from reptide.online import Online
from reptide.predictions import Label, Prediction, Probabilities, Value

MOST_WAITING = 100_000
"""Observations whose label may come yet, of all tasks."""


class _Adapter:
    """What classifier and regressor share."""

    def __init__(
        self,
        features: Sequence[Column],
        target: Classification | Regression,
        task: str,
        time: str | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        """A model that has seen nothing.

        Args:
            features: the fields that are read of x.
            target: classes, or the range of a number.
            task: the field of x that names the task.
            time: the field of x with the event time; without it, a second passes from one observation to the next.
            settings: of `Online`.

        """
        self.features, self.target, self.task, self.time, self.settings = (
            features,
            target,
            task,
            time,
            settings,
        )
        self.online = Online(features, target, settings=settings)
        self._waiting: OrderedDict[Hashable, deque[str]] = OrderedDict()
        self._now: Any = 0.0

    def _served(self, x: Mapping[str, Any]) -> Prediction:
        """Serve an observation, and remember its id by its fields."""
        self._now = self._now + 1.0 if self.time is None else x[self.time]
        served = self.online.predict_one(x[self.task], x, at=self._now)
        self._waiting.setdefault(_known_by(x), deque()).append(served.id)
        if len(self._waiting) > MOST_WAITING:
            self._waiting.popitem(last=False)
        return served

    def _learn(self, x: Mapping[str, Any], y: Label) -> None:
        """Learn a label: of the first observation of these fields that waits, or of none."""
        known_by = _known_by(x)
        ids = self._waiting.get(known_by)
        observed = ids.popleft() if ids else None
        if ids is not None and not ids:
            del self._waiting[known_by]
        self.online.learn_one(x[self.task], y, x=x, id=observed, at=self._now)


class OnlineClassifier(_Adapter, base.Classifier):  # type: ignore[misc]
    """A classifier of river, with a model of its own for every task."""

    def predict_proba_one(self, x: dict[Any, Any]) -> dict[Label, float]:
        """Probability by class."""
        served = self._served(x)
        return dict(served) if isinstance(served, Probabilities) else {}

    def learn_one(self, x: dict[Any, Any], y: Label) -> None:
        """Learn the label of an observation."""
        self._learn(x, y)


class OnlineRegressor(_Adapter, base.Regressor):  # type: ignore[misc]
    """A regressor of river, with a model of its own for every task."""

    def predict_one(self, x: dict[Any, Any]) -> float:
        """The value."""
        served = self._served(x)
        return float(served) if isinstance(served, Value) else 0.0

    def learn_one(self, x: dict[Any, Any], y: float) -> None:
        """Learn the label of an observation."""
        self._learn(x, y)


def _known_by(x: Mapping[str, Any]) -> Hashable:
    """The fields of an observation, as what tells it from others."""
    return tuple(sorted((str(name), repr(value)) for name, value in x.items()))
