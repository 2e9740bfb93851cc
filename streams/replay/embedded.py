"""Rows made anew from the log: the way out when a row is damaged, or the row layout has changed.

The adoption table says under which theta every event was folded, so the rows come out as they were. What is gone of
that is said before any row is touched.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from streams.assembly.embedded import embedded, input_log
from streams.errors import InputError
from streams.events.record import ONLY, SourcePosition
from streams.program.outputs import silent
from streams.program.progress import Progress
from streams.program.pruning import adoptions_of
from streams.program.room import Room
from streams.program.worker import Worker
from streams.replay.replayable import Extent, forgotten_theta, refuse
from streams.settings.tree import Settings
from streams.stores.base import RecordStore, key_of
from streams.stores.memory import MemoryStore

WAY_OUT = (
    "Restore a snapshot to another run.directory, or run the stream anew in one, or have rows made of what is left, "
    "which are not those of before, by --inexact; nothing was changed"
)

FORGETS = "where there are more than run.most_tasks, tasks are forgotten, and the events of one do not say if it was"

Show = Callable[[int, Progress], None]


class OneTask(MemoryStore):
    """Holds the row of one task and an adoption table; the events of all others are passed over."""

    def __init__(self, task: str, adoptions: Mapping[SourcePosition, int]) -> None:
        super().__init__()
        self.task = task
        self.record(adoptions)

    def _forgotten(self, tasks: Sequence[str]) -> set[str]:
        """All other tasks, and this one once the log has forgotten it."""
        return set(tasks) - {self.task} | super()._forgotten(tasks)

    def put_into(self, store: RecordStore) -> None:
        """Write the row to another store, whatever is stored there.

        Raises:
            InputError: no event of the task was folded.

        """
        row = self.rows.get(key_of(self.task))
        if row is None:
            raise InputError(f"the log holds no event of task {self.task!r}; nothing was changed")
        store.put([(key_of(self.task), row)])


def rebuild(settings: Settings, show: Show, inexact: bool = False, task: str | None = None) -> int:
    """Fold the log again, as far as it was folded; returns the number of rows made anew: one, where a task is given.

    Raises:
        InputError: something is gone, and the rows need not be `inexact`. Nothing was changed.
        CheckpointError: a version of theta is damaged. Nothing was changed.

    """
    program = embedded(settings)
    try:
        adoptions = adoptions_of(program.store, program.trainer.store)
        through = program.log.committed()
        if not inexact:
            extent = Extent({}, {}, {ONLY: program.log.end()}, {ONLY: through})
            schedule = program.worker.schedule
            refuse([*forgotten_theta(adoptions.kept, program.log.incarnation, extent, schedule)], WAY_OUT)
        worker = replace(program.worker, outputs=silent(program.engine.spec.problem))
        for version in {worker.theta.current(), *adoptions.kept.values()}:
            worker.theta.get(version)  # refused before anything is cleared
        if task is not None:
            check_remembered(program.store, task)
            refuse([FORGETS] * (program.room.most > 0 and not inexact), WAY_OUT)
            one = OneTask(task, adoptions.kept)
            again = input_log(settings, program.engine.spec.problem, None)
            _fold(
                replace(worker, store=one, log=again),
                replace(program.room, most=0),
                again.position,
                through,
                show,
            )
            one.put_into(program.store)
            return 1
        # First: a crash from here on leaves no position above what the rows hold.
        program.log.commit({ONLY: 0})
        program.store.drop_adoptions(adoptions.gone)
        program.store.clear()
        program.log.seek(0)
        _fold(worker, program.room, program.log.position, through, show)
        return sum(1 for _ in program.store.tasks())
    finally:
        program.close()


def _fold(worker: Worker, room: Room, position: Callable[[], int], through: int, show: Show) -> None:
    progress = Progress()
    while True:
        at = position()
        room.make(at)
        step = worker.step(min(through, room.schedule.next(at)) - at) if at < through else None
        if step is None:
            return
        progress.add(step)
        show(position(), progress)


def check_remembered(store: RecordStore, task: str) -> None:
    """Refuse to bring back what was to be forgotten."""
    if store.forgotten([task]):
        raise InputError(f"task {task!r} was forgotten, and is not made anew")
