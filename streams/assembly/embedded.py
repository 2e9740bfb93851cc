"""Settings to objects: the only place that names concrete classes."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from engine.problem import Problem
from engine.stream.fold import Engine
from streams.assembly import parts
from streams.assembly.state_directory import check_rows, claimed, keep_settings
from streams.events.record import ONLY
from streams.events.wording import unheard
from streams.logs.file.log import FileLog, TableColumns
from streams.logs.output import TOPICS, OutputFile
from streams.program.embedded import Embedded
from streams.program.label_log import LabelLog
from streams.program.outputs import DeadLetterLines, Outputs
from streams.program.room import Room
from streams.program.rounds import Rounds
from streams.program.schedule import Schedule
from streams.program.theta import ThetaCache
from streams.program.worker import Worker
from streams.settings.tree import Settings, required
from streams.stores.checkpoints import DirectoryMeta
from streams.stores.classes import ClassFile, agree
from streams.stores.lmdb import LmdbStore
from streams.system.locks import Held
from streams.system.machine import cores


def input_log(settings: Settings, problem: Problem, state: Path | None) -> FileLog:
    """The input, replayed."""
    section = required(settings.input, "input")
    columns = TableColumns(**section.model_dump(exclude={"path"}))
    return FileLog(section.path, columns, problem.features, state)


def lmdb_store(settings: Settings) -> LmdbStore:
    """The rows of the state directory."""
    return LmdbStore(settings.run.directory / "rows", settings.run.max_gib, settings.run.durable)


def output_files(settings: Settings) -> dict[str, OutputFile]:
    """The outputs of the state directory."""
    return {topic: OutputFile(settings.run.directory / "outputs" / f"{topic}.jsonl") for topic in TOPICS}


def embedded(settings: Settings, say: Callable[[str], object] = unheard) -> Embedded:
    """Everything that `reptide run` needs, over its state directory; `say` tells an operator, in a sentence.

    Raises:
        ReptideError: another process uses the directory, or it was made of another table or under other settings.
            What is in it is as it was.

    """
    spec, learner = parts.described(settings)
    folds = parts.stream_engine(settings, spec, learner)
    held, log = claimed(settings, lambda: input_log(settings, spec.problem, settings.run.directory))
    with ExitStack() as refused:
        refused.callback(held.let_go)
        program = _opened(settings, folds, log, held, say)
        refused.pop_all()
    return program


def _opened(
    settings: Settings, folds: Engine, log: FileLog, held: Held, say: Callable[[str], object]
) -> Embedded:
    """The program over a state directory that is this process' alone, and of this log."""
    spec, directory = folds.spec, settings.run.directory
    store = lmdb_store(settings)
    check_rows(settings, store, log)
    keep_settings(settings, log)
    if (through := store.room_through()) > log.committed():
        log.commit({ONLY: through})
        log.seek(through)
    versions = DirectoryMeta(directory / "theta")
    agree(ClassFile(directory / "theta" / "classes.json"), spec.problem.target)
    trains = parts.trainer(settings, spec, folds.learner, versions)
    trains.check_optimizer()
    outputs = output_files(settings)
    dead_letters = DeadLetterLines(outputs["dead-letter"], log.origin)
    labels = LabelLog(outputs["episodes"], trains.labels)
    said = Outputs(
        {**outputs, "episodes": labels},
        dead_letters,
        spec.problem,
        settings.outer.support_rate,
        settings.run.durable,
    )
    theta = ThetaCache(folds, versions)
    schedule = Schedule(settings.outer.every)
    worker = Worker(folds, log, store, theta, said, settings.run.batch, schedule, say=say)
    rounds = Rounds(trains, labels, log.incarnation, say)
    room = Room(store, folds.layout, schedule, settings.run.most_tasks, say)
    beside = partial(ThreadPoolExecutor, 1, "writer") if cores() > 1 else None
    return Embedded(
        folds, log, store, worker, trains, rounds, outputs, room, settings.outer.keep_gib, held, beside
    )
