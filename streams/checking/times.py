"""The times of a sample: the range that was read, and what hints at another unit or a broken clock."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from streams.checking.sample import Sample
from streams.moments import YEAR_S
from streams.words import utc


def range_of(sample: Sample) -> str:
    """When the first and the last event of a sample that has some take place, as read."""
    return f"{utc(float(sample.time_s.min()))} to {utc(float(sample.time_s.max()))} UTC"


def suspicious(sample: Sample, now_s: float) -> Iterator[str]:
    """What looks wrong about the times of observations, in sentences."""
    times = sample.time_s[sample.labels == 0]
    if not len(times):
        return
    in_1970 = (times >= 0) & (times < YEAR_S)
    if in_1970.all():
        yield (
            f"every time was read as one of 1970, {range_of(sample)}: a date as 20240115, or a number of days or "
            "minutes, is taken for seconds since the epoch; write input.time in seconds, or as 2024-01-15"
        )
    elif in_1970.any() and np.median(times) > 10 * YEAR_S:
        yield (
            f"{int(in_1970.sum()):,} of {len(times):,} observations take place in 1970: if 0 stands for a time that "
            "is missing, leave input.time empty there"
        )
    if times.max() > now_s + YEAR_S:
        yield (
            f"times run to {utc(float(times.max()))}, which is yet to come: if input.time is in another unit, "
            "write it in seconds since the epoch, or as 2024-01-15"
        )
