"""Training on a stream: every label counts at once, theta alone and theta after adaptation in one gradient.

    g = d/d theta  mean over labels of loss(theta, label)  +  1/4 of the outer rule's pseudo-gradient of episodes

So theta is trained for two things: to be good unadapted, which is what a new task is served by, and to be good
after a few steps. Parameters come in three groups. Tables, of which a lesson touches a few rows, and the linear part
take Adagrad (Duchi, Hazan, Singer 2011, JMLR 12), which learns from a bucket's first labels and forgets its rate
from there; the network takes the optimizer of the settings.

Only the rows of tables that a lesson names take part in it: they are gathered into small tables first, so its cost
does not depend on how many buckets there are.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from engine.features.columns import Category, Text
from engine.learners.base import Learner, example_losses, kernel_of
from engine.learners.training import FIRST, SECOND, TINY, InTraining, Pace, Trained
from engine.outer.backprop import Backprop
from engine.outer.base import OuterRule, Report, gradient_of, leaves
from engine.outer.descent import FitSettings, descend, global_norm, resumed, state_of
from engine.outer.fit import Round, TrainState
from engine.problem import Problem
from engine.traced import Recorded
from engine.types import Batch, Episodes, Params

FIRST_SUM = 0.1
"""Where Adagrad's sums of tables begin, in squares of one label's gradient: a rare class moves a bucket gently."""

EPISODES = 0.25
"""What the outer rule's pseudo-gradient weighs beside that of labels: its labels have been counted once already."""

ADAM = ("step", FIRST, SECOND)
"""What torch keeps of Adam, of each parameter."""


AVERAGED = "average."
"""What the name of an averaged parameter begins with, among a state's sums."""

MEMORY, WARMUP = 20, 50
"""The average of the network reaches back this many steps; fewer at first, one for each so many that were taken."""


class Lesson(NamedTuple):
    """What some steps in a row train on."""

    labels: Batch
    """[S, N, W] of any tasks, N of each step, the same in every lesson; weights 1, or 0 for padding."""
    episodes: Episodes | None
    """Beside the labels of the first step."""


@dataclass(frozen=True)
class Rates:
    """How far a step goes."""

    network: FitSettings
    tables: float = 0.2
    linear: float = 0.05


class _Rows(NamedTuple):
    """The rows of a table that a lesson names."""

    name: str
    rows: Tensor


