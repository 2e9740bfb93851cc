"""The worker: poll, load, fold, produce, swap, commit. The order of effects is what makes a crash harmless.

    1. poll a batch that ends before the next adoption point; what is malformed becomes a dead letter
    2. adopt: the first worker to reach a point of the grid decides which theta its events are folded under
    3. load the rows; fold the events that lie above each row's position
    4. produce the outcomes
    5. swap the changed rows, each on the revision read; where another worker came first, reload and refold
    6. commit the position

A crash before 5 repeats 4: outcomes come again, identical. A crash before 6 repeats all of it: every event is
then at or below its row's position, and nothing happens.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from engine.fold import Engine, Folded
from engine.types import EventBatch, Int64, Kind, Meta, Outcome
from streams.logs.base import EventLog, Polled
from streams.outputs import Outputs
from streams.stores.base import RecordStore, Swap
from streams.theta import ThetaCache
from streams.wire import Decoded, decode


class Step(NamedTuple):
    """What one batch came to, for progress and metrics."""

    events: int
    rejected: int
    observations: int
    scored: int
    loss_sums: tuple[float, float, float]
    """Of theta, adapted and served, over the labels scored."""
    alarms: int
    adaptations: int
    not_finite: int
    version: int
    until_s: float
    """Latest event time of the batch."""


@dataclass(frozen=True)
class Worker:
    """Folds one partition of a log into a store."""

    engine: Engine
    log: EventLog
    store: RecordStore
    theta: ThetaCache
    outputs: Outputs
    batch: int = 4096
    """At most this many events at once."""
    grid: int = 4096
    """Theta is adopted where the offset is a multiple of this."""

    def step(self, through: int | None = None) -> Step | None:
        """Fold the next batch, up to offset `through` where given; None at the end of the log."""
        position = self.log.position()
        limit = min(self.batch, self.grid - position % self.grid)
        polled = self.log.poll(limit if through is None else min(limit, through - position))
        if polled is None:
            return None
        decoded = decode(polled, self.engine.spec)
        meta = self.theta.get(self._adopted(polled))
        self.outputs.reject(decoded.rejected, [self.log.origin(one.record) for one in decoded.rejected])
        folded = self._fold(decoded, meta)
        self.log.commit(self.log.position())
        return _summary(decoded, folded, meta.version)

    def _adopted(self, polled: Polled) -> int:
        """The version for this batch: adopted where its cell begins, by whoever came first."""
        cell = polled.records[0].offset // self.grid * self.grid
        return self.store.adopt(polled.source.partition, cell, self.theta.current())

    def _fold(self, decoded: Decoded, meta: Meta) -> Folded:
        """Load, fold, produce and swap, again and again for tasks that another worker wrote meanwhile."""
        first: Folded | None = None
        part = decoded
        while True:
            folded = self.engine.fold(self.store.load(self.engine.layout, part.tasks), part.events, meta)
            first = first or folded
            self.outputs.produce(part.events, part.records, part.tasks, folded)
            self.outputs.sync()
            lost = self._swap(part.events, folded)
            if not len(lost):
                return first
            part = only(part, lost)

    def _swap(self, events: EventBatch, folded: Folded) -> Int64:
        """Write the rows that changed; returns the tasks whose row another worker wrote first."""
        changed = np.unique(events.row[folded.outcomes.code != Outcome.DUPLICATE])
        if not len(changed):
            return changed
        results = self.store.swap(folded.states.take(changed))
        return changed[[result is Swap.LOST for result in results]]


def only(decoded: Decoded, tasks: Int64) -> Decoded:
    """The events of some of the tasks."""
    new_row = np.full(len(decoded.tasks), -1)
    new_row[tasks] = np.arange(len(tasks))
    kept = np.flatnonzero(new_row[decoded.events.row] >= 0)
    columns: dict[str, Any] = {
        name: value[kept] for name, value in vars(decoded.events).items() if isinstance(value, np.ndarray)
    }
    events = replace(decoded.events, **(columns | {"row": new_row[columns["row"]]}))
    records = [decoded.records[n] for n in kept.tolist()]
    return Decoded(tuple(decoded.tasks[u] for u in tasks), events, records, ())


def _summary(decoded: Decoded, folded: Folded, version: int) -> Step:
    out, events = folded.outcomes, decoded.events
    sums = np.nansum(out.loss, axis=0)
    return Step(
        events=len(events),
        rejected=len(decoded.rejected),
        observations=int((events.kind == Kind.OBSERVATION).sum()),
        scored=int((out.code == Outcome.SCORED).sum()),
        loss_sums=(float(sums[0]), float(sums[1]), float(sums[2])),
        alarms=int(out.alarm.sum()),
        adaptations=folded.adaptations,
        not_finite=folded.not_finite,
        version=version,
        until_s=float(events.time_s.max(initial=0.0)),
    )
