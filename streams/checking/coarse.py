"""Numbers that half precision would leave too little of: years, and others with much in common."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from engine.features.columns import Numeric
from engine.stream.rounding import remembered
from engine.stream.spec import StreamSpec
from engine.types import Float64
from streams.checking.sample import FeatureValues

COARSE = 0.05
"""By how much of their distance from the middle values may be moved; one without an offset is moved by .002 of it."""


def coarse(features: Iterable[FeatureValues], spec: StreamSpec) -> Iterator[str]:
    """A warning for each number of which rounding moves the usual value by more than that."""
    for feature in features:
        if not isinstance(feature.column, Numeric) or not spec.is_rounded(feature.column):
            continue
        # Zero stays zero, and may only say that there is no value.
        values = feature.values[~np.isnan(feature.values) & (feature.values != 0)]
        left = rounded(values)
        if moved(values, left) > COARSE:
            yield (
                f"field {feature.column.name!r} lies between {values.min():g} and {values.max():g}, and half "
                f"precision keeps {len(np.unique(left)):,} of its {len(np.unique(values)):,} values apart: name it "
                "in memory.exact, or take away what its values have in common"
            )


def rounded(values: Float64) -> Float64:
    """Values [N] as rows remember them."""
    x = values.astype(np.float32).reshape(-1, 1)
    return remembered(x, np.zeros(1, np.int64))[:, 0].astype(np.float64)


def moved(values: Float64, left: Float64) -> float:
    """How far rounding moves the usual value, as a share of its distance from the middle of all; 0 of a constant."""
    distance = np.abs(values - np.median(values)) if len(values) else values
    apart = distance > 0
    return float(np.median(np.abs(left - values)[apart]) / np.median(distance[apart])) if apart.any() else 0.0