class Online:
    """Trains theta of one learner by lessons. What labels alone say is recorded once and replayed."""

    def __init__(self, learner: Learner, rule: OuterRule, rates: Rates) -> None:
        self.learner, self.rule, self.rates = learner, rule, rates
        self._recorded = Recorded(self._of_labels)

    def learn(self, lessons: Iterable[Lesson], state: TrainState) -> tuple[TrainState, list[Round]]:
        """Take the steps of each lesson; resumed from the state it returns, training goes on bit for bit."""
        trained = self._trained(state)
        theta = self._in_training(trained) if trained is not None else None
        return self._by_tensors(lessons, state) if theta is None else self._in_place(theta, lessons, state)

    def _trained(self, state: TrainState) -> Trained | None:
        """What a kernel goes on from; None where the optimizer is another than Adam, now or before."""
        if self.rates.network.optimizer != "Adam" or self.rule != Backprop():
            return None
        fields = [key.split(":") for key in state.optimizer]
        _, linear, own = self._groups()
        expected = {("Adam", name, field) for name in own for field in ADAM}
        if fields and set(map(tuple, fields)) != expected:
            return None
        moments = {f"{field}:{name}": state.optimizer[f"Adam:{name}:{field}"] for _, name, field in fields}
        taken = {int(moments.pop(f"step:{name}")) for name in own if fields} or {0}
        if len(taken) > 1:
            return None
        squares = self._squares(state.params, state.sums)
        means = {
            name: state.sums[AVERAGED + name] for name in (*own, *linear) if AVERAGED + name in state.sums
        }
        return Trained(state.params, squares, means, moments, taken.pop())

    def _in_training(self, trained: Trained) -> InTraining | None:
        kernel = kernel_of(self.learner)
        return kernel.in_training(trained) if kernel is not None else None

    def _in_place(
        self, theta: InTraining, lessons: Iterable[Lesson], state: TrainState
    ) -> tuple[TrainState, list[Round]]:
        """What `_by_tensors` does, in compiled code: sums are in another order, nothing else differs."""
        rounds = list[Round]()
        for labels, episodes in lessons:
            pace = self._pace(range(state.step + len(rounds), state.step + len(rounds) + len(labels.y)))
            for before, after, norm in theta.steps(labels, episodes, EPISODES, pace):
                step = state.step + len(rounds)
                rounds.append(Round(step, Report(before, after), norm, math.isfinite(norm)))
        return self._state(theta.trained(), state, len(rounds)), rounds

    def _pace(self, steps: range) -> Pace:
        """How far these steps go."""
        network = self.rates.network
        rates, newest = (np.array([at(n) for n in steps]) for at in (network.rate, _newest))
        return Pace(
            float(network.clip), rates, self.rates.linear, self.rates.tables, float(network.weight_decay),
            *(network.betas or (0.9, 0.999)), newest,
        )  # fmt: skip

    def _state(self, trained: Trained, before: TrainState, steps: int) -> TrainState:
        """What a checkpoint holds."""
        optimizer, (_, _, own) = {}, self._groups()
        for name in own if trained.moments else ():
            optimizer[f"Adam:{name}:step"] = torch.tensor(float(trained.taken))
            optimizer |= {f"Adam:{name}:{field}": trained.moments[f"{field}:{name}"] for field in ADAM[1:]}
        means = {AVERAGED + name: value for name, value in trained.means.items()}
        sums = {**before.sums, **trained.squares, **means}
        return replace(
            before, params=trained.params, optimizer=optimizer, step=before.step + steps, sums=sums
        )

    def _groups(self) -> tuple[list[str], list[str], list[str]]:
        """Names of tables, of the linear part, and of all else that learns."""
        learned = self.learner.learned
        tables = [name for name in learned if name.startswith(("0.embeddings.", "0.wide."))]
        linear = [name for name in learned if name.startswith("1.linear.")]
        return tables, linear, [name for name in learned if name not in tables and name not in linear]

    def _squares(self, params: Params, sums: Params) -> Params:
        """Adagrad's sums of squares, from where they stand or begin."""
        tables, linear, _ = self._groups()
        first = {**dict.fromkeys(tables, FIRST_SUM), **dict.fromkeys(linear, 0.0)}
        return {n: sums[n] if n in sums else torch.full_like(params[n], begin) for n, begin in first.items()}

    def _by_tensors(self, lessons: Iterable[Lesson], state: TrainState) -> tuple[TrainState, list[Round]]:
        learner, rates = self.learner, self.rates
        params = {name: value.clone() for name, value in state.params.items()}
        tables, linear, names = self._groups()
        own = {name: params[name] for name in names}
        sums = {name: value.clone() for name, value in state.sums.items()}
        sums |= self._squares(params, sums)
        optimizer = resumed(rates.network, own, state.optimizer)
        rounds: list[Round] = []
        for step, lesson in enumerate(step_by_step(lessons), state.step):
            small, gathered, rows = _gathered(learner.problem, params, tables, lesson)
            gradient, report = self._gradient(small, gathered)
            norm = global_norm(gradient)
            if math.isfinite(norm):
                scale = min(1.0, rates.network.clip / max(norm, 1e-12))
                labels = float(lesson.labels.weight.sum())
                _descend_rows(params, sums, rows, gradient, rates.tables, scale * labels)
                for name in linear:
                    _adagrad(params[name], sums[name], gradient[name] * scale, rates.linear)
                descend(optimizer, own, gradient, rates.network.rate(step), scale)
                _average(sums, {**own, **{name: params[name] for name in linear}}, step)
            rounds.append(Round(step, report, norm, math.isfinite(norm)))
        kept = state_of(optimizer, rates.network, own)
        params |= {name: value.detach() for name, value in own.items()}
        return replace(state, params=params, optimizer=kept, step=state.step + len(rounds), sums=sums), rounds

    def _gradient(self, meta: Params, lesson: Lesson) -> tuple[Params, Report]:
        loss, gradient = self._recorded({name: value.detach() for name, value in meta.items()}, lesson.labels)
        if lesson.episodes is None:
            return gradient, Report(float(loss), math.nan)
        moves, report = self.rule(self.learner, meta, lesson.episodes)
        return {
            n: value + EPISODES * moves[n] if n in moves else value for n, value in gradient.items()
        }, report

    def _of_labels(self, meta: Params, labels: Batch) -> tuple[Tensor, Params]:
        """Mean loss of labels under theta unadapted, and its gradient."""
        with torch.enable_grad():
            theta = leaves({name: meta[name] for name in self.learner.learned})
            outputs = self.learner.shared({**meta, **theta}, labels.x[0])
            losses = example_losses(self.learner.problem, meta, outputs, labels.y[0])
            loss = (losses * labels.weight[0]).sum() / labels.weight.sum().clamp(min=1)
            return loss.detach(), gradient_of(loss, theta)


