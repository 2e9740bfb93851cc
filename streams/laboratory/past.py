"""Offline meta-training: theta from a table of the past, before the first event is served.

The past is folded once without any theta, which cuts it into the episodes that the stream would have cut
it into; these are then trained on as often as wanted.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import replace
from math import isfinite, nan
from statistics import fmean
from time import perf_counter

import numpy as np

from engine.learners.gradient import LR
from engine.outer.fit import Round, start
from streams.assembly.embedded import embedded, input_log
from streams.errors import ReptideError
from streams.logs.output import OutputFile
from streams.program.label_log import LabelLog
from streams.program.label_window import LabelWindow
from streams.program.outputs import silent
from streams.program.progress import Progress
from streams.program.rounds import Rounds
from streams.program.theta import ThetaCache
from streams.settings.tree import Settings
from streams.stores.memory import MemoryMeta, MemoryStore


def meta_train(settings: Settings, passes: int, show: Callable[[int, Progress], None]) -> str:
    """Publish version 1 for `run` to begin with; returns what it was worth, in a sentence.

    Raises:
        ReptideError: the state directory has a theta already, or the input has no episodes.
    """
    program = embedded(settings)
    scratch = settings.run.directory / "meta-train"
    shutil.rmtree(scratch, ignore_errors=True)  # of a run that was killed: perhaps of another input
    began = perf_counter()
    with ExitStack() as leaving:
        leaving.callback(shutil.rmtree, scratch, ignore_errors=True)
        leaving.callback(program.close)
        if program.trainer.store.current():
            raise ReptideError(
                f"{settings.run.directory} has a theta already; set run.directory to a new folder to train another"
            )
        episodes = leaving.enter_context(closing(OutputFile(scratch / "episodes.jsonl")))
        quiet = silent(program.engine.spec.problem)
        outputs = replace(
            program.worker.outputs,
            logs={"episodes": episodes},
            dead_letters=quiet.dead_letters,
        )
        log = input_log(settings, program.engine.spec.problem, None)
        worker = replace(
            program.worker,
            log=log,
            store=MemoryStore(),
            theta=ThetaCache(program.engine, MemoryMeta()),
            outputs=outputs,
        )
        while worker.step() is not None:
            pass
        trainer = program.trainer
        labels = Rounds(trainer, LabelLog(episodes, trainer.labels), log.incarnation).labels()
        judging = trainer.judging(labels)
        if not (found := [one for one in labels if one.task not in judging]):
            raise ReptideError("no task of the input has a label, so there is nothing to train on")
        window, every = LabelWindow.of(found), np.arange(len(found))
        rounds, state = list[Round](), start(trainer.learner, settings.run.seed)
        state = trainer.prepared(window, every, state)
        for number in range(passes):
            state, rounds = trainer.take(window, every, every, state)
            show(number + 1, Progress(events=(number + 1) * len(found), seconds=perf_counter() - began))
        # A size was chosen while theta knew nothing, when any step pays: once more, by what it knows now.
        kept = {name: value for name, value in state.sums.items() if name != LR}
        state = trainer.with_size(found, replace(state, sums=kept))
        trainer.publish(1, state, {"position": 0, "through": 0, "window": [0, 0]})
        reports = [one.report for one in rounds if isfinite(one.report.query_loss_after)]
        after = fmean([one.query_loss_after for one in reports] or [nan])
        before = fmean([one.report.query_loss_before for one in rounds])
        return (
            f"version 1 of theta from {len(found):,} labels, {passes} passes; in the last, loss "
            f"{before:.4f} under theta, {after:.4f} after adaptation"
        )
