"""Time as people read it: dates in UTC, and an axis with ticks on whole hours, days, months or years."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

from streams.pages.kit.charts import Axis, Tick

MOST_TICKS = 6

FIRST_S, LAST_S = -62_135_596_800.0, 253_402_300_799.0
"""The years 1 to 9999, which are all that a calendar date can say."""


def moment(time_s: float) -> datetime:
    """Return the time, seconds since the epoch, in UTC."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=min(max(time_s, FIRST_S), LAST_S))


def date(time_s: float) -> str:
    """Return the day: '3 Mar 2013'."""
    at = moment(time_s)
    return f"{at.day} {at:%b} {at.year}"


def minute(time_s: float) -> str:
    """Return the day and minute: '3 Mar 2013 14:05'."""
    return f"{date(time_s)} {moment(time_s):%H:%M}"


def period(first_s: float, last_s: float) -> str:
    """Return first and last day: '1 Jan to 3 Mar 2013', the year once where it is the same."""
    first, last = moment(first_s), moment(last_s)
    if first.date() == last.date():
        return date(last_s)
    return f"{_day(first) if first.year == last.year else date(first_s)} to {date(last_s)}"


def time_axis(low_s: float, high_s: float) -> Axis:
    """Return an axis with at most `MOST_TICKS` ticks on round times."""
    steps: list[tuple[Iterator[datetime], Callable[[datetime], str]]] = [
        *((_hours(low_s, high_s, step), _hour) for step in (1, 3, 6, 12)),
        *((_hours(low_s, high_s, 24 * step), _day) for step in (1, 2, 7, 14)),
        *((_months(low_s, high_s, step), _month) for step in (1, 2, 3, 6)),
        *((_months(low_s, high_s, 12 * step), _year) for step in (1, 2, 5, 10, 100, 1000, 5000)),
    ]
    for places, text in steps:
        ticks = [Tick(at.timestamp(), text(at)) for at, _ in zip(places, range(MOST_TICKS + 1), strict=False)]
        if len(ticks) <= MOST_TICKS:
            break
    first, last = moment(low_s).year, moment(high_s - 1).year
    years = f"{first}" if first == last else f"{first} to {last}"
    return Axis(low_s, high_s, ticks, f"event time, {years} (UTC)")


def _hours(low_s: float, high_s: float, step: int) -> Iterator[datetime]:
    width = 3600 * step
    at = -(-max(low_s, FIRST_S) // width) * width
    while at <= min(high_s, LAST_S):
        yield moment(at)
        at += width


def _months(low_s: float, high_s: float, step: int) -> Iterator[datetime]:
    start = moment(low_s)
    month = start.year * 12 // step * step
    while month < 10_000 * 12:
        at = datetime(max(month // 12, 1), month % 12 + 1, 1, tzinfo=UTC)
        if at.timestamp() > high_s:
            return
        if at.timestamp() >= low_s:
            yield at
        month += step


def _hour(at: datetime) -> str:
    return f"{at:%H:%M}" if at.hour else _day(at)


def _day(at: datetime) -> str:
    return f"{at.day} {at:%b}"


def _month(at: datetime) -> str:
    return f"{at:%b} {at.year}" if at.month == 1 else f"{at:%b}"


def _year(at: datetime) -> str:
    return str(at.year)
