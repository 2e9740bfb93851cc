"""One trial: the embedded program over the first part of the log, in a state directory that is thrown away.

Runs in a process of its own, which is told to stop by an event that it looks at after every batch. A trial
that does worse than most others did by then is given up.
"""

from __future__ import annotations

import signal
import tempfile
from dataclasses import dataclass
from math import isfinite, nan
from multiprocessing.synchronize import Event
from pathlib import Path
from time import perf_counter
from typing import Literal, NamedTuple

import optuna
import torch

from engine.types import EngineError
from streams.assembly import embedded
from streams.errors import ReptideError
from streams.pages.run.evaluation import scores_of
from streams.program.embedded import steps
from streams.settings.tree import Settings
from streams.tuning.comparison import Judged
from streams.tuning.journal import opened
from streams.tuning.space import Values, changed

TENTHS = 10
"""A trial is compared with others at tenths of the part."""

COUNTED_FROM = 3
"""Labels count from this tenth on: by then every trial has a shared model, however seldom it trains one."""

End = Literal["finished", "unpromising", "refused", "stopped"]


@dataclass(frozen=True)
class Trial:
    """What to run, and where to leave what comes out."""

    number: int
    settings: Settings
    """As they stand."""
    values: Values
    """What to set differently."""
    events: int
    judged_from: int
    journal: Path
    study: str
    judged: Path
    """The file for the losses that are judged."""
    is_first: bool
    """The settings as they stand: run to the end, however bad."""


class Tried(NamedTuple):
    """How a trial ended."""

    end: End
    loss: float
    """Mean loss as served over the labels judged; NaN unless finished."""
    seconds: float
    reason: str = ""


class _Asked:
    """Whether this process was asked to stop."""

    event: Event | None = None


def begin(stop: Event) -> None:
    """Make a process ready for trials; Ctrl-C is for the one that started it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    _Asked.event = stop


def run_trial(trial: Trial) -> Tried:
    """Stream the part under the settings of a trial."""
    started = perf_counter()
    try:
        with tempfile.TemporaryDirectory(prefix="reptide-tune-") as state:
            end, judged = _streamed(trial, Path(state))
    except (ReptideError, EngineError) as error:
        return Tried("refused", nan, perf_counter() - started, str(error))
    if judged is None:
        return Tried(end, nan, perf_counter() - started)
    loss = float(judged.loss.mean()) if len(judged.loss) else nan
    if not isfinite(loss):
        reason = (
            "its loss is not finite" if len(judged.loss) else "no label came in the second half of the part"
        )
        return Tried("refused", nan, perf_counter() - started, reason)
    judged.write(trial.judged)
    return Tried("finished", loss, perf_counter() - started)


def _streamed(trial: Trial, state: Path) -> tuple[End, Judged | None]:
    settings = changed(trial.settings, trial.values)
    batch = max(
        1, min(settings.run.batch, trial.events // (2 * TENTHS))
    )  # how a log is cut into batches changes no bit
    scratch = settings.run.model_copy(update={"directory": state, "durable": False, "batch": batch})
    program = embedded.embedded(settings.model_copy(update={"run": scratch}))
    program.log.stop_at(trial.events)
    unpromising = (lambda *_: False) if trial.is_first else _Unpromising(trial)
    try:
        for step in steps(program):
            if _Asked.event is not None and _Asked.event.is_set():
                return "stopped", None
            if unpromising(program.log.committed(), step.loss_sums[-1], step.scored):
                return "unpromising", None
        target = program.engine.spec.problem.target
        return "finished", Judged.of(scores_of(program.outputs["scores"], target), trial.judged_from)
    finally:
        program.close()


class _Unpromising:
    """Whether a trial's mean loss as served, since it was to count, is worse than that of most others by then."""

    def __init__(self, trial: Trial) -> None:
        self._tenth = max(1, trial.events // TENTHS)
        self._next = (COUNTED_FROM + 1) * self._tenth
        self._journal = opened(trial.journal, trial.study)
        self._number = trial.number
        self._loss, self._labels = 0.0, 0

    def __call__(self, position: int, loss: float, labels: int) -> bool:
        """Count a batch, and ask at every tenth."""
        if position > COUNTED_FROM * self._tenth:
            self._loss, self._labels = self._loss + loss, self._labels + labels
        if position < self._next or not self._labels:
            return False
        self._next = (position // self._tenth + 1) * self._tenth
        return self._journal.is_unpromising(self._number, position // self._tenth, self._loss / self._labels)
