"""Images as a column: square, flattened, and not standardised, since their pixels have one scale already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.features.columns import Encoded


@dataclass(frozen=True)
class Pixels:
    """A square image: `channels` x `side` x `side` numbers from 0 to 1, as nested sequences or an array."""

    name: str
    side: int
    channels: int = 1

    @property
    def width(self) -> int:
        """How many stored numbers the column takes."""
        return self.channels * self.side * self.side

    def encode(self, values: Sequence[Any]) -> Encoded:
        """Flatten images, channel by channel."""
        x = np.zeros((len(values), self.width), np.float32)
        faults: dict[int, str] = {}
        for i, value in enumerate(values):
            try:
                pixels = np.asarray(value, np.float64)
            except (TypeError, ValueError, OverflowError):
                pixels = np.empty(0)
            if pixels.size != self.width or not ((pixels >= 0) & (pixels <= 1)).all():
                faults[i] = (
                    f"field {self.name!r}: expected {self.channels} x {self.side} x {self.side} numbers from 0 to 1"
                )
            else:
                x[i] = pixels.reshape(-1)
        return Encoded(x, faults)
