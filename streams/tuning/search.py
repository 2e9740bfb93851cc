"""The search: trials in processes of their own, suggested one after another, until time or number is up."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from multiprocessing import get_context
from multiprocessing.synchronize import Event
from pathlib import Path
from time import monotonic
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.trial import TrialState

from streams.errors import ReptideError
from streams.settings.tree import Settings
from streams.tuning.comparison import Gain, Judged, gain
from streams.tuning.journal import Journal, begun
from streams.tuning.part import Part
from streams.tuning.space import Values, space_of, standing, tried
from streams.tuning.trial import Trial, Tried, begin, run_trial

DECIDES_NOTHING = {"title", "stream", "input", "examples", "episodes", "kafka", "redis", "service"}
"""Sections that change no loss of a part; which table it is, its log tells."""

STATES = {
    "finished": TrialState.COMPLETE,
    "unpromising": TrialState.PRUNED,
    "refused": TrialState.FAIL,
}

Show = Callable[[int, Values, Tried], None]


@dataclass(frozen=True)
class Best:
    """The best trial, beside the settings as they stand."""

    trials: int
    """How many were tried in all."""
    stand: float
    """Loss of the settings as they stand."""
    loss: float
    values: Values
    """What to set differently."""
    gain: Gain


@dataclass(frozen=True)
class Search:
    """One study: settings, the part of a stream that decides, and the folder where trials are kept."""

    settings: Settings
    part: Part
    folder: Path

    @property
    def space(self) -> dict[str, BaseDistribution]:
        """What is tried."""
        return space_of(self.settings, self.part.events)

    @property
    def stand(self) -> Values:
        """The values that stand."""
        return standing(self.settings, self.space)

    @property
    def name(self) -> str:
        """Of other settings, another part or another table, the study is another."""
        dumped = self.settings.model_dump_json(exclude=DECIDES_NOTHING | {"run"})
        parts = (dumped, self.settings.run.seed, self.part, sorted(self.space.items()))
        return blake2b(repr(parts).encode(), digest_size=8).hexdigest()

    def journal(self) -> Journal:
        """Its trials so far."""
        return begun(self.folder / "journal.jsonl", self.name, self.settings.run.seed)

    def judged(self, number: int) -> Path:
        """Where a trial leaves the losses that it is judged by."""
        return self.folder / self.name / f"{number:04}.npz"

    def run(self, journal: Journal, trials: int, seconds: float, jobs: int, show: Show) -> bool:
        """Try settings until so many were tried, or time is up; False where Ctrl-C ended it."""
        self.judged(0).parent.mkdir(parents=True, exist_ok=True)
        context, deadline = get_context("spawn"), monotonic() + seconds
        stop = context.Event()
        with ProcessPoolExecutor(jobs, context, begin, (stop,)) as pool:
            try:
                self._supervise(pool, journal, trials, deadline, jobs, stop, show)
            except BrokenProcessPool as error:
                raise ReptideError(
                    "the process of a trial was killed, as when memory is short; start again with a smaller --jobs, "
                    "finished trials are kept"
                ) from error
            except KeyboardInterrupt:
                return False
            finally:
                stop.set()
        return True

    def _supervise(
        self,
        pool: ProcessPoolExecutor,
        journal: Journal,
        trials: int,
        deadline: float,
        jobs: int,
        stop: Event,
        show: Show,
    ) -> None:
        running: dict[Future[Tried], tuple[int, Values]] = {}
        first = self.stand if journal.first(self.stand) is None else None
        while True:
            while len(running) < jobs and journal.ended() + len(running) < trials and monotonic() < deadline:
                number, values, trial = self._next(journal, first)
                first = None
                with _undisturbed():  # a process inherits that it ignores Ctrl-C
                    running[pool.submit(run_trial, trial)] = (number, values)
            if not running:
                return
            left_s = None if stop.is_set() else max(0.0, deadline - monotonic())
            done, _ = wait(running, left_s, FIRST_COMPLETED)
            if monotonic() >= deadline:
                stop.set()
            for future in done:
                number, values = running.pop(future)
                ended = future.result()
                _note(journal, number, ended)
                show(number, values, ended)
                if ended.end == "refused" and values == self.stand:
                    raise ReptideError(f"the settings as they stand are refused: {ended.reason}")

    def _next(self, journal: Journal, first: Values | None) -> tuple[int, Values, Trial]:
        asked = journal.suggest(self.space, first)
        values = tried(asked.params, self.stand)
        trial = Trial(
            asked.number, self.settings, values, self.part.events, self.part.judged_from,
            self.folder / "journal.jsonl", self.name, self.judged(asked.number), is_first=first is not None,
        )  # fmt: skip
        return asked.number, values, trial

    def best(self, journal: Journal) -> Best | None:
        """The best trial so far; None while the settings as they stand have not finished."""
        first = journal.first(self.stand)
        if first is None:
            return None
        best = min(journal.finished(), key=lambda trial: (trial.value, trial.number))
        values = tried(best.params, self.stand)
        return Best(
            journal.ended(), _loss(first.value), _loss(best.value), _different(values, self.stand),
            gain(Judged.read(self.judged(first.number)), Judged.read(self.judged(best.number))),
        )  # fmt: skip


def _note(journal: Journal, number: int, ended: Tried) -> None:
    if ended.end == "stopped":
        journal.lose(number)
    else:
        journal.tell(number, STATES[ended.end], ended.loss if ended.end == "finished" else None)


def _different(values: Mapping[str, Any], stand: Mapping[str, Any]) -> Values:
    return {key: value for key, value in values.items() if value != stand[key]}


def _loss(value: float | None) -> float:
    return float("nan") if value is None else value


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Ignore Ctrl-C for a moment."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
