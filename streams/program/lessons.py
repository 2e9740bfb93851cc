"""What theta is taught: each label once, in order, and labels of a window again; which, a seed draws."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from engine.batches import stack
from engine.learners.gradient import unmoved
from engine.outer.fit import TrainState
from engine.outer.online import Lesson
from engine.stream.spec import StreamSpec
from engine.types import Batch, Episode, Episodes, Int64
from streams.program.label_window import LabelWindow

EPISODES = 8
"""Episodes of one step of the outer rule: always as many, so that its inner loop is recorded once."""

AT_ONCE = 16
"""Steps that are taken without a word in between, at most."""

FEW_LABELS, MOST_REPLAYS = 8192, 6
"""While theta has seen fewer labels than this, each is trained on more often, up to so many times more."""


def nothing() -> None:
    """Tell nobody."""


class _Step(NamedTuple):
    """What one step trains on."""

    labels: Int64
    """Where they are in the window."""
    episodes: Sequence[Episode]


@dataclass(frozen=True)
class Lessons:
    """Labels as batches of one shape, and episodes beside them."""

    spec: StreamSpec
    seed: int
    batch: int
    """Labels of one outer step."""
    replays: float
    """How often a label is trained on again, in the mean."""
    alive: Callable[[], object]
    """Called every few steps."""

    def of(self, window: LabelWindow, found: Int64, again: Int64, state: TrainState) -> Iterator[Lesson]:
        """Each batch of new labels, then batches drawn from others, by their places in a window.

        There are episodes wherever enough have ended. Where more end than steps take, those left when the labels are
        over are passed over.
        """
        steps: list[_Step] = []
        for step in self._steps(window, found, again, state):
            if steps and (step.episodes or len(steps) == AT_ONCE):
                yield self._lesson(window, steps)
                steps = []
            steps.append(step)
        if steps:
            yield self._lesson(window, steps)

    def _steps(self, window: LabelWindow, found: Int64, again: Int64, state: TrainState) -> Iterator[_Step]:
        drawn, ended = np.random.default_rng((self.seed, state.step)), list[Episode]()
        adapts, before = not unmoved(state.params), float(state.statistics.count[-1]) - len(found)
        due = before / self.batch * self.replays % 1.0  # a version of one batch has its share too
        replays = self._replays(state)
        for start_at in range(0, len(found), self.batch):
            labels = found[start_at : start_at + self.batch]
            ended += _episodes(window, labels) if adapts else []
            last = start_at + self.batch >= len(found)
            taken = ended[:EPISODES] if len(ended) >= EPISODES or last else []
            ended = ended[len(taken) :]
            yield _Step(labels, taken)
            due += replays
            for _ in range(int(due)):
                yield _Step(again[drawn.integers(0, len(again), min(self.batch, len(again)))], [])
            due %= 1.0

    def _replays(self, state: TrainState) -> float:
        """How often each label is trained on again: more often while there are few."""
        seen = float(state.statistics.count[-1])
        return max(self.replays, min(MOST_REPLAYS, FEW_LABELS // max(seen, 1.0)) * (self.replays > 0))

    def _lesson(self, window: LabelWindow, steps: Sequence[_Step]) -> Lesson:
        """Steps in a row, of which the first may have episodes; a batch that is short is padded by its first."""
        self.alive()
        shape, counts = (len(steps), self.batch), np.array([len(one.labels) for one in steps])
        index, weight = np.empty(shape, np.int64), np.arange(self.batch) < counts[:, np.newaxis]
        for row, (labels, _) in zip(index, steps, strict=True):
            row[: len(labels)], row[len(labels) :] = labels, labels[0]
        x, y = window.numbers(index.ravel())
        parts = x.reshape(*shape, -1), y.reshape(shape), weight.astype(np.float32)
        episodes = steps[0].episodes
        return Lesson(
            Batch(*map(torch.from_numpy, parts)), self.stacked(episodes, EPISODES) if episodes else None
        )

    def stacked(self, episodes: Sequence[Episode], size: int) -> Episodes:
        """Episodes in one shape, whatever their number and lengths."""
        return stack(episodes, size, self.spec.problem.support, self.spec.policy.every)


def _episodes(window: LabelWindow, index: Int64) -> list[Episode]:
    """Those that ended at labels."""
    labels = (window.labels[n] for n in index.tolist())
    return [one.episode for one in labels if one.episode is not None]
