"""What a label is: one of some classes, or a value of a range; how it is predicted, and what an error costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from engine.types import Bool, EngineError, Float32, Float64, is_index


@dataclass(frozen=True)
class Classification:
    """Labels are one of `classes`, any sequence; probabilities are served, log loss is counted in nats.

    `floor` mixes that much of the uniform distribution into every probability before it is mixed,
    served or scored, so that no single label can cost more than -log(floor). Classes are `exchangeable` where a
    class of one task is not the same class of another, as in N-way episodes: then theta holds nothing of a class.

    With a `reserve`, theta and rows have room for so many classes, and more may be appended to `classes` until
    they are as many. A class not named yet takes no probability from the others. It has the floor itself, since
    a prediction made before a class was named may be scored by a label of it.
    """

    classes: Sequence[str | int | float | bool]
    floor: float = 1e-6
    exchangeable: bool = False
    reserve: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", tuple(self.classes))
        if len(self.classes) < 2 or len(set(self.classes)) != len(self.classes):
            raise EngineError(f"classes must be at least two different values, got {list(self.classes)}")
        if self.reserve and self.reserve < len(self.classes):
            raise EngineError(
                f"reserve makes room for {self.reserve} classes, and there are {len(self.classes)}; "
                "a larger reserve is another theta: begin anew with it"
            )
        if not 0 < self.floor * self.outputs < 1:
            raise EngineError(f"floor must be above 0 and below {1 / self.outputs:g}, got {self.floor}")

    @property
    def outputs(self) -> int:
        """Model outputs C: one for each class, and for each that may be named yet."""
        return self.reserve or len(self.classes)

    @property
    def expected(self) -> str:
        """What a label may be, in words."""
        return f"the index of one of {len(self.classes)} classes, 0 to {len(self.classes) - 1}"

    def allows(self, y: Float32 | Float64) -> Bool:
        """Which labels [N] are the index of a class."""
        return is_index(y, len(self.classes))

    def predict(self, outputs: Tensor) -> Tensor:
        """Outputs [..., C] to probabilities [..., C]; those of the classes named sum to 1."""
        named = len(self.classes)
        probabilities = torch.softmax(outputs[..., :named], dim=-1) * (1 - named * self.floor) + self.floor
        return F.pad(probabilities, (0, self.outputs - named), value=self.floor)

    def loss(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Cross-entropy of each example among the classes named; outputs [..., C], y [...].

        An example of a class that is not named counts for nothing: another process names more of them.
        """
        named = len(self.classes)
        known = outputs[..., :named].reshape(-1, named)
        if named == self.outputs:
            return F.cross_entropy(known, y.reshape(-1).long(), reduction="none").view(y.shape)
        label = y.clamp(max=named - 1).reshape(-1).long()
        return F.cross_entropy(known, label, reduction="none").view(y.shape) * (y < named)


FARTHEST = 1e18
"""Of a label from 0: its square is a number in float32."""


@dataclass(frozen=True)
class Regression:
    """Labels are numbers from `low` to `high`; squared loss.

    The range is needed: exponential weights on squared loss are bounded only where predictions and
    labels are (Cesa-Bianchi and Lugosi 2006, section 3.3). Predictions are clipped to it; a label
    outside it is refused as bad input.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise EngineError(f"low must be below high, got {self.low} and {self.high}")
        if max(-self.low, self.high) > FARTHEST:
            raise EngineError(
                f"low and high must lie between {-FARTHEST:g} and {FARTHEST:g}, got {self.low} and {self.high}: "
                "choose another unit, or what labels can truly be"
            )

    @property
    def outputs(self) -> int:
        """Model outputs C."""
        return 1

    @property
    def expected(self) -> str:
        """What a label may be, in words."""
        return f"a number from {self.low:g} to {self.high:g}"

    def allows(self, y: Float32 | Float64) -> Bool:
        """Which labels [N] lie in the range, as float32 has it."""
        return np.asarray((y >= np.float32(self.low)) & (y <= np.float32(self.high)))

    def predict(self, outputs: Tensor) -> Tensor:
        """Outputs [..., 1] to values [..., 1]."""
        return outputs.clamp(self.low, self.high)

    def loss(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Squared error of each example; outputs [..., 1], y [...]."""
        return (outputs.squeeze(-1) - y) ** 2
