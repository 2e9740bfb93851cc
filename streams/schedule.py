"""When a round of the outer loop falls due, as places in the log: early ones soon, then one every so many events.

The places cut the log into cells. A cell is folded under one version of theta, adopted where it begins.
"""

from __future__ import annotations

from dataclasses import dataclass

FIRST = 64
"""The first round; each of the next comes after twice as many events, until they are `every` apart."""


@dataclass(frozen=True)
class Schedule:
    """Rounds at 64, 128, 256 and so on below `every`, then at its multiples."""

    every: int

    def cell(self, position: int) -> int:
        """Where the cell of a position begins."""
        if position >= self.every:
            return position // self.every * self.every
        return 0 if position < FIRST else 1 << (position.bit_length() - 1)

    def next(self, position: int) -> int:
        """Where the next cell begins, above a position."""
        if position >= self.every:
            return (position // self.every + 1) * self.every
        return min(max(FIRST, 1 << position.bit_length()), self.every)
