"""Each feature of a sample: what it holds, and what would make it useless or too good."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engine.features.columns import Category
from engine.targets import Classification, Regression
from engine.types import Float64
from streams.checking.leaks import Alone, alone
from streams.checking.sample import FeatureValues

FEWEST = 20
"""Values; of fewer, it is not said that they look like an id, or that a class is missing among them."""

NEARLY_ALL = 0.9
"""Share of values that are distinct, from which on a category looks like an id."""

FALLS = 0.001
"""Share of steps that may go down in a number that rises with time."""


@dataclass(frozen=True)
class FeatureFacts:
    """What one feature holds."""

    name: str
    encoder: str
    missing: int
    distinct: int
    """Different values; a missing one among them where it is a category of its own."""
    buckets: int
    """0 for a feature that is no category."""
    sharing: int
    """How many values of a category share their bucket with another."""
    is_constant: bool
    is_id: bool
    rises: bool
    alone: Alone | None


def facts_of(feature: FeatureValues, y: Float64, target: Classification | Regression) -> FeatureFacts:
    """Look at one feature of N observations, whose labels are y [N], NaN where none came."""
    present = feature.values[~np.isnan(feature.values)]
    distinct, total = len(np.unique(present)), len(feature.values)
    is_category = isinstance(feature.column, Category)
    is_id = is_category and len(present) >= FEWEST and distinct >= NEARLY_ALL * len(present)
    a_bucket = np.bincount(feature.buckets) if len(feature.buckets) else np.zeros(1, np.int64)
    return FeatureFacts(
        name=feature.column.name,
        encoder=type(feature.column).__name__.lower(),
        missing=feature.missing,
        distinct=distinct,
        buckets=getattr(feature.column, "buckets", 0) if is_category else 0,
        sharing=int(a_bucket[a_bucket > 1].sum()),
        is_constant=total > 1 and distinct + (len(present) < total) <= 1,
        is_id=is_id,
        rises=feature.is_number and _rises(present, distinct),
        alone=alone(feature.values, y, target, is_number=feature.is_number),
    )


def _rises(present: Float64, distinct: int) -> bool:
    return distinct >= FEWEST and float((np.diff(present) < 0).mean()) <= FALLS
