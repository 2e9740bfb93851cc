"""How many events a worker takes at once: as many as its time budget holds, and enough to keep its throughput.

A batch costs a fixed time (the store, the outputs, the calls into torch) and a time for each event. Limited to the
budget alone, a worker on a busy machine, where the fixed time is longer than that, would take ever fewer events
for the same time, and fall behind all the faster.
"""

from __future__ import annotations

from collections import deque
from math import inf
from statistics import fmean, linear_regression, pstdev

SMALLEST_BATCH = 32
LATELY = 32
"""Batches whose costs are remembered."""
TOLD_APART = 0.1
"""Sizes that differ by less, relative to their mean, do not tell the fixed time from that of the events."""


class BatchLimit:
    """The most events of the next batch, from what the latest batches cost.

    Its events may take what the budget leaves beside the fixed time, or as long as the fixed time where that is
    longer: so a batch takes `budget_s` where half of that suffices for the fixed time, and elsewhere as long as keeps
    half of the throughput that the largest batches would have. The limit is moved by full batches alone, at most to
    its half or its double: one that is not full tells what a batch costs, but no limit made it so small.

    Args:
        budget_s: how long a batch should take.
        most: no batch is larger.

    """

    def __init__(self, budget_s: float, most: int) -> None:
        self.events = most
        self._budget_s, self._most = budget_s, most
        self._lately: deque[tuple[int, float]] = deque(maxlen=LATELY)

    def learn(self, events: int, took_s: float) -> None:
        """A batch of so many events took so long."""
        self._lately.append((events, took_s))
        if events >= self.events:
            fitting = min(2.0 * self.events, max(0.5 * self.events, self._fitting()))
            self.events = int(min(self._most, max(SMALLEST_BATCH, fitting)))

    def _fitting(self) -> float:
        fixed_s, each_s = self._costs()
        return max(self._budget_s - fixed_s, fixed_s) / each_s if each_s > 0 else inf

    def _costs(self) -> tuple[float, float]:
        """Seconds of a batch and of each of its events; all is the events' while batches were of about one size."""
        sizes, times = zip(*self._lately, strict=True)
        if pstdev(sizes) < TOLD_APART * fmean(sizes):
            return 0.0, fmean(times) / fmean(sizes)
        each_s, fixed_s = linear_regression(sizes, times)
        return fixed_s, each_s
