"""What is served: probabilities by class, or a number, each with what the experts behind it say."""

from __future__ import annotations

from typing import Any

from engine.targets import Classification, Regression
from engine.types import PREDICTORS, SERVED, Float32

Label = str | int | float | bool
"""A class as the target names it, or a number."""


class Explained:
    """Where a prediction comes from; what experts say has the form of the prediction itself."""

    id: str
    """Of the observation: its label is to carry it."""
    version: int
    """Of theta; 0 while there is none, and the base rate is served."""
    weight: float
    """The adapted model's share in what is served, from 0 to 1."""
    base: Any
    """The base rate of all tasks."""
    recent: Any
    """The task's own labels, whatever its features."""
    theta: Any
    """The shared model."""
    adapted: Any
    """The task's own model."""


class Probabilities(dict[Label, float], Explained):
    """Probability by class, as served."""

    @property
    def likeliest(self) -> Label:
        """The class of the highest probability."""
        return max(self, key=self.__getitem__)


class Value(float, Explained):
    """A number, as served."""


Prediction = Probabilities | Value


def prediction(target: Classification | Regression, values: Float32, **origin: Any) -> Prediction:
    """A prediction out of the numbers [5, C] of `PREDICTORS`; `origin` is its id, version and weight."""
    served: Prediction
    if isinstance(target, Classification):
        *experts, last = (dict(zip(target.classes, row, strict=False)) for row in values.tolist())
        served = Probabilities(last)
    else:
        *experts, last = values[:, 0].tolist()
        served = Value(last)
    vars(served).update(origin, **dict(zip(PREDICTORS[:SERVED], experts, strict=True)))
    return served
