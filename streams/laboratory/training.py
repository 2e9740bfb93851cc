"""Meta-training on examples: saved after every stretch, and gone on with from there bit for bit.

What is saved is one sealed version after another, of which the newest is kept. It is written whole or not at all,
and only by the process that went on from the one before it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count
from math import isinf
from typing import NamedTuple

import torch

from engine.episodes.meta_train import Place, Stretch, moved
from engine.episodes.task_source import TaskSource, tasks_drawn
from engine.learners.base import below
from engine.learners.fingerprint import theta_fingerprint
from engine.types import Episodes, Int64
from streams.errors import CheckpointError, ReptideError, SettingsError, StoreError
from streams.laboratory.assembled import Laboratory
from streams.program.checked import checked, kinds_of
from streams.program.training_state import STATISTICS, restored, stored
from streams.stores.checkpoints import DIGITS, DirectoryMeta
from streams.stores.classes import ClassFile, agree
from streams.stores.versions import Checkpoint

LOSSES = ("best_loss", "trained_loss", "held_out_loss")

Show = Callable[[int, Stretch | None], None]
"""Is told of every round that begins, and of every stretch that ends."""


class Saved(NamedTuple):
    """What is kept of a training."""

    stretch: Stretch
    processes: int
    """How many trained."""


@dataclass(frozen=True)
class Watched:
    """A `TaskSource` that says when a batch of a step is drawn, for the eye."""

    source: TaskSource
    drawn: Callable[[], None]

    def draw(self, count: int, *, seed: int, step: int) -> Episodes:
        """Draw as the source does."""
        self.drawn()
        return self.source.draw(count, seed=seed, step=step)

    def tasks(self, count: int, *, seed: int, step: int) -> Int64:
        """Tell the tasks as the source does."""
        return tasks_drawn(self.source, count, seed=seed, step=step)


class SavedTraining:
    """The newest stretch of a training, in the folder `training` of the state directory."""

    def __init__(self, laboratory: Laboratory) -> None:
        self.laboratory = laboratory
        self.directory = laboratory.settings.run.directory / "training"
        self._versions = DirectoryMeta(self.directory)
        self._newest = self._versions.current()
        self._kinds = kinds_of(laboratory.learner.init(0))

    def load(self) -> Saved | None:
        """Where training stands; None where it has not begun.

        Raises:
            CheckpointError: what was saved is damaged, or of another problem.
            SettingsError: it was begun with other examples or settings.

        """
        if not self._newest:
            return None
        saved = checked(self._sound(self._newest), theta_fingerprint(self.laboratory.learner), self._kinds)
        if saved.numbers["begun_with"] != self.laboratory.fingerprint:
            raise SettingsError(
                f"run.directory: the training in {self.directory} was begun with other examples or settings than "
                "these; set run.directory to a new folder, or take the change back"
            )
        losses = {name: saved.numbers[name] for name in LOSSES}
        state = restored(saved, self._kinds)
        best = below("best.", dict(saved.trainer)) or state.params
        stretch = Stretch(state, best, stale=saved.numbers["stale"], **losses)
        return Saved(stretch, saved.numbers["processes"])

    def _sound(self, version: int) -> Checkpoint:
        try:
            return self._versions.load(version)
        except CheckpointError as error:
            raise CheckpointError(
                f"the training in {self.directory} cannot be gone on with ({error.__cause__}); delete that folder to "
                "begin anew"
            ) from error

    def save(self, stretch: Stretch, processes: int) -> None:
        """Keep a stretch in the place of the one before.

        Raises:
            StoreError: another process went on from the one before.

        """
        state, numbers = stretch.state, {name: getattr(stretch, name) for name in (*LOSSES, "stale")}
        tensors = {f"optimizer.{name}": value for name, value in state.optimizer.items()}
        tensors |= {f"statistics.{name}": getattr(state.statistics, name) for name in STATISTICS}
        if stretch.best is not state.params:
            tensors |= {f"best.{name}": value for name, value in stretch.best.items()}
        numbers |= {"step": state.step, "processes": processes, "begun_with": self.laboratory.fingerprint}
        fingerprint = theta_fingerprint(self.laboratory.learner)
        checkpoint = Checkpoint(self._newest + 1, fingerprint, state.params, tensors, numbers)
        if not self._versions.publish(checked(checkpoint, fingerprint, self._kinds)):
            raise StoreError(f"another process trains in {self.directory} too; let one of them go on")
        self._newest += 1
        for earlier in self.directory.glob("[0-9]*"):  # their names stay: what is taken
            if int(earlier.name[:DIGITS]) < self._newest:
                os.truncate(earlier, 0)


def train(laboratory: Laboratory, place: Place, show: Show) -> Stretch:
    """Train to the end, going on where the last training stopped; `show` is told rounds, and stretches.

    Raises:
        ReptideError: the state directory has a theta from elsewhere; validation never gave a finite loss.
        SettingsError: the training was begun with other settings, or by another number of processes.

    """
    saved = SavedTraining(laboratory)
    now = _begin(laboratory, saved.load(), place)
    _check_unpublished(laboratory, now)
    show(now.state.step, now)
    drawn = count(now.state.step * laboratory.fit.accumulate + 1)
    source = Watched(laboratory.taught(), lambda: show(next(drawn) // laboratory.fit.accumulate, None))
    stretches = laboratory.stretches(_on(now, place.device), source, place)
    for now in stretches:
        if place.rank == 0:
            saved.save(now, place.processes)
        show(now.state.step, now)
    if laboratory.parts.validation is not None and isinf(now.best_loss):
        raise ReptideError(
            f"no validation loss was finite in {now.state.step:,} rounds, so no theta is the best one; lower "
            "inner.lr, or look for values in the examples that are far from all others"
        )
    if place.rank == 0 and laboratory.serves:
        _publish(laboratory, now)
    return now


def _begin(laboratory: Laboratory, saved: Saved | None, place: Place) -> Stretch:
    if saved is None:
        return laboratory.begun()
    if saved.processes != place.processes and not laboratory.training.is_finished(saved.stretch):
        raise SettingsError(
            f"this training was begun by {saved.processes} processes and not by {place.processes}, which would draw "
            "other episodes; go on with as many, or set run.directory to a new folder"
        )
    return saved.stretch


def _versions_of_theta(laboratory: Laboratory) -> DirectoryMeta:
    return DirectoryMeta(laboratory.settings.run.directory / "theta")


def _check_unpublished(laboratory: Laboratory, now: Stretch) -> None:
    unfinished = laboratory.serves and not laboratory.training.is_finished(now)
    if unfinished and _versions_of_theta(laboratory).current():
        raise ReptideError(
            f"{laboratory.settings.run.directory} has a theta already; set run.directory to a new folder to train "
            "another"
        )


def is_published(laboratory: Laboratory, stretch: Stretch) -> bool:
    """Whether a stream begins with the theta of a training: another may have been published first."""
    if not laboratory.serves:
        return False
    versions = _versions_of_theta(laboratory)
    if not versions.current():
        return False
    first = versions.load(1).params
    return all(torch.equal(first[name], value.cpu()) for name, value in stretch.best.items())


def _publish(laboratory: Laboratory, stretch: Stretch) -> None:
    """Make the best theta the first version for a stream, which goes on with a fresh optimizer and schedule."""
    versions = _versions_of_theta(laboratory)
    if versions.current():
        return
    agree(ClassFile(versions.directory / "classes.json"), laboratory.problem.target)
    served, kept = stored(replace(stretch.state, params=stretch.best, optimizer={}, step=0), None)
    numbers = {"position": 0, "through": 0, "window": [0, 0], "step": 0}
    fingerprint = theta_fingerprint(laboratory.learner)
    first = Checkpoint(1, fingerprint, served, kept, numbers)
    versions.publish(checked(first, fingerprint, kinds_of(laboratory.learner.init(0))))


def _on(stretch: Stretch, device: str) -> Stretch:
    """Move what rounds compute with; counters of the optimizer stay where it wants them."""
    state = stretch.state
    params, best = (moved(some, device) for some in (state.params, stretch.best))
    optimizer = {k: v.to(device) if v.dim() else v for k, v in state.optimizer.items()}
    return replace(stretch, state=replace(state, params=params, optimizer=optimizer), best=best)
