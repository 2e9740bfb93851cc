"""The trainer: episodes in, versions of theta out. It alone writes versions.

Tasks chosen by a hash of their id are held out: never trained on, they judge each candidate. A candidate
that is refused is thrown away with its optimizer state; the version published then is theta as it was.

A checkpoint holds what was consumed: so an episode produced again after a crash is recognised, and
training that was published is never done twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from math import inf
from typing import Any, NamedTuple

import torch

from engine.episodes import sample, stack
from engine.fingerprints import theta_fingerprint
from engine.gate import Verdict, gate
from engine.learners.base import Learner
from engine.outer.base import OuterRule
from engine.spec import Classification, Regression
from engine.train import FitSettings, Round, Statistics, TrainState, fit, start, with_statistics
from engine.types import Episodes
from streams.errors import SettingsError, StoreError
from streams.outputs import FoundEpisode
from streams.stores.base import Checkpoint, MetaStore
from streams.theta import checked

STATISTICS = ("count", "mean", "m2")


class Advance(NamedTuple):
    """What one version of theta was made from."""

    version: int
    episodes: int
    rounds: list[Round]
    verdict: Verdict
    published: bool
    """False where another trainer came first."""


@dataclass(frozen=True)
class Trainer:
    """Trains theta on episodes, judges the result on held-out tasks, and publishes it."""

    learner: Learner
    rule: OuterRule
    fit: FitSettings
    store: MetaStore
    seed: int = 0
    batch: int = 32
    """Episodes of one outer step."""
    held_out: float = 0.0
    """Share of tasks that are never trained on."""

    def newest(self) -> Checkpoint | None:
        """The version in force; None before the first.

        Raises:
            CheckpointError: it is damaged, or of another task spec.

        """
        version = self.store.current()
        fingerprint = theta_fingerprint(self.learner)
        return checked(self.store.load(version), fingerprint) if version else None

    def advance(
        self, before: Checkpoint | None, found: Sequence[FoundEpisode], consumed: Mapping[str, Any]
    ) -> Advance:
        """Make the next version from episodes; `consumed` says in its checkpoint how far they reached.

        Raises:
            SettingsError: the workers name more classes than we do.

        """
        _check_named(self.learner.spec.target, found)
        judges = [one.episode for one in found if held_out(one.task, self.held_out)]
        taught, state = self.taught(found), self.state(before)
        candidate, rounds = self.take(taught, self.counted(taught, state))
        verdict = gate(self.learner, state.params, candidate.params, judges, self.batch)
        version = (before.version if before else 0) + 1
        published = self.publish(version, state if verdict.refused else candidate, consumed)
        return Advance(version, len(found), rounds, verdict, published)

    def taught(self, found: Sequence[FoundEpisode]) -> list[FoundEpisode]:
        """Episodes of tasks that are not held out."""
        return [one for one in found if not held_out(one.task, self.held_out)]

    def counted(self, found: Sequence[FoundEpisode], state: TrainState) -> TrainState:
        """Count the new examples of episodes into the statistics; to be done once for each episode."""
        seen = [torch.from_numpy(one.episode.query_x) for one in found]
        return with_statistics(self.learner, state, torch.cat(seen)) if seen else state

    def take(self, found: Sequence[FoundEpisode], state: TrainState) -> tuple[TrainState, list[Round]]:
        """Train on every episode once."""
        return fit(self.learner, self.rule, self._batches(found, state.step), state, self.fit)

    def publish(self, version: int, state: TrainState, consumed: Mapping[str, Any]) -> bool:
        """Write a version, unless another trainer has."""
        trainer = {f"optimizer.{name}": value for name, value in state.optimizer.items()}
        trainer |= {f"statistics.{name}": getattr(state.statistics, name) for name in STATISTICS}
        fingerprint = theta_fingerprint(self.learner)
        checkpoint = Checkpoint(version, fingerprint, state.params, trainer, {**consumed, "step": state.step})
        return self.store.publish(checked(checkpoint, fingerprint))

    def state(self, before: Checkpoint | None) -> TrainState:
        """What training goes on from."""
        if before is None:
            return start(self.learner, self.seed)
        statistics = Statistics(*(before.trainer[f"statistics.{name}"] for name in STATISTICS))
        optimizer = {
            name.removeprefix("optimizer."): value
            for name, value in before.trainer.items()
            if name.startswith("optimizer.")
        }
        params = {name: before.params[name] for name in self.learner.init(self.seed)}
        return TrainState(params, optimizer, before.numbers["step"], statistics)

    def _batches(self, found: Sequence[FoundEpisode], step: int) -> Iterator[Episodes]:
        """Every episode once, in an order drawn from the seed and the step."""
        shuffled = [one.episode for one in sample(found, len(found), seed=self.seed, step=step)]
        return (stack(shuffled[i : i + self.batch], self.batch) for i in range(0, len(shuffled), self.batch))


def _check_named(target: Classification | Regression, found: Sequence[FoundEpisode]) -> None:
    """Refuse to learn nothing from a class that was appended since this process began."""
    named = len(target.classes) if isinstance(target, Classification) else inf
    for one in found:
        if one.episode.query_y.max() >= named:
            raise SettingsError(
                f"target.classes: task {one.task!r} has a label of a class that is not among them; start the trainer "
                "again with the classes that the workers have, nothing is lost"
            )


def restore(store: MetaStore, version: int) -> int:
    """Publish an earlier version as the newest, to be adopted and gone on from; returns its number.

    Raises:
        CheckpointError: there is no such version.
        StoreError: a trainer published meanwhile.

    """
    newest, earlier = store.load(store.current()), store.load(version)
    numbers = {**newest.numbers, "step": earlier.numbers["step"]}
    if not store.publish(replace(earlier, version=newest.version + 1, numbers=numbers)):
        raise StoreError("a trainer published a version meanwhile; stop it, and do this again")
    return newest.version + 1


def held_out(task: str, share: float) -> bool:
    """Whether a task is in the share that judges and never teaches; the same for ever."""
    digest = blake2b(task.encode(), digest_size=4, person=b"held out").digest()
    return int.from_bytes(digest, "little") < share * 2**32
