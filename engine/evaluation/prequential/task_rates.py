"""What a task's own labels say without any feature: its rate or mean so far, and its last label.

Each runs in several variants side by side. A rate is shrunk towards the rate of the stream as if `strength` labels of
the stream had come first; the last label gets `weight`, and the rate of the stream the rest. Of a regression the
last label is said as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from engine.compiled import compiled
from engine.evaluation.prequential.linear_model import Stream, grown, rules_of
from engine.evaluation.prequential.linear_steps import Judged, Waiting, judge, least, unjudged, waiting
from engine.targets import Classification, Regression
from engine.types import Float64, Int64

STRENGTHS = (1.0, 4.0, 16.0, 64.0)
WEIGHTS = (0.1, 0.3, 0.5, 0.7, 0.9, 0.99)


class _State(NamedTuple):
    """What is known of each task, and of the stream."""

    sums: Float64
    """[U, C] labels of each class; of a regression their sum."""
    labels: Int64
    """[U]"""
    last: Float64
    """[U] the last label known."""
    stream: Float64
    """[C + 1] the sums of all tasks, and their count."""
    loss: Float64
    """[G] sums over the labels so far."""


class TaskRates:
    """Rates of tasks, shrunk by each of G strengths; or, `last`, their last labels with each of G weights.

    >>> rates = TaskRates(Classification((0, 1)), (1.0,))
    >>> x, task = np.zeros((2, 0), np.float32), np.zeros(2, np.int64)
    >>> events = Stream(x, task, np.array([0, ~0, 1, ~1]), np.array([0.0, 1.0, 0.0, 1.0]))
    >>> rates.follow(events).prediction[:, 0, 1].round(3)
    array([0.5  , 0.875], dtype=float32)
    """

    def __init__(
        self, target: Classification | Regression, variants: Sequence[float], *, last: bool = False
    ) -> None:
        self._rules = rules_of(target)
        self._variants = np.array(variants, np.float64)
        self._last = last
        outputs = self._rules.outputs
        self._state = _State(
            np.zeros((0, outputs)),
            np.zeros(0, np.int64),
            np.zeros(0),
            np.zeros(outputs + 1),
            np.zeros(len(variants)),
        )
        self._waiting = waiting(self._rules, len(variants), 0)

    def follow(self, stream: Stream) -> Judged:
        """Take the events in order, as `LinearModel.follow` does; features are not looked at."""
        tasks = int(stream.task.max(initial=-1)) + 1
        sums, labels, last = (grown(part, tasks) for part in self._state[:3])
        self._state = self._state._replace(sums=sums, labels=labels, last=last)
        self._waiting = Waiting(*(grown(part, len(stream.x)) for part in self._waiting))
        judged = unjudged(self._rules, len(self._variants), stream.order)
        _follow(stream, self._rules, self._variants, self._last, self._state, self._waiting, judged)
        return judged


@compiled
def _stream_rate(state: Any, rules: Any, c: int) -> float:
    """Of a class among all labels so far, as if one of each had come first; of a regression the mean."""
    total = state.stream[rules.outputs]
    if rules.regression:
        middle = (rules.low + rules.high) / 2
        return float(state.stream[0] / total) if total > 0 else middle
    return float((state.stream[c] + 1 / rules.outputs) / (total + 1))


@compiled
def _said(state: Any, rules: Any, u: int, c: int, variant: float, last: bool) -> float:
    """What one variant says of class c, or of the value, of task u."""
    prior = _stream_rate(state, rules, c)
    if not last:
        return float((state.sums[u, c] + variant * prior) / (state.labels[u] + variant))
    if state.labels[u] == 0:
        return prior
    if rules.regression:
        return float(state.last[u])
    return float(variant * (state.last[u] == c) + (1 - variant) * prior)


@compiled
def _follow(
    stream: Any, rules: Any, variants: Any, last: bool, state: Any, waiting: Any, judged: Any
) -> None:
    label, scale = 0, 1 - rules.outputs * rules.floor
    for e in range(len(stream.order)):
        s = stream.order[e]
        if s >= 0:
            for g in range(len(variants)):
                for c in range(rules.outputs):
                    said = _said(state, rules, stream.task[s], c, variants[g], last)
                    waiting.prediction[s, g, c] = said * scale + rules.floor
            waiting.leader[s] = least(state.loss)
            continue
        s, y = ~s, stream.y[e]
        judge(waiting, s, y, rules, state.loss, judged, label)
        label += 1
        u, c = stream.task[s], 0 if rules.regression else int(y)
        amount = y if rules.regression else 1.0
        state.sums[u, c] += amount
        state.stream[c] += amount
        state.labels[u] += 1
        state.stream[rules.outputs] += 1
        state.last[u] = y