def averaged(state: TrainState) -> Params:
    """Theta as it is served: of the network and the linear part the mean over the last steps.

    Steps of one size never come to rest; their mean does (Polyak and Juditsky 1992).
    """
    means = {n.removeprefix(AVERAGED): v for n, v in state.sums.items() if n.startswith(AVERAGED)}
    return {**state.params, **means}


def step_by_step(lessons: Iterable[Lesson]) -> Iterator[Lesson]:
    """The same, each of one step."""
    for labels, episodes in lessons:
        for n in range(len(labels.y)):
            yield Lesson(Batch(*(column[n : n + 1] for column in labels)), None if n else episodes)


def _average(sums: Params, values: Params, step: int) -> None:
    """Move each mean towards the newest values."""
    for name, value in values.items():
        before = sums.setdefault(AVERAGED + name, value.detach().clone())
        before.lerp_(value.detach(), _newest(step))


def _newest(step: int) -> float:
    """What the newest values weigh in the mean."""
    return 1 / min(1 + step / WARMUP, MEMORY)


def _gathered(
    problem: Problem, params: Params, tables: Sequence[str], lesson: Lesson
) -> tuple[Params, Lesson, list[_Rows]]:
    """Theta with small tables, the lesson with ids that point into them, and which rows these are."""
    sides = [lesson.labels, *(lesson.episodes or ())]
    xs = [side.x for side in sides]
    small, rows = dict(params), list[_Rows]()
    for number, (start, width) in enumerate(_places(problem)):
        names = [name for name in tables if name.split(".")[2] == str(number)]
        parts = [x[..., start : start + width].flatten() for x in xs]
        # Of a bag id 0 pads, so it keeps its place 0, whether the lesson has it or not.
        ids = torch.cat([parts[0].new_zeros(int(width > 1)), *parts]).long()
        size = 1 << (len(ids) - 1).bit_length()
        if size >= len(params[names[0]]):
            index = torch.unique(ids)
            rows += [_Rows(name, index) for name in names]
            continue
        index, places = torch.unique(ids, return_inverse=True)
        padded = torch.cat([index, index.new_zeros(size - len(index))])
        for name in names:
            small[name] = params[name][padded]
            rows.append(_Rows(name, index))
        cut = places[len(places) - sum(map(len, parts)) :].float().split([len(part) for part in parts])
        xs = [_with_ids(x, start, width, part) for x, part in zip(xs, cut, strict=True)]
    labels, *episodes = (side._replace(x=x) for side, x in zip(sides, xs, strict=True))
    return small, Lesson(labels, Episodes(*episodes) if episodes else None), rows


def _places(problem: Problem) -> list[tuple[int, int]]:
    """Start and width of each column that has a table, in the order of the front end's."""
    columns = [(start, 1) for start in problem.features.places(Category)]
    texts = [column.width for column in problem.features.columns if isinstance(column, Text)]
    return columns + list(zip(problem.features.places(Text), texts, strict=True))


def _with_ids(x: Tensor, start: int, width: int, ids: Tensor) -> Tensor:
    moved = x.clone()
    moved[..., start : start + width] = ids.view(*x.shape[:-1], width)
    return moved


def _descend_rows(
    params: Params, sums: Params, rows: Sequence[_Rows], gradient: Params, rate: float, scale: float
) -> None:
    """Adagrad of the rows that took part; a gradient of a whole table has them at their own places."""
    for name, index in rows:
        slope = gradient[name] * scale
        slope = slope[index] if len(slope) == len(params[name]) else slope[: len(index)]
        sums[name][index] += slope.square()
        params[name][index] -= rate * slope / (sums[name][index].sqrt() + TINY)


def _adagrad(value: Tensor, total: Tensor, slope: Tensor, rate: float) -> None:
    total += slope.square()
    value -= rate * slope / (total.sqrt() + TINY)
