"""When a round of the outer loop falls due, as places in the log: early ones soon, then one every so many events.

The places cut the log into cells. A cell is folded under one version of theta, adopted where it begins.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from streams.events.record import Polled

FIRST = 64
"""The first round, and the least distance between two."""

GROWTH = 4
"""The next round comes after a quarter more events, until rounds are `every` apart."""


@dataclass(frozen=True)
class Schedule:
    """Rounds at 64, 128, 192 and so on, ever further apart, then at multiples of `every`.

    >>> Schedule(4096).next(0), Schedule(4096).next(1000), Schedule(4096).next(20_000)
    (64, 1211, 20480)
    """

    every: int

    @cached_property
    def _early(self) -> tuple[int, ...]:
        """Where the cells begin that are shorter than `every`; 0 first."""
        begins, place = [0], min(FIRST, self.every)
        while max(FIRST, place // GROWTH) < self.every:
            begins.append(place)
            place += max(FIRST, place // GROWTH)
        return tuple(begins)

    @cached_property
    def _regular(self) -> int:
        """The first multiple of `every` that is a place of its own, beyond the early ones."""
        return (self._early[-1] // self.every + 1) * self.every

    def cell(self, position: int) -> int:
        """Where the cell of a position begins."""
        if position >= self._regular:
            return position // self.every * self.every
        return self._early[bisect_right(self._early, position) - 1]

    def next(self, position: int) -> int:
        """Where the next cell begins, above a position."""
        if position >= self._regular:
            return (position // self.every + 1) * self.every
        after = bisect_right(self._early, position)
        return self._early[after] if after < len(self._early) else self._regular


def cut_at_cells(polled: Polled, schedule: Schedule) -> Iterator[Polled]:
    """The records of one partition, cut where the first topic's offset comes to another cell."""
    position, start, end = polled.position, 0, schedule.next(polled.position)
    last = next((offset for (topic, _), offset in polled.backwards() if topic == 0), position)
    if last < end:
        yield polled
        return
    for n, record in enumerate(polled.records):
        if record.topic == 0 and record.offset >= end:
            if n > start:
                yield polled._replace(position=position, records=polled.records[start:n])
            position, start, end = record.offset, n, schedule.next(record.offset)
    yield polled._replace(position=position, records=polled.records[start:])
