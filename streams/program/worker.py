"""The worker: poll, load, fold, produce, swap, commit. The order of effects is what makes a crash harmless.

    1. poll a batch; what is malformed, or not to be folded (`streams.program.set_aside`), becomes a dead letter
    2. adopt: the first worker to reach a point of the grid decides which theta the events up to the next are
       folded under; the batch is cut there
    3. load the rows; fold the events that lie above each row's position
    4. produce the outcomes
    5. swap the changed rows, each on the revision read; where another worker came first, reload and refold
       forget the tasks whose messages without a value come next, where that is set (`streams.program.set_aside`)
    6. have the store confirm what was written, by this worker or by one that died here; commit the position

A crash before 5 repeats 4: outcomes come again, identical. A crash before 6 repeats all of it: every event is
then at or below its row's position, and nothing happens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import partial, reduce
from itertools import zip_longest
from time import sleep

import numpy as np

from engine.stream.fold import Engine
from engine.stream.sources import SourceMoved
from engine.stream.table import RowError, TaskTable
from engine.types import Int64
from streams.errors import Unavailable
from streams.events.decoding import Decoded, decode
from streams.events.reading import Rejected, in_log_order, readable_task
from streams.events.record import Polled, SourcePosition
from streams.events.wording import unheard
from streams.logs.base import EventLog
from streams.program.lessons import nothing
from streams.program.outputs import Outputs
from streams.program.schedule import Schedule, cut_at_cells
from streams.program.set_aside import (
    Parted,
    cut_at_forgetting,
    only,
    strangers,
    strays,
    to_forget,
    unreadable,
)
from streams.program.step import Step, added, summary
from streams.program.theta import ThetaCache
from streams.program.unwritten import Unwritten, loaded, unwritten
from streams.stores.base import RecordStore, Swap
from streams.watch.telemetry import Telemetry

PAUSES_S = (0.0, *(min(0.01 * 2**n, 0.5) for n in range(12)))
"""Before each new attempt at the rows of a batch: about four seconds in all, within any session timeout."""

MOST_TOLD = 1000
"""Damaged rows that are named one by one."""


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
    say: Callable[[str], object] = unheard
    """Tells an operator, in a sentence."""
    wait: Callable[[float], object] = sleep
    """Before the rows of tasks are tried again that another worker wrote first."""
    keyed: bool = True
    """Whether the key of an event is its task's id, where the input has several partitions."""
    claims: bool = True
    """Whether rows keep the partition that they were folded from: not where tasks are followed to partitions that
    were added, and the next event of each decides."""
    forgets_for_s: float | None = None
    """How long a task is not taken up again that a message without a value forgets; None: those are dead letters."""
    told: set[str] = field(default_factory=set)
    """Tasks whose rows were said to be damaged."""

    def step(self, at_most: int | None = None) -> Step | None:
        """Fold the next batch, of `at_most` events where given; None where there are none (yet)."""
        polled = self.poll(at_most)
        return self.take(polled) if polled else None

    def poll(self, at_most: int | None = None) -> Sequence[Polled]:
        """The next batch, of `at_most` events where given."""
        return self.log.poll(self.batch if at_most is None else min(self.batch, at_most))

    def take(self, polled: Sequence[Polled]) -> Step:
        """Fold what was polled; doing it again does nothing more.

        Raises:
            Unavailable: a server is away. Nothing is lost; what was polled may be taken again.
            SourceMoved: the input has another number of partitions than rows were folded from, or was made anew.

        """
        self._check_partitions(polled)
        steps = []
        for version, parts in self._cut(polled):
            batch = self._fold(parts, version)
            steps.append(self.settle(batch, self.write(batch)))
        self.commit(polled)
        return reduce(added, steps)

    def fold(
        self, polled: Sequence[Polled], behind: Unwritten | None, when_loaded: Callable[[], object]
    ) -> Unwritten:
        """Fold what was polled, of one cell of one partition, onto rows as they are once `behind` is written.

        Writes nothing. Raises as `take`.
        """
        self._check_partitions(polled)
        ((version, parts),) = self._cut(polled)
        return self._fold(parts, version, behind, when_loaded)

    def write(self, batch: Unwritten) -> Int64:
        """Produce, then write the rows that changed; returns the tasks whose row another worker wrote first."""
        self.outputs.dead_letters.append(in_log_order(batch.rejected))
        self.outputs.produce(batch.part.events, batch.part.records, batch.part.tasks, batch.folded)
        self.outputs.sync()
        return self._swap(batch)

    def settle(self, batch: Unwritten, lost: Int64) -> Step:
        """Fold and write again and again what was lost to another worker, and count what came of a batch.

        Raises:
            Unavailable: another worker wrote the same rows first each time.

        """
        step, rejected, conflicts = self._counted(batch), [*batch.rejected], 0
        pauses_s = iter(PAUSES_S)
        while len(lost):
            if (pause_s := next(pauses_s, None)) is None:
                raise Unavailable(
                    f"another worker wrote {len(lost)} rows first, {1 + len(PAUSES_S)} times in a row; the batch is "
                    "taken again"
                )
            conflicts += len(lost)
            self.wait(pause_s)
            batch = self._folded_again(batch, batch.changed[lost])
            lost = self.write(batch)
            rejected += batch.rejected
        self._forget(batch.forgets)
        self.telemetry.rejected(one.reason for one in rejected)
        return step._replace(rejected=len(rejected), conflicts=conflicts)

    def commit(self, polled: Sequence[Polled]) -> None:
        """Commit the position after what was polled, of which all is written."""
        with self.telemetry.store_seconds("confirm"):
            self.store.confirm()
        self.log.commit({place: offset for part in polled for place, offset in part.after().items()})

    def _check_partitions(self, polled: Sequence[Polled]) -> None:
        """Refuse an input that was given more partitions: the events of a task now lie in two."""
        for count in {part.partitions for part in polled if part.partitions and self.claims}:
            with self.telemetry.store_seconds("partitions"):
                before = self.store.partitions(count)
            if before != count:
                raise SourceMoved(
                    f"the input has {count} partitions and rows were folded from {before}, so tasks now come from "
                    "another partition; run `reptide rebuild` once no worker runs and every producer knows the "
                    "new partitions"
                )

    def _cut(self, polled: Sequence[Polled]) -> Iterator[tuple[int, list[Polled]]]:
        """What was polled, cut where theta is adopted; what is folded under one version stays together."""
        pieces = [[(self._cell(piece), piece) for piece in self._pieces(part)] for part in polled]
        version_of = self._adopted([*dict.fromkeys(cell for part in pieces for cell, _ in part)])
        for side_by_side in zip_longest(*pieces):
            by_version: dict[int, list[Polled]] = {}
            for cell, piece in filter(None, side_by_side):
                by_version.setdefault(version_of[cell], []).append(piece)
            yield from by_version.items()

    def _pieces(self, part: Polled) -> Iterator[Polled]:
        """One partition, cut where theta is adopted and where an event comes after the forgetting of its task."""
        for piece in cut_at_cells(part, self.schedule):
            yield from (piece,) if self.forgets_for_s is None else cut_at_forgetting(piece)

    def _cell(self, piece: Polled) -> SourcePosition:
        """Where the cell begins that a piece lies in."""
        return piece.source(self.schedule.cell(piece.position))

    def _adopted(self, cells: Sequence[SourcePosition]) -> dict[SourcePosition, int]:
        """The version of each cell: adopted where the cell begins, by whoever came first."""
        with self.telemetry.store_seconds("adopt"):
            return dict(zip(cells, self.store.adopt(cells, self.theta.current()), strict=True))

    def _fold(
        self,
        polled: Sequence[Polled],
        version: int,
        behind: Unwritten | None = None,
        when_loaded: Callable[[], object] = nothing,
    ) -> Unwritten:
        """Decode, load and fold."""
        with self.telemetry.store_seconds("theta"):
            meta = self.theta.get(version)
        decoded, forgets = decode(polled, self.engine.spec.problem), set[str]()
        if self.forgets_for_s is not None:
            decoded, forgets = to_forget(decoded)
        part, aside = strangers(decoded, polled[0].partitions if self.keyed else 0)
        rejected = self._not_forgotten([*decoded.rejected, *aside])
        part, states, aside = self._loaded(part, behind)
        when_loaded()
        folded = self.engine.fold_into(states, part.events, meta)
        return unwritten(part, [*rejected, *aside], forgets, meta, folded)

    def _folded_again(self, batch: Unwritten, tasks: Int64) -> Unwritten:
        """Of some tasks of a batch."""
        part = only(batch.part, np.isin(batch.part.events.row, tasks))
        part, states, aside = self._loaded(part, None)
        folded = self.engine.fold_into(states, part.events, batch.meta)
        return unwritten(part, aside, batch.forgets, batch.meta, folded)

    def _not_forgotten(self, rejected: Sequence[Rejected]) -> list[Rejected]:
        """Leave out what was refused of tasks that were to be forgotten: a dead letter would remember them."""
        tasks = [readable_task(refused.record) for refused in rejected]
        named = sorted(set(filter(None, tasks)))
        with self.telemetry.store_seconds("forgotten"):
            forgotten = self.store.forgotten(named) if named else ()
        kept = [refused for refused, task in zip(rejected, tasks, strict=True) if task not in forgotten]
        self.telemetry.forgotten(len(rejected) - len(kept))
        return kept

    def _remembered(self, part: Decoded, states: TaskTable) -> Decoded:
        """Leave out the events of tasks that were to be forgotten, which have no state; not even dead letters."""
        if len(states) == len(part.tasks):
            return part
        left = {*states.ids}
        kept = np.array([task in left for task in part.tasks], np.bool_)[part.events.row]
        self.telemetry.forgotten(int((~kept).sum()))
        return only(part, kept)

    def _forget(self, tasks: Set[str]) -> None:
        """Forget tasks, as `reptide forget` does; all that came before is folded and produced."""
        if tasks and self.forgets_for_s is not None:
            with self.telemetry.store_seconds("forget"):
                self.store.forget(tasks, self.forgets_for_s)
            self.telemetry.forgot(len(tasks))

    def _loaded(self, part: Decoded, behind: Unwritten | None) -> tuple[Decoded, TaskTable, list[Rejected]]:
        """The rows of a batch; what must not be folded into them is left out or set aside."""
        aside: list[Rejected] = []
        while True:
            try:
                with self.telemetry.store_seconds("load"):
                    states = loaded(self.store, self.engine.layout, part.tasks, behind)
                break
            except RowError as error:
                self._tell(error.reasons)
                part, more = unreadable(part, error.reasons)
                aside += more
        part = self._remembered(part, states)
        kept, more = Parted(part, []) if self.engine.follows else strays(part, states)
        if more:
            left = {*kept.tasks}
            states = states.take(np.array([u for u, task in enumerate(part.tasks) if task in left], np.int64))
        return kept, states, aside + more

    def _tell(self, reasons: Mapping[str, str]) -> None:
        """Say once of each row that it must not be used."""
        for task, reason in reasons.items():
            if task not in self.told and len(self.told) < MOST_TOLD:
                self.told.add(task)
                self.say(
                    f"{reason}. The task's events are set aside as dead letters (damaged_row), all others go on; "
                    "`reptide rebuild --task` makes the one row anew, from those events too"
                )

    def _swap(self, batch: Unwritten) -> Int64:
        """Write the rows that changed; returns those, of the ones that did, that another worker wrote first."""
        states = batch.states
        if not len(states):
            return batch.changed
        if not self.claims:
            states.rows["position"] = states.rows["partition"] = states.rows["incarnation"] = 0
        with self.telemetry.store_seconds("swap"):
            results = self.store.swap(states)
        self.telemetry.swapped(results)
        return np.flatnonzero([result is Swap.LOST for result in results])

    def _counted(self, batch: Unwritten) -> Step:
        """Count a batch in the metrics and for the eye; what is folded again is not counted again."""
        folded = batch.folded
        self.telemetry.folded(folded.outcomes, folded.outcomes.weight, folded.not_finite)
        for seconds, tasks in folded.inner_loops:
            self.telemetry.adapted(seconds, tasks)
        return summary(batch.part.events, folded, batch.meta.version)
