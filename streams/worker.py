"""The worker: poll, load, fold, produce, swap, commit. The order of effects is what makes a crash harmless.

    1. poll a batch; what is malformed becomes a dead letter
    2. adopt: the first worker to reach a point of the grid decides which theta the events up to the next are
       folded under; the batch is cut there
    3. load the rows; fold the events that lie above each row's position
    4. produce the outcomes
    5. swap the changed rows, each on the revision read; where another worker came first, reload and refold
    6. commit the position

A crash before 5 repeats 4: outcomes come again, identical. A crash before 6 repeats all of it: every event is
then at or below its row's position, and nothing happens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial, reduce
from itertools import zip_longest
from typing import Any, NamedTuple

import numpy as np

from engine.fold import Engine, Folded
from engine.types import EventBatch, Int64, Kind, Meta, Outcome
from streams.logs.base import EventLog, Polled
from streams.outputs import Outputs
from streams.schedule import Schedule
from streams.stores.base import RecordStore, Swap
from streams.telemetry import Telemetry
from streams.theta import ThetaCache
from streams.wire import Decoded, Rejected, decode, readable_task

SUMMED = ("events", "rejected", "observations", "scored", "alarms", "adaptations", "not_finite", "conflicts")


class Step(NamedTuple):
    """What one batch came to, for progress and metrics."""

    events: int
    rejected: int
    observations: int
    scored: int
    loss_sums: tuple[float, ...]
    """[5] of `PREDICTORS`, over the labels scored."""
    alarms: int
    adaptations: int
    not_finite: int
    conflicts: int
    """Rows that another worker wrote first; they were folded again."""
    version: int
    until_s: float
    """Latest event time of the batch."""


@dataclass(frozen=True)
class Worker:
    """Folds the partitions of a log into a store."""

    engine: Engine
    log: EventLog
    store: RecordStore
    theta: ThetaCache
    outputs: Outputs
    batch: int = 4096
    """At most this many events at once."""
    schedule: Schedule = field(default_factory=partial(Schedule, 1024))
    """Theta is adopted where one of its cells begins."""
    telemetry: Telemetry = field(default_factory=Telemetry)

    def step(self, at_most: int | None = None) -> Step | None:
        """Fold the next batch, of `at_most` events where given; None where there are none (yet)."""
        polled = self.log.poll(self.batch if at_most is None else min(self.batch, at_most))
        return self.take(polled) if polled else None

    def take(self, polled: Sequence[Polled]) -> Step:
        """Fold what was polled; doing it again does nothing more.

        Raises:
            Unavailable: a server is away. Nothing is lost; what was polled may be taken again.

        """
        steps = [self._fold(decode(parts, self.engine.spec), version) for version, parts in self._cut(polled)]
        self.log.commit({place: offset for part in polled for place, offset in part.after().items()})
        return reduce(_added, steps)

    def _cut(self, polled: Sequence[Polled]) -> Iterator[tuple[int, list[Polled]]]:
        """What was polled, cut where theta is adopted; what is folded under one version stays together."""
        pieces = [
            [(self._adopted(piece), piece) for piece in cut_at_cells(part, self.schedule)] for part in polled
        ]
        for side_by_side in zip_longest(*pieces):
            by_version: dict[int, list[Polled]] = {}
            for version, piece in filter(None, side_by_side):
                by_version.setdefault(version, []).append(piece)
            yield from by_version.items()

    def _adopted(self, piece: Polled) -> int:
        """The version of this cell: adopted where the cell begins, by whoever came first."""
        cell = piece.source(self.schedule.cell(piece.position))
        with self.telemetry.store_seconds("adopt"):
            return self.store.adopt(cell, self.theta.current())

    def _fold(self, decoded: Decoded, version: int) -> Step:
        """Load, fold, produce and swap, again and again for tasks that another worker wrote meanwhile."""
        rejected = self._not_forgotten(decoded.rejected)
        self.outputs.dead_letters.append(rejected)
        meta, part, step = self.theta.get(version), self._remembered(decoded), None
        while True:
            folded = self._produced(part, meta)
            lost = self._swap(part.events, folded)
            step = step or self._counted(part, folded, meta, rejected)
            if not len(lost):
                return step
            step = step._replace(conflicts=step.conflicts + len(lost))
            part = self._remembered(only(part, lost))

    def _not_forgotten(self, rejected: Sequence[Rejected]) -> list[Rejected]:
        """Leave out what was refused of tasks that were to be forgotten: a dead letter would remember them."""
        tasks = [readable_task(refused.record) for refused in rejected]
        forgotten = self.store.forgotten(sorted(set(filter(None, tasks)))) if rejected else ()
        kept = [refused for refused, task in zip(rejected, tasks, strict=True) if task not in forgotten]
        self.telemetry.forgotten(len(rejected) - len(kept))
        return kept

    def _remembered(self, decoded: Decoded) -> Decoded:
        """Leave out the events of tasks that were to be forgotten; they are not even dead letters."""
        forgotten = self.store.forgotten(decoded.tasks)
        if not forgotten:
            return decoded
        kept = [u for u, task in enumerate(decoded.tasks) if task not in forgotten]
        self.telemetry.forgotten(int((~np.isin(decoded.events.row, kept)).sum()))
        return only(decoded, np.array(kept, np.int64))

    def _produced(self, part: Decoded, meta: Meta) -> Folded:
        """Fold, and produce the outcomes."""
        with self.telemetry.store_seconds("load"):
            states = self.store.load(self.engine.layout, part.tasks)
        folded = self.engine.fold(states, part.events, meta)
        self.outputs.produce(part.events, part.records, part.tasks, folded)
        self.outputs.sync()
        return folded

    def _swap(self, events: EventBatch, folded: Folded) -> Int64:
        """Write the rows that changed; returns the tasks whose row another worker wrote first."""
        changed = np.unique(events.row[folded.outcomes.code != Outcome.DUPLICATE])
        if not len(changed):
            return changed
        with self.telemetry.store_seconds("swap"):
            results = self.store.swap(folded.states.take(changed))
        self.telemetry.swapped(results)
        return changed[[result is Swap.LOST for result in results]]

    def _counted(self, part: Decoded, folded: Folded, meta: Meta, rejected: Sequence[Rejected]) -> Step:
        """Count a batch in the metrics and for the eye; what is folded again is not counted again."""
        self.telemetry.rejected(one.reason for one in rejected)
        self.telemetry.folded(folded.outcomes, folded.outcomes.weight, folded.not_finite)
        for seconds, tasks in folded.inner_loops:
            self.telemetry.adapted(seconds, tasks)
        return _summary(part.events, folded, meta.version)._replace(rejected=len(rejected))


def cut_at_cells(polled: Polled, schedule: Schedule) -> Iterator[Polled]:
    """The records of one partition, cut where the first topic's offset comes to another cell."""
    position, start = polled.position, 0
    for n, record in enumerate(polled.records):
        if record.topic == 0 and schedule.cell(record.offset) != schedule.cell(position):
            if n > start:
                yield polled._replace(position=position, records=polled.records[start:n])
            position, start = record.offset, n
    yield polled._replace(position=position, records=polled.records[start:])


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


def _added(one: Step, other: Step) -> Step:
    """Two parts of a batch as one."""
    losses = tuple(a + b for a, b in zip(one.loss_sums, other.loss_sums, strict=True))
    summed = {name: getattr(one, name) + getattr(other, name) for name in SUMMED}
    later = {name: max(getattr(one, name), getattr(other, name)) for name in ("version", "until_s")}
    return one._replace(loss_sums=losses, **summed, **later)


def _summary(events: EventBatch, folded: Folded, version: int) -> Step:
    out = folded.outcomes
    sums = np.nansum(out.loss, axis=0)
    return Step(
        events=len(events),
        rejected=0,
        observations=int((events.kind == Kind.OBSERVATION).sum()),
        scored=int((out.code == Outcome.SCORED).sum()),
        loss_sums=tuple(map(float, sums)),
        alarms=int(out.alarm.sum()),
        adaptations=folded.adaptations,
        not_finite=folded.not_finite,
        conflicts=0,
        version=version,
        until_s=float(events.time_s.max(initial=0.0)),
    )
