"""An online linear model over stored rows: what a careful user would try first, and what we are held against.

One weight for every bucket of a category, one for every standardised number, and one for every task where the
task's id is a feature: generalised linear models (logistic, softmax, squared loss) under Adagrad (Duchi, Hazan and
Singer 2011, JMLR 12), as McMahan et al. 2013 (Ad click prediction: a view from the trenches) describe them. An
observation is predicted when it comes and learned from when its label does, by the gradient of that moment's weights.
Several ways to take steps run side by side, and the one with the least loss so far leads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from engine.evaluation.prequential.linear_steps import (
    CATEGORY,
    NUMBER,
    OPTIONAL,
    PLAIN,
    STEPS,
    TEXT,
    Judged,
    Layout,
    Rules,
    State,
    Steps,
    Waiting,
    follow,
    room_of,
    unjudged,
    waiting,
)
from engine.features.columns import Category, Numeric, Text
from engine.features.encoder import Features
from engine.targets import Classification, Regression
from engine.types import Float32, Float64, Int64


class Stream(NamedTuple):
    """Events of a stream over S examples, in log order; an example may be of an earlier call."""

    x: Float32
    """[S, W] features in stored form."""
    task: Int64
    """[S] numbered from 0."""
    order: Int64
    """[E] `s` is the observation of example s, `~s` its label."""
    y: Float64
    """[E] class index or value; undefined for an observation."""


class LinearModel:
    """A linear model for each of G ways to take steps, of tasks that may become more.

    >>> from engine.features import Category
    >>> model = LinearModel(Features((Category("skill", 16),)), Classification((0, 1)), (Steps(0.2),))
    >>> x, task = np.zeros((2, 1), np.float32), np.zeros(2, np.int64)
    >>> events = Stream(x, task, np.array([0, ~0, 1, ~1]), np.array([0.0, 1.0, 0.0, 1.0]))
    >>> model.follow(events).prediction[:, 0, 1].round(3)
    array([0.5  , 0.646], dtype=float32)
    """

    def __init__(
        self,
        features: Features,
        target: Classification | Regression,
        steps: Sequence[Steps] = STEPS,
        *,
        knows_task: bool = True,
    ) -> None:
        self._rates, self._keeps = np.array(steps, np.float64).T.copy()
        self._rules = rules_of(target)
        self._layout, size = _layout_of(features, knows_task)
        outputs = self._rules.outputs if self._rules.outputs > 2 else 1
        shape = (size, len(steps), outputs)
        moments = np.zeros((features.width + 1, 3))
        self._state = State(np.zeros(shape), np.zeros(shape), moments, np.zeros(len(steps)))
        self._waiting = waiting(self._rules, len(steps), 0)

    def follow(self, stream: Stream) -> Judged:
        """Take the events in order: predict at observations, learn from labels.

        Numbers of examples and tasks mean the same at every call; those of examples whose label came are free again.
        """
        if self._layout.tasks >= 0:
            tasks = self._layout.tasks + int(stream.task.max(initial=-1)) + 1
            weight, square = grown(self._state.weight, tasks), grown(self._state.square, tasks)
            self._state = self._state._replace(weight=weight, square=square)
        self._waiting = Waiting(*(grown(part, len(stream.x)) for part in self._waiting))
        judged = unjudged(self._rules, len(self._rates), stream.order)
        steps = (self._rates, self._keeps)
        room = room_of(self._layout, self._state)
        follow(stream, self._layout, self._rules, steps, self._state, self._waiting, judged, room)
        return judged


def rules_of(target: Classification | Regression) -> Rules:
    """The numbers of a target; of classes those that are named."""
    if isinstance(target, Regression):
        return Rules(1, 0.0, True, target.low, target.high)
    return Rules(len(target.classes), target.floor, False, 0.0, 0.0)


def grown(array: Any, length: int) -> Any:
    """The same array with room for `length` entries at least; twice as many as before, so that it is rare."""
    if len(array) >= length:
        return array
    larger = np.zeros((max(length, 2 * len(array)), *array.shape[1:]), array.dtype)
    larger[: len(array)] = array
    return larger


def _layout_of(features: Features, knows_task: bool) -> tuple[Layout, int]:
    """Give every stored number its weights; one of the ids of a text shares them with the others."""
    kind, start, size = list[int](), list[int](), 0
    for column in features.columns:
        if isinstance(column, Category | Text):
            kind += [CATEGORY if isinstance(column, Category) else TEXT] * column.width
            start += [size] * column.width
            size += column.buckets
        elif isinstance(column, Numeric):
            kind.append(OPTIONAL if column.optional else NUMBER)
            start.append(size)
            size += 1 + column.optional
        else:
            kind += [PLAIN] * column.width
            start += range(size, size + column.width)
            size += column.width
    tasks = size + 1 if knows_task else -1
    return Layout(np.array(kind, np.int64), np.array(start, np.int64), size, tasks), size + 1
