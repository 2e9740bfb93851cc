"""Episodic evaluation: contenders judged side by side on the same episodes of tasks that none was trained on.

The protocol of few-shot learning: the mean over at least 600 test episodes with its 95% interval (Vinyals et al.
2016, arXiv:1606.04080; Chen et al. 2019, arXiv:1904.04232, who find that plain baselines, given the same care,
rival what was built to beat them). Every contender meets the same episodes, so differences are paired.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from torch import Tensor

from engine.episodes.meta_train import moved, on_device
from engine.episodes.task_source import TaskSource, tasks_drawn
from engine.evaluation.episodic.pictures import drawn_episode, images_of
from engine.evaluation.episodic.report import (
    DrawnEpisode,
    EpisodicReport,
    Gap,
    Judgement,
    Metric,
    Mode,
    Size,
    Tasks,
    figures_of,
    gain_of,
    gap_of,
)
from engine.evaluation.episodic.scoring import Adapts, metrics_of, predicted, scored
from engine.learners.base import TakesSteps
from engine.problem import Problem, normalises_by_batch
from engine.traced import unrecorded
from engine.types import EngineError, Episodes, Float64, Int64, Params

BLOCK = 25
"""Episodes of one call."""


@dataclass(frozen=True)
class Contender:
    """One that is judged: `build(problem)` with `theta`. One that takes gradient steps is built for each number."""

    name: str
    build: Callable[[Problem], Adapts]
    problem: Problem
    theta: Params
    note: str = ""
    """What it is, in a line."""
    trained: bool = True
    """Whether theta comes of training tasks; what does not cannot have memorised them."""


@dataclass(frozen=True)
class Setting:
    """Episodes of so many shots: of held-out tasks, and of those trained on, to see whether the two part."""

    shots: int
    held_out: TaskSource
    training: TaskSource | None = None


@dataclass(frozen=True)
class Judging:
    """How contenders are judged; `steps` rise, and the last is what contenders are compared after."""

    reference: str
    episodes: int = 600
    steps: tuple[int, ...] = (0, 1, 5, 10)
    seed: int = 0
    pictures: int = 3
    """How many episodes are drawn, where the data are images."""
    device: str = "cpu"

    def __post_init__(self) -> None:
        rise = list(self.steps) == sorted(set(self.steps)) and min(self.steps, default=-1) >= 0
        if self.episodes < 2 or not rise:
            raise EngineError(f"episodes must be at least 2, and steps rise from 0 or more, got {self}")

    @property
    def blocks(self) -> int:
        """Calls that the episodes of one source take."""
        return -(-self.episodes // BLOCK)


class Way(NamedTuple):
    """One contender, adapted by so many steps, and judged one way."""

    contender: str
    steps: int | None
    mode: Mode
    headline: bool


class Entrant(NamedTuple):
    """A contender that is built, for one number of steps."""

    contender: Contender
    built: Adapts
    by_batch: bool
    steps: int | None
    last: bool

    def outputs(self, episodes: Episodes, device: str = "cpu") -> dict[Way, Tensor]:
        """Outputs [U, Q, C] on the query sets."""
        theta = moved(self.contender.theta, device)
        found = predicted(self.built, theta, on_device(episodes, device), by_batch=self.by_batch)
        return {self.way(mode): outputs.cpu() for mode, outputs in found.items()}

    def way(self, mode: Mode = "inductive") -> Way:
        """Name what it is judged by."""
        return Way(self.contender.name, self.steps, mode, self.last and mode == "inductive")


class Scores(NamedTuple):
    """What the N episodes of one source yielded."""

    shots: int
    tasks: Tasks
    task: Int64
    """[N] number of the task that each is drawn from."""
    values: Mapping[Way, Float64]
    """[metrics, N]"""


def evaluate(
    contenders: Sequence[Contender],
    settings: Sequence[Setting],
    judging: Judging,
    progress: Callable[[int, int], None] = lambda _done, _of: None,
) -> EpisodicReport:
    """Judge every contender on the same episodes of every setting; `progress` is told blocks done, and of how many.

    Raises:
        EngineError: contenders repeat a name or have different targets, the reference is none of them, settings
            repeat their shots, or all episodes are of one task.

    """
    metrics = _checked(contenders, settings, judging)
    entrants = [entrant for contender in contenders for entrant in entered(contender, judging.steps)]
    sides = [
        (source, Scores(s.shots, tasks, tasks_of(source, judging.episodes, judging.seed), {}))
        for s in settings
        for tasks, source in _sides(s)
    ]
    total = len(sides) * judging.blocks
    done = iter(range(1, total + 1))
    found = [
        _scored(entrants, nothing, source, judging, lambda: progress(next(done), total))
        for source, nothing in sides
    ]
    trained = {contender.name for contender in contenders if contender.trained}
    return EpisodicReport(
        metric=metrics[0],
        reference=judging.reference,
        contenders={c.name: c.note for c in contenders},
        steps=list(judging.steps),
        seed=judging.seed,
        sizes=[_size(scores) for scores in found],
        judgements=[j for scores in found for j in _judgements(scores, metrics, judging.reference)],
        gaps=[gap for scores in found for gap in _gaps(scores, found, metrics[0], trained)],
        episodes=_pictures(entrants, settings[0], judging),
    )


def entered(contender: Contender, steps: Sequence[int]) -> list[Entrant]:
    """Build a contender for each number of steps, or once where it takes none."""
    problem, built = contender.problem, _built(contender, contender.problem)
    by_batch = normalises_by_batch(problem)
    if not isinstance(built, TakesSteps):
        return [Entrant(contender, built, by_batch, None, last=True)]
    problems = {k: replace(problem, inner=replace(problem.inner, steps=k)) for k in steps}
    return [
        Entrant(contender, _built(contender, problems[k]), by_batch, k, last=k == steps[-1]) for k in steps
    ]


def _built(contender: Contender, problem: Problem) -> Adapts:
    """Build one; a few dozen calls of each shape are too few to record them."""
    return unrecorded(contender.build(problem))


def _sides(setting: Setting) -> Iterator[tuple[Tasks, TaskSource]]:
    yield "held out", setting.held_out
    if setting.training is not None:
        yield "training", setting.training


def _scored(
    entrants: Sequence[Entrant],
    nothing: Scores,
    source: TaskSource,
    judging: Judging,
    tick: Callable[[], None],
) -> Scores:
    found: dict[Way, list[Float64]] = {}
    for block in range(judging.blocks):
        episodes = source.draw(BLOCK, seed=judging.seed, step=block)
        for entrant in entrants:
            for way, outputs in entrant.outputs(episodes, judging.device).items():
                found.setdefault(way, []).append(
                    scored(entrant.contender.problem.target, outputs, episodes.query)
                )
        tick()
    values = {way: np.concatenate(parts, axis=1)[:, : judging.episodes] for way, parts in found.items()}
    return nothing._replace(values=values)


def tasks_of(source: TaskSource, episodes: int, seed: int) -> Int64:
    """Number the task of each episode that an evaluation judges on.

    Raises:
        EngineError: all are of one task.

    """
    draws = [tasks_drawn(source, BLOCK, seed=seed, step=block) for block in range(-(-episodes // BLOCK))]
    task = np.concatenate(draws)[:episodes]
    if len(np.unique(task)) < 2:
        raise EngineError(
            "all episodes are of one task, which gives no interval; bring examples of more tasks"
        )
    return task


def _size(scores: Scores) -> Size:
    episodes, different = len(scores.task), len(np.unique(scores.task))
    return Size(
        shots=scores.shots,
        tasks=scores.tasks,
        episodes=episodes,
        drawn_from=different if different < episodes else None,
    )


def _judgements(scores: Scores, metrics: Sequence[Metric], reference: str) -> Iterator[Judgement]:
    against = next(v for way, v in scores.values.items() if way.headline and way.contender == reference)
    for way, values in scores.values.items():
        compared = way.headline and way.contender != reference
        for row, metric in enumerate(metrics):
            yield Judgement(
                contender=way.contender,
                shots=scores.shots,
                tasks=scores.tasks,
                mode=way.mode,
                steps=way.steps,
                headline=way.headline,
                metric=metric,
                figures=figures_of(values[row], scores.task),
                against_reference=gain_of(values[row], against[row], scores.task) if compared else None,
            )


def _gaps(training: Scores, found: Sequence[Scores], metric: Metric, trained: Set[str]) -> Iterator[Gap]:
    """Set what training tasks yielded, of contenders that were trained, beside held-out tasks of as many shots."""
    if training.tasks == "training":
        held_out = next(s for s in found if (s.shots, s.tasks) == (training.shots, "held out"))
        for way in (way for way in held_out.values if way.headline and way.contender in trained):
            sides = [(side.values[way][0], side.task) for side in (training, held_out)]
            if all(np.isfinite(values).all() for values, _ in sides):
                yield gap_of(way.contender, held_out.shots, metric, *sides)


def _pictures(entrants: Sequence[Entrant], setting: Setting, judging: Judging) -> list[DrawnEpisode]:
    """Draw the first held-out episodes of the first setting, with what the first contender predicted."""
    subject = next(entrant for entrant in entrants if entrant.last)
    column = images_of(subject.contender.problem)
    if column is None:
        return []
    episodes = setting.held_out.draw(BLOCK, seed=judging.seed, step=0)
    outputs = subject.outputs(episodes, judging.device)[subject.way()]
    return [
        drawn_episode(column, setting.shots, episodes, outputs, which)
        for which in range(min(judging.pictures, judging.episodes, BLOCK))
    ]


def _checked(
    contenders: Sequence[Contender], settings: Sequence[Setting], judging: Judging
) -> tuple[Metric, ...]:
    shots = [setting.shots for setting in settings]
    if not shots or len(set(shots)) < len(shots):
        raise EngineError(f"there must be settings, of different numbers of shots, got {shots}")
    names = [c.name for c in contenders]
    if judging.reference not in names or len(set(names)) < len(names):
        raise EngineError(
            f"contenders must have different names, the reference {judging.reference!r} among them, got {names}"
        )
    kinds = {(metrics_of(c.problem.target), c.problem.target.outputs) for c in contenders}
    if len(kinds) > 1:
        raise EngineError(f"contenders must predict the same target, got {sorted(kinds)}")
    return kinds.pop()[0]
