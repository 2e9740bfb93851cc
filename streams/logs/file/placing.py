"""Where the events of a table lie in time: what cannot be read, or cannot be true, takes the place of a neighbour."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf
from typing import NamedTuple

import numpy as np

from engine.types import Bool, Float64
from streams.events.times import FIRST_S, YEAR_S
from streams.events.wording import utc
from streams.logs.file.tables import NEVER, UNDATED, UNPLACED, Clock


class Placed(NamedTuple):
    """When the events of R rows take place in the log."""

    times: Float64
    """[R] of the observation; that of the row before where it cannot be read, or is later than `latest_s`."""
    label_times: Float64
    """[R] of the label, never before its observation; NEVER where none arrives."""
    early: Bool
    """[R] whether the label is dated before its observation, and is placed right after it."""
    undated: int
    """Labels without a time of their own, where a column is named for it: they never arrive."""
    latest_s: float
    """A time after this one cannot be true; infinity where all may be."""
    untrue: Bool
    """[2, R] whether the time of the observation, and of the label, lies after it."""

    def remarks(self) -> Iterator[str]:
        """What a user should know of it, in sentences."""
        labels = int((~np.isnan(self.label_times)).sum()) + self.undated
        if not len(self.times):
            yield "the table has no rows"
        if early := int(self.early.sum()):
            yield (
                f"{early:,} of {labels:,} labels are dated before their observation, and are placed right after it: "
                "look at input.label_time, where a date alone means midnight"
            )
        if self.undated:
            yield (
                f"{self.undated:,} of {labels:,} labels have no time in the column input.label_time, and never "
                "arrive: fill it in, or leave the label empty too"
            )


def placed(clock: Clock, written_s: float) -> Placed:
    """Place the events of a table that was last written at `written_s`."""
    latest_s = latest(clock, written_s)
    times = np.where(clock.times > latest_s, np.nan, clock.times)
    sound = ~np.isnan(times)
    times = _filled(times, sound)
    undated = clock.label_times == UNDATED
    label_times = np.where(undated, NEVER, clock.label_times)
    label_times = np.where((label_times == UNPLACED) | (label_times > latest_s), times, label_times)
    early = sound & (label_times < times)
    untrue = np.stack([clock.times > latest_s, clock.label_times > latest_s])
    return Placed(times, np.where(early, times, label_times), early, int(undated.sum()), latest_s, untrue)


def suspicious(times: Float64, written_s: float) -> Iterator[str]:
    """What looks wrong about times [R] that were readable, of a table last written at `written_s`, in sentences."""
    times = times[np.isfinite(times)]
    if not len(times):
        return
    if in_year_1 := int((times < FIRST_S + YEAR_S).sum()):
        yield (
            f"{in_year_1:,} of {len(times):,} rows take place in the year 1, and before all others: if 0001-01-01 "
            "stands for a time that is missing, leave input.time empty there"
        )
    in_1970 = (times >= 0) & (times < YEAR_S)
    if in_1970.all():
        yield (
            f"every time was read as one of 1970, {utc(times.min())} to {utc(times.max())}: a date as 20240115, or a "
            "number of days or minutes, is taken for seconds since the epoch; write input.time in seconds, or as "
            "2024-01-15"
        )
    elif in_1970.any() and np.median(times) > 10 * YEAR_S:
        yield (
            f"{int(in_1970.sum()):,} of {len(times):,} rows take place in 1970: if 0 stands for a time that is "
            "missing, leave input.time empty there"
        )
    if times.max() > written_s + YEAR_S:
        yield (
            f"times run to {utc(times.max())}, long after the table was written: if input.time is in another unit, "
            "write it in seconds since the epoch, or as 2024-01-15"
        )


def latest(clock: Clock, written_s: float) -> float:
    """The last time that can be true; infinity where all may be.

    A row of the year 2096 in a table of 2024 has a broken clock. Three signs tell it, and only together: it lies
    more than a year after the file was written, more than a year after every time of the file but those like it,
    and most times of the file lie before it. So neither a long gap nor a table of the future is taken for it.
    """
    known = np.concatenate([clock.times, clock.label_times])
    known = known[np.isfinite(known)]
    ahead = known > written_s + YEAR_S
    if not ahead.any() or ahead.mean() > 0.5:
        return inf
    chain = np.concatenate([[known[~ahead].max()], np.sort(known[ahead])])
    leaps = np.flatnonzero(np.diff(chain) > YEAR_S)
    return float(chain[leaps[0]]) if len(leaps) else inf


def _filled(times: Float64, sound: Bool) -> Float64:
    """Times [R], those that are not sound replaced by that of the row before; the first ones come before all."""
    latest_sound = np.maximum.accumulate(np.where(sound, np.arange(len(times)), -1))
    return np.where(latest_sound < 0, -inf, times[latest_sound])
