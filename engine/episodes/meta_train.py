"""Offline meta-training: `fit` in stretches, judged on held-out tasks between them, and stopped when they tell.

Theta that goes on improving on the tasks it is trained on, and no longer on others, remembers tasks instead of
learning to adapt (meta-overfitting); so the theta that was best on held-out *tasks* is the one to keep.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from statistics import fmean

import torch

from engine.batches import by_size
from engine.episodes.task_source import TaskSource
from engine.learners.base import Learner, losses
from engine.outer.base import OuterRule
from engine.outer.descent import FitSettings
from engine.outer.fit import TrainState, fit
from engine.problem import normalises_by_batch
from engine.traced import unrecorded
from engine.types import Batch, EngineError, Episodes, Params

BLOCK = 25
"""Held-out episodes of one call."""


@dataclass(frozen=True)
class MetaTraining:
    """How long, and when to stop.

    `rounds` outer rounds of `tasks` episodes for each batch; every `every` rounds theta is judged on the same
    `judged` held-out episodes. After `patience` judgements without a better one training stops; 0 never stops.
    """

    rounds: int
    tasks: int = 16
    every: int = 100
    judged: int = 200
    patience: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.rounds, self.tasks, self.every, self.judged) < 1 or self.patience < 0:
            raise EngineError(
                f"rounds, tasks, every and judged must be positive and patience not negative, got {self}"
            )

    def is_finished(self, now: Stretch) -> bool:
        """Whether there is nothing left to train."""
        return now.state.step >= self.rounds or 0 < self.patience <= now.stale


@dataclass(frozen=True)
class Stretch:
    """Where training stands after some rounds: everything that the next stretch needs."""

    state: TrainState
    best: Params
    """Theta as it was at the best judgement; the newest where nothing judges."""
    best_loss: float
    stale: int
    """Judgements since the best."""
    trained_loss: float
    """Mean query loss after adaptation over the training episodes of the stretch."""
    held_out_loss: float
    """The same over the held-out episodes, at its end; NaN where there are none."""


@dataclass(frozen=True)
class Place:
    """Which of several processes this is, and how they average; one alone by default."""

    rank: int = 0
    processes: int = 1
    combine: Callable[[Params], Params] = dict
    device: str = "cpu"


def begun(state: TrainState) -> Stretch:
    """Nothing trained yet."""
    return Stretch(state, state.params, math.inf, 0, math.nan, math.nan)


def meta_train(
    learner: Learner,
    rule: OuterRule,
    source: TaskSource,
    held_out: TaskSource | None,
    settings: MetaTraining,
    outer: FitSettings,
    start: Stretch,
    place: Place = Place(),
) -> Iterator[Stretch]:
    """Go on from `start`, one stretch after another, up to `settings.rounds` rounds or until held-out tasks tell.

    Stopped between stretches and resumed from the last, training continues bit for bit.

    Raises:
        EngineError: in none of the rounds of a whole stretch, of two or more, was the pseudo-gradient finite.

    """
    now = start
    while not settings.is_finished(now):
        count = min(settings.every, settings.rounds - now.state.step)
        drawn = _drawn(source, settings, outer.accumulate, now.state.step, count, place)
        state, rounds = fit(learner, rule, drawn, now.state, outer, place.combine)
        if count == settings.every > 1 and not any(one.applied for one in rounds):
            raise EngineError(
                f"theta did not move in {count} rounds from {now.state.step} on: no pseudo-gradient was finite; "
                "lower the inner learning rate or its steps, or look for values in the examples that are not finite"
            )
        seen = [one.report.query_loss_after for one in rounds]
        trained = fmean([loss for loss in seen if math.isfinite(loss)] or [math.nan])
        now = _judged(
            replace(now, state=state, trained_loss=trained), learner, held_out, settings, place.device
        )
        yield now


def judged(
    learner: Learner, theta: Params, held_out: TaskSource, settings: MetaTraining, device: str
) -> float:
    """Mean query loss after adaptation on held-out episodes, the same ones each time."""
    found, by_batch = [], normalises_by_batch(learner.problem)
    with torch.no_grad():
        for step, _ in enumerate(range(0, settings.judged, BLOCK)):
            episodes = on_device(held_out.draw(BLOCK, seed=settings.seed, step=step), device)
            parts = by_size(episodes) if by_batch else [episodes]
            subject = learner if len(parts) == 1 else unrecorded(learner)
            for part in parts:
                fast = subject.adapt(theta, part.support)
                found.append(losses(subject, theta, fast, part.query))
    return float(torch.cat(found).double().mean())


def moved(params: Params, device: str) -> Params:
    """Parameters, on a device."""
    return {name: value.to(device) for name, value in params.items()}


def on_device(episodes: Episodes, device: str) -> Episodes:
    """Episodes, moved."""
    return Episodes(*(Batch(*(column.to(device) for column in side)) for side in episodes))


def _drawn(
    source: TaskSource, settings: MetaTraining, batches: int, step: int, rounds: int, place: Place
) -> Iterator[Episodes]:
    """Training episodes of some rounds; no two processes, rounds or batches draw the same."""
    for batch in range(step * batches, (step + rounds) * batches):
        drawn = source.draw(settings.tasks, seed=settings.seed + 1, step=batch * place.processes + place.rank)
        yield on_device(drawn, place.device)


def _judged(
    now: Stretch, learner: Learner, held_out: TaskSource | None, settings: MetaTraining, device: str
) -> Stretch:
    """Judge the newest theta, and keep it where it is the best; a loss that is not finite is never better."""
    theta = now.state.params
    if held_out is None:
        return replace(now, best=theta)
    loss = judged(learner, theta, held_out, settings, device)
    if loss < now.best_loss:
        return replace(now, held_out_loss=loss, best=theta, best_loss=loss, stale=0)
    return replace(now, held_out_loss=loss, stale=now.stale + 1)
