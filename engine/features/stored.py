"""Which numbers a stored row may hold: an embedding that is asked for a bucket there is not reads outside of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engine.features.columns import Category, Column, Numeric, Text
from engine.features.encoder import Features
from engine.features.history import LARGEST
from engine.types import Bool, Float32, Int64


@dataclass(frozen=True)
class StoredNumbers:
    """Of a row [W] as `Features.encode` makes it."""

    field: tuple[str, ...]
    """[W] which field each number is of."""
    low: Float32
    high: Float32
    """[W] least and most."""
    optional: Bool
    """[W] whether NaN stands for a missing one."""
    buckets: Int64
    """[K] places of those that are a bucket, and so whole."""

    def unsound(self, x: Float32) -> Bool:
        """Which of the numbers x [N, W] no encoding makes."""
        broken: Bool = ~((x >= self.low) & (x <= self.high))
        broken &= ~(self.optional & np.isnan(x))
        broken[:, self.buckets] |= x[:, self.buckets] != np.floor(x[:, self.buckets])
        return broken


def stored_numbers(features: Features) -> StoredNumbers:
    """What an encoder makes."""
    widths = [column.width for column in features.columns]
    names = [column.name for column in features.columns]
    limits = np.array([_limits(column) for column in features.columns]).reshape(-1, 3)
    low, high, optional = np.repeat(limits, widths, axis=0).T
    buckets = [
        start + np.arange(column.width)
        for start, column in features.starts()
        if isinstance(column, Category | Text)
    ]
    return StoredNumbers(
        tuple(name for name, width in zip(names, widths, strict=True) for _ in range(width)),
        low.astype(np.float32),
        high.astype(np.float32),
        optional.astype(np.bool_),
        np.concatenate([np.arange(0), *buckets]),
    )


def _limits(column: Column) -> tuple[float, float, bool]:
    """Least and most of any number of a column, and whether it may be missing."""
    if isinstance(column, Category | Text):
        return 0.0, column.buckets - 1.0, False
    return -LARGEST, LARGEST, isinstance(column, Numeric) and column.optional
