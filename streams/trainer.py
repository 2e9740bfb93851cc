"""The trainer: episodes in, versions of theta out. It alone writes versions.

Its checkpoint holds what it has consumed: the position in the episodes log, and the offset of the input
up to which episodes were trained on. So an episode produced again after a crash is recognised, and a
round that was published is never run twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from engine.episodes import sample, stack
from engine.learners.gradient import GradientLearner
from engine.outer.base import OuterRule
from engine.train import FitSettings, Round, Statistics, TrainState, fit, start, with_statistics
from engine.types import Episode, Episodes
from streams.logs.output import OutputLog
from streams.outputs import read_episode
from streams.stores.base import Checkpoint, MetaStore
from streams.theta import checked

LINES_AT_ONCE = 1024
STATISTICS = ("count", "mean", "m2")


@dataclass(frozen=True)
class Trainer:
    """Runs a round of the outer loop whenever it is due, on the episodes that came since the last."""

    learner: GradientLearner
    rule: OuterRule
    fit: FitSettings
    episodes: OutputLog
    store: MetaStore
    seed: int = 0
    batch: int = 32
    """Episodes of one outer step."""

    def round(self, through: int) -> list[Round]:
        """Train on every episode that ended below offset `through`, and publish; nothing if that was done."""
        before = self._newest()
        consumed = dict(before.numbers) if before else {"position": 0, "through": 0}
        if consumed["through"] >= through:
            return []
        found, position = self.episodes_from(consumed["position"], consumed["through"], through)
        if not found:
            return []
        state, rounds = self.take(found, self.counted(found, self._state(before)))
        self.publish((before.version if before else 0) + 1, state, {"position": position, "through": through})
        return rounds

    def episodes_from(self, position: int, since: int, below: int | None = None) -> tuple[list[Episode], int]:
        """Episodes from a position on that ended in a range of offsets, each once; and the position after.

        A worker that died, or runs ahead, may have left episodes from beyond a round that is due: they are
        not consumed. All that ended below an offset were appended before the first that did not.
        """
        found: dict[tuple[str, int], Episode] = {}
        while True:
            lines, after = self.episodes.read(position, LINES_AT_ONCE)
            if not lines:
                return list(found.values()), position
            for number, (task, offset, episode) in enumerate(map(read_episode, lines)):
                if below is not None and offset >= below:
                    return list(found.values()), self.episodes.read(position, number)[1]
                if offset >= since:
                    found.setdefault((task, episode.labels), episode)
            position = after

    def counted(self, found: list[Episode], state: TrainState) -> TrainState:
        """Count the new examples of episodes into the statistics; to be done once for each episode."""
        seen = torch.cat([torch.from_numpy(episode.query_x) for episode in found])
        return with_statistics(self.learner, state, seen)

    def take(self, found: list[Episode], state: TrainState) -> tuple[TrainState, list[Round]]:
        """Train on every episode once."""
        return fit(self.learner, self.rule, self._batches(found, state.step), state, self.fit)

    def publish(self, version: int, state: TrainState, consumed: dict[str, Any]) -> bool:
        """Write a version, unless another trainer has."""
        trainer = {f"optimizer.{name}": value for name, value in state.optimizer.items()}
        trainer |= {f"statistics.{name}": getattr(state.statistics, name) for name in STATISTICS}
        fingerprint = self.learner.spec.theta_fingerprint()
        checkpoint = Checkpoint(version, fingerprint, state.params, trainer, {**consumed, "step": state.step})
        return self.store.publish(checked(checkpoint, fingerprint))

    def _newest(self) -> Checkpoint | None:
        version = self.store.current()
        fingerprint = self.learner.spec.theta_fingerprint()
        return checked(self.store.load(version), fingerprint) if version else None

    def _batches(self, found: list[Episode], step: int) -> Iterator[Episodes]:
        """Every episode once, in an order drawn from the seed and the step."""
        shuffled = sample(found, len(found), seed=self.seed, step=step)
        return (stack(shuffled[i : i + self.batch], self.batch) for i in range(0, len(shuffled), self.batch))

    def _state(self, before: Checkpoint | None) -> TrainState:
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
