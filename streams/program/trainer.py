"""The trainer: labels in, versions of theta out. It alone writes versions.

Every label that a task learned from is trained on when it comes, and again from a window of the last ones: which, a
seed draws, so a trainer that died goes on as it would have. Tasks chosen by a hash of their id are held out: never
trained on, they judge each candidate. A candidate that is refused is thrown away with its optimizer state; the
version published then is theta as it was.

A checkpoint holds what was consumed: so a label produced again after a crash is recognised, and training that was
published is never done twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from hashlib import blake2b
from math import inf
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from engine.learners.base import LABEL_MEAN, LABEL_STD, Learner
from engine.learners.fingerprint import theta_fingerprint
from engine.learners.gradient import LR
from engine.outer.calibration import Calibration, refined, uncalibrated
from engine.outer.fit import Round, TrainState, start, with_statistics
from engine.outer.gate import Verdict, gate, losses_by_size
from engine.outer.online import Online, averaged
from engine.outer.step_size import SIZES, chosen
from engine.stream.spec import StreamSpec
from engine.targets import Classification, Regression
from engine.types import EngineError, Int64
from streams.errors import SettingsError
from streams.events.learned_labels import LabelReader, LearnedLabel, task_numbers
from streams.program.checked import Kinds, checked, kinds_of
from streams.program.label_window import LabelWindow
from streams.program.lessons import Lessons, nothing
from streams.program.prior import learned_prior
from streams.program.training_state import restored, stored
from streams.stores.versions import Checkpoint, MetaStore

CALIBRATION = tuple(f"calibration.{name}" for name in Calibration._fields)
"""Where the sums of a `TrainState` hold it."""

WINDOW, PRIOR_WINDOW = 16_384, 8192
"""Labels that are kept to be trained on again, and those of them that the prior is learned from."""

MOST_JUDGED = 32
"""Episodes that one choice looks at."""

SIZES_EARLY, SIZES_EVERY = 16, 4
"""A choice is made in each of the first versions of theta, then in one of so many."""

FEWEST_TASKS = 40
"""With fewer tasks about, none is held out: one in fifty of so few would say nothing, and be missed."""


class Taught(NamedTuple):
    """What came of a round of labels."""

    state: TrainState
    """As it was before, where the candidate was refused."""
    steps: list[Round]
    verdict: Verdict


class Advance(NamedTuple):
    """What one version of theta was made from."""

    version: int
    labels: int
    """Those that are in no earlier version."""
    rounds: list[Round]
    verdict: Verdict
    published: bool
    """False where another trainer came first."""


@dataclass(frozen=True)
class Trainer:
    """Trains theta on what tasks learned from, judges the result on held-out tasks, and publishes it."""

    spec: StreamSpec
    """Of the stream whose tasks learn, as the learner's problem is."""
    online: Online
    store: MetaStore
    seed: int = 0
    batch: int = 64
    """Labels of one outer step."""
    replays: float = 1.0
    """How often a label is trained on again, in the mean."""
    held_out: float = 0.0
    """Share of tasks that are never trained on."""
    fewest_tasks: int = FEWEST_TASKS
    """With fewer in the window, none is held out."""
    window: int = WINDOW
    """How many of the last labels are kept to be trained on again."""
    alive: Callable[[], object] = nothing
    """Called at each step: a version may take long to make."""

    @property
    def learner(self) -> Learner:
        """What is trained."""
        return self.online.learner

    @cached_property
    def fingerprint(self) -> str:
        """What gives theta its meaning, which every version of it names."""
        return theta_fingerprint(self.learner)

    @cached_property
    def labels(self) -> LabelReader:
        """Reads the lines of the output `episodes`."""
        return LabelReader(self.spec)

    @cached_property
    def lessons(self) -> Lessons:
        """What theta is taught."""
        return Lessons(self.spec, self.seed, self.batch, self.replays, self.alive)

    @cached_property
    def _kinds(self) -> Kinds:
        return kinds_of(self.learner.init(self.seed))

    def newest(self) -> Checkpoint | None:
        """The version in force; None before the first.

        Raises:
            CheckpointError: it is damaged, or of another problem.
        """
        version = self.store.current()
        return checked(self.store.load(version), self.fingerprint, self._kinds) if version else None

    def check_optimizer(self) -> None:
        """Refuse now what the next round would refuse.

        Raises:
            SettingsError: the newest version was trained with another optimizer.
        """
        before = self.newest()
        if before is None:
            return
        try:
            self.online.learn([], self.state(before))
        except EngineError:
            saved = {name.split(":")[0].removeprefix("optimizer.") for name in before.trainer if ":" in name}
            now = self.online.rates.network
            raise SettingsError(
                f"outer.optimizer is {now.optimizer!r} with momentum {now.momentum or 0:g}, and version "
                f"{before.version} of theta was trained with {', '.join(sorted(saved))}; set both back, or "
                "give the new ones a stream (`stream`) or a directory (run.directory) of their own"
            ) from None

    def advance(
        self, before: Checkpoint | None, window: LabelWindow, new: int, consumed: Mapping[str, Any]
    ) -> Advance:
        """Make the next version from the last `new` labels of a window; those before them are trained on again.

        `consumed` says in the checkpoint how far they reached.

        Raises:
            SettingsError: the workers name more classes than we do.
        """
        version = (before.version if before else 0) + 1
        taught = self.teach(self.state(before), version, window, new)
        beside = self.beside(taught.state, window.labels)
        published = self.publish(version, taught.state, {**consumed, **beside})
        return Advance(version, new, taught.steps, taught.verdict, published)

    def teach(self, state: TrainState, number: int, window: LabelWindow, new: int) -> Taught:
        """Teach the last `new` labels of a window in round `number`; those before them are trained on again.

        Raises:
            SettingsError: the workers name more classes than we do.
        """
        found, every = window.labels[len(window) - new :], np.arange(len(window))
        _check_named(self.learner.problem.target, found)
        judging = self.judging(window.labels)
        judges = [one for one in found if one.episode is not None and one.task in judging]
        if judging:
            every = every[[one.task not in judging for one in window.labels]]
        taught = every[every >= len(window) - new]
        candidate, steps = self.take(window, taught, every, self.prepared(window, taught, state, number))
        verdict = self._verdict(state, candidate, judges)
        return Taught(state if verdict.refused else candidate, steps, verdict)

    def beside(self, state: TrainState, window: Sequence[LearnedLabel]) -> dict[str, Any]:
        """What a version holds beside theta, for labels up to it: prior and calibration."""
        is_regression = isinstance(self.learner.problem.target, Regression)
        prior = list(learned_prior(window[-PRIOR_WINDOW:], is_regression))
        return {"prior": prior, "calibration": self._calibration(state)}

    def judging(self, labels: Sequence[LearnedLabel]) -> set[str]:
        """Tasks that judge and are never trained on: none while there are few."""
        tasks = {one.task for one in labels} if self.held_out else set()
        if len(tasks) < self.fewest_tasks:
            return set()
        return {task for task in tasks if held_out(task, self.held_out)}

    def prepared(self, window: LabelWindow, found: Int64, state: TrainState, number: int = 0) -> TrainState:
        """Learn from labels what training does not: statistics, calibration, step size; once for each label."""
        if not len(found):
            return state
        x, y = map(torch.from_numpy, window.numbers(found))
        counted = with_statistics(self.learner, self._recalibrated(state, x, y), x, y)
        due = number <= SIZES_EARLY or number % SIZES_EVERY == 0
        return self.with_size([window.labels[n] for n in found.tolist()], counted) if due else counted

    def with_size(self, found: Sequence[LearnedLabel], state: TrainState) -> TrainState:
        """Judge each step size on new episodes, before they are trained on, and take the best so far."""
        episodes = [one.episode for one in found if one.episode is not None][-MOST_JUDGED:]
        if LR not in state.params or not episodes:
            return state
        self.alive()
        each = losses_by_size(self.learner, averaged(state), SIZES, episodes, self.lessons.stacked)
        size, costs = chosen(state.sums.get(LR), each)
        params = {**state.params, LR: torch.tensor(size)}
        return replace(state, params=params, sums={**state.sums, LR: costs})

    def take(
        self, window: LabelWindow, found: Int64, again: Int64, state: TrainState
    ) -> tuple[TrainState, list[Round]]:
        """Train on the labels at these places of a window once, in order, and again on some of others."""
        return self.online.learn(self.lessons.of(window, found, again, state), state)

    def publish(
        self, version: int, state: TrainState, consumed: Mapping[str, Any], ahead: TrainState | None = None
    ) -> bool:
        """Write a version, unless another trainer has.

        `ahead` is what is served, where that was taught more than `state`, which training goes on from.
        """
        served, trainer = stored(state, ahead)
        numbers = {**consumed, "step": state.step}
        checkpoint = Checkpoint(version, self.fingerprint, served, trainer, numbers)
        return self.store.publish(checked(checkpoint, self.fingerprint, self._kinds))

    def state(self, before: Checkpoint | None) -> TrainState:
        """What training goes on from."""
        if before is None:
            return start(self.learner, self.seed)
        return restored(before, self._kinds)

    def _recalibrated(self, state: TrainState, x: Tensor, y: Tensor) -> TrainState:
        """Fit the calibration to what theta says of new labels, once it has learned anything."""
        if state.step == 0:
            return state
        theta, target = averaged(state), self.learner.problem.target
        outputs = self.learner.shared(theta, x)
        if isinstance(target, Regression):
            outputs, y = ((part - theta[LABEL_MEAN]) / theta[LABEL_STD] for part in (outputs, y))
        found = refined(_calibration_of(state, target), target, outputs, y)
        return replace(state, sums={**state.sums, **dict(zip(CALIBRATION, found, strict=True))})

    def _calibration(self, state: TrainState) -> list[float]:
        """Scale and biases for outputs in the unit of the labels."""
        values = _calibration_of(state, self.learner.problem.target).in_use
        if isinstance(self.learner.problem.target, Regression):
            mean, std = (float(state.params[name]) for name in (LABEL_MEAN, LABEL_STD))
            values = torch.stack([values[0], (1 - values[0]) * mean + values[1] * std])
        return [float(value) for value in values]

    def _verdict(self, state: TrainState, candidate: TrainState, judges: Sequence[LearnedLabel]) -> Verdict:
        episodes = [one.episode for one in judges if one.episode is not None]
        before, after = averaged(state), averaged(candidate)
        return gate(self.learner, before, after, episodes, task_numbers(judges), self.lessons.stacked)


def _calibration_of(state: TrainState, target: Classification | Regression) -> Calibration:
    if CALIBRATION[0] not in state.sums:
        return uncalibrated(target)
    return Calibration(*(state.sums[name] for name in CALIBRATION))


def _check_named(target: Classification | Regression, found: Sequence[LearnedLabel]) -> None:
    """Refuse to learn nothing from a class that was appended since this process began."""
    named = len(target.classes) if isinstance(target, Classification) else inf
    for one in found:
        if one.y >= named:
            raise SettingsError(
                f"target.classes: task {one.task!r} has a label of a class that is not among them; start the trainer "
                "again with the classes that the workers have, nothing is lost"
            )


@lru_cache(1 << 16)
def held_out(task: str, share: float) -> bool:
    """Whether a task is in the share that judges and never teaches; the same for ever."""
    digest = blake2b(task.encode(), digest_size=4, person=b"held out").digest()
    return int.from_bytes(digest, "little") < share * 2**32
