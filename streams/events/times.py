"""Event times as seconds since the epoch, and in words what is wrong with a value that is none."""

from __future__ import annotations

from datetime import UTC, datetime
from math import nan
from typing import Any

from streams.events.numbers import number_of
from streams.events.wording import shown, utc

FIRST_S = datetime.min.replace(tzinfo=UTC).timestamp()
LAST_S = datetime.max.replace(tzinfo=UTC).timestamp()
"""Event times lie in the years 1 to 9999; milliseconds since the epoch, the common mistake, do not."""

YEAR_S = 366 * 86_400.0

UNITS = (("milliseconds", 1e3), ("microseconds", 1e6), ("nanoseconds", 1e9))
USUAL_S = 10 * YEAR_S, 200 * YEAR_S
"""A number that is a time of these years in another unit is taken for one in words."""


def epoch_seconds(value: Any) -> float:
    """Event time as seconds since the epoch; NaN for what is no time of the years 1 to 9999.

    Numbers, and text that is a number, are seconds already. A time without zone is UTC.

    >>> epoch_seconds("1970-01-02"), epoch_seconds("1970-01-01T01:00+01:00"), epoch_seconds("12.5")
    (86400.0, 0.0, 12.5)
    """
    time_s = _timestamp(value) if isinstance(value, datetime) else number_of(value)
    if time_s is None and isinstance(value, str):
        time_s = _iso_seconds(value)
    return time_s if time_s is not None and FIRST_S <= time_s <= LAST_S else nan


def why_no_time(value: Any) -> str:
    """What is wrong with a value that is no time.

    >>> why_no_time(1_700_000_000_000)
    'time 1700000000000 is too large for seconds since the epoch; as milliseconds it is 2023-11-14 22:13'
    """
    number = number_of(value)
    if number is None or not number > LAST_S:
        return (
            f"time: expected seconds since the epoch, or ISO 8601 as 2024-01-31T12:00:00, got {shown(value)}"
        )
    sizes = [(unit, number / a_second) for unit, a_second in UNITS]
    meant = [f"as {unit} it is {utc(time_s)}" for unit, time_s in sizes if USUAL_S[0] <= time_s <= USUAL_S[1]]
    return "; ".join([f"time {shown(value)} is too large for seconds since the epoch", *meant])


def _iso_seconds(text: str) -> float | None:
    try:
        return _timestamp(datetime.fromisoformat(text))
    except (ValueError, OverflowError):
        return None


def _timestamp(time: datetime) -> float:
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
