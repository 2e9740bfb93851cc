"""The embedded program: worker and trainer in one process, in step with the log.

An outer round falls due at places in the log (`streams.program.schedule`), before the next event is folded.
So the result is a function of the log and the settings: stopped anywhere, by any signal, and started
again, it goes on to the same rows.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from concurrent.futures import Executor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from math import inf

from engine.stream.fold import Engine
from streams.errors import InputError
from streams.logs.file.log import FileLog
from streams.logs.output import OutputFile
from streams.program.batches import Batches, OneByOne, SideBySide, finish_writing, in_short_turns
from streams.program.progress import Progress
from streams.program.pruning import EVERY, prune
from streams.program.room import Room
from streams.program.rounds import Rounds
from streams.program.step import Step
from streams.program.trainer import Trainer
from streams.program.worker import Worker
from streams.stores.lmdb import LOST, LmdbStore
from streams.system.collector import settle
from streams.system.locks import Held


def steps(program: Embedded) -> Generator[Step, None, None]:
    """Every batch to the end of the log, with the outer rounds that fall due between them.

    Raises:
        InputError: the rows are gone, or what theta is trained on is.
        RowError: all rows are of another layout.

    """
    schedule = program.worker.schedule
    if program.log.committed() and not program.store.adoptions():
        raise InputError(f"the rows of what was streamed are gone; {LOST}")
    program.store.check_layouts(program.engine.layout)
    _check_episodes(program)
    settle()
    with ExitStack() as beside:
        batches = program.batches(beside)
        while not batches.is_over:
            position = program.log.position()
            if position > 0 and schedule.cell(position) == position:
                yield from batches.finish()
                program.room.make(position)
                _run_round(program, position)
            end = schedule.next(position)
            yield from batches.step(end - position, partial(program.rounds.read_on, end))


def _run_round(program: Embedded, position: int) -> None:
    advance = program.rounds.run(position)
    if advance is not None and advance.version % EVERY == 0:
        prune(program.store, program.trainer.store, program.keep_gib, program.worker.say)


def _check_episodes(program: Embedded) -> None:
    """Refuse to go on where theta would be trained from a place that its file no longer has."""
    if program.outputs["episodes"].holds(program.rounds.position()):
        return
    lost = (
        "outputs/episodes.jsonl was moved away or cut short: what theta is trained on is lost; put the file back, or "
        "stream the table anew into another run.directory"
    )
    if program.log.position() < program.log.end():
        raise InputError(lost)
    program.rounds.say(lost)


def run(program: Embedded, show: Callable[[Progress], None]) -> Progress:
    """Stream to the end, showing progress after each batch."""
    progress = Progress()
    for step in steps(program):
        progress.add(step)
        show(progress)
    return progress


@dataclass(frozen=True)
class Embedded:
    """The whole program in one process: log, store, worker and trainer over one state directory."""

    engine: Engine
    log: FileLog
    store: LmdbStore
    worker: Worker
    trainer: Trainer
    rounds: Rounds
    outputs: dict[str, OutputFile]
    room: Room
    keep_gib: float = inf
    """Room for versions of theta."""
    held: Held | None = None
    """The state directory, which is this process' alone."""
    beside: Callable[[], Executor] | None = None
    """Makes the thread that writes a batch while the next is folded; None: they take turns."""

    def batches(self, ending: ExitStack) -> Batches:
        """The batches of the log from where it is; a thread of theirs ends with `ending`."""
        if self.beside is None:
            return OneByOne(self.worker)
        ending.enter_context(in_short_turns())
        beside = self.beside()
        ending.callback(finish_writing, beside)
        return SideBySide(self.worker, self.log, beside)

    def close(self) -> None:
        """Let go of every file."""
        self.store.close()
        for output in self.outputs.values():
            output.close()
        if self.held is not None:
            self.held.let_go()
