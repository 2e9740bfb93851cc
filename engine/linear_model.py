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

from engine.compiled import compiled
from engine.features import STANDARDISED_LIMIT, Category, Features, Numeric, Text
from engine.spec import Classification, Regression
from engine.types import Float32, Float64, Int64

NUMBER, OPTIONAL, PLAIN, CATEGORY, TEXT = range(5)
"""How a stored number is read: standardised, standardised with a flag, as it is, as an id, as one of several ids."""


class Steps(NamedTuple):
    """How large steps are: `rate` over the root of the squared gradients' sum, which keeps a share of itself."""

    rate: float
    keep: float = 1.0
    """1 is Adagrad, whose steps shrink for ever; below it, a stream that changes is followed."""


STEPS = (Steps(0.25), Steps(0.6), Steps(0.1, 0.99), Steps(0.6, 0.99))
"""On five real streams the leader of these was within .005 nats of the best of 25."""

TINY = 1e-12


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


class Judged(NamedTuple):
    """What had been predicted of the L labels of a stream, by G variants side by side."""

    prediction: Float32
    """[L, G, C] probabilities, or values [L, G, 1], made when the observation came."""
    leader: Int64
    """[L] the variant with the least loss among all labels known then."""


class Rules(NamedTuple):
    """The numbers of a target that a loop needs."""

    outputs: int
    """Of a prediction: classes, or 1."""
    floor: float
    regression: bool
    low: float
    high: float


class _Layout(NamedTuple):
    """Where the weights of each stored number lie."""

    kind: Int64
    """[W]"""
    start: Int64
    """[W]"""
    bias: int
    tasks: int
    """Of the first task's weight; -1 where a task has none."""


class _State(NamedTuple):
    """Everything learned."""

    weight: Float64
    """[D, G, K]"""
    square: Float64
    """[D, G, K] sums of squared gradients."""
    moments: Float64
    """[W + 1, 3] count, mean and sum of squared deviations of each stored number, and of the target."""
    loss: Float64
    """[G] sums over the labels so far."""


class Waiting(NamedTuple):
    """What was said of examples whose label has not come."""

    prediction: Float32
    """[S, G, C]"""
    leader: Int64
    """[S]"""


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
        self._state = _State(np.zeros(shape), np.zeros(shape), moments, np.zeros(len(steps)))
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
        _follow(stream, self._layout, self._rules, steps, self._state, self._waiting, judged)
        return judged


def rules_of(target: Classification | Regression) -> Rules:
    """The numbers of a target; of classes those that are named."""
    if isinstance(target, Regression):
        return Rules(1, 0.0, True, target.low, target.high)
    return Rules(len(target.classes), target.floor, False, 0.0, 0.0)


def waiting(rules: Rules, variants: int, examples: int) -> Waiting:
    """Room for what is said of that many examples."""
    prediction = np.zeros((examples, variants, rules.outputs), np.float32)
    return Waiting(prediction, np.zeros(examples, np.int64))


def unjudged(rules: Rules, variants: int, order: Int64) -> Judged:
    """Room for the labels of a stream."""
    labels = int((order < 0).sum())
    return Judged(np.zeros((labels, variants, rules.outputs), np.float32), np.zeros(labels, np.int64))


def grown(array: Any, length: int) -> Any:
    """The same array with room for `length` entries at least; twice as many as before, so that it is rare."""
    if len(array) >= length:
        return array
    larger = np.zeros((max(length, 2 * len(array)), *array.shape[1:]), array.dtype)
    larger[: len(array)] = array
    return larger


def _layout_of(features: Features, knows_task: bool) -> tuple[_Layout, int]:
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
    return _Layout(np.array(kind, np.int64), np.array(start, np.int64), size, tasks), size + 1


@compiled
def least(loss: Any) -> int:
    """The variant with the least loss so far."""
    best = 0
    for g in range(len(loss)):
        if loss[g] < loss[best]:
            best = g
    return best


@compiled
def judge(waiting: Any, s: int, y: float, rules: Any, loss: Any, judged: Any, label: int) -> None:
    """Hand over what was said of example s, and add its losses: log loss, or squared error."""
    judged.leader[label] = waiting.leader[s]
    for g in range(len(loss)):
        for c in range(rules.outputs):
            judged.prediction[label, g, c] = waiting.prediction[s, g, c]
        if rules.regression:
            loss[g] += (waiting.prediction[s, g, 0] - y) ** 2
        else:
            loss[g] -= np.log(waiting.prediction[s, g, int(y)])


@compiled
def _count(moments: Any, value: float) -> None:
    """Add a value to a running mean and sum of squared deviations (Welford 1962)."""
    moments[0] += 1
    deviation = value - moments[1]
    moments[1] += deviation / moments[0]
    moments[2] += deviation * (value - moments[1])


@compiled
def _deviation(moments: Any) -> float:
    """Standard deviation so far; 1 where all values were the same."""
    variance = moments[2] / max(moments[0], 1.0)
    return float(np.sqrt(variance)) if variance > TINY else 1.0


@compiled
def _read(row: Any, task: int, layout: Any, moments: Any, slots: Any, values: Any) -> int:
    """Write which weights an example has, and what each is multiplied by; returns how many."""
    slots[0], values[0], count = layout.bias, 1.0, 1
    if layout.tasks >= 0:
        slots[1], values[1], count = layout.tasks + task, 1.0, 2
    ids = 0
    for j in range(len(layout.kind)):
        if layout.kind[j] == TEXT and row[j] > 0:
            ids += 1
    for j in range(len(layout.kind)):
        kind, slot, value = layout.kind[j], layout.start[j], float(row[j])
        if kind == CATEGORY:
            slot, value = slot + int(row[j]), 1.0
        elif kind == TEXT:
            slot, value = slot + int(row[j]), 1.0 / ids if row[j] > 0 else 0.0
        elif kind == OPTIONAL and np.isnan(value):
            slot, value = slot + 1, 1.0
        elif kind != PLAIN:
            value = (value - moments[j, 1]) / _deviation(moments[j])
            value = min(max(value, -STANDARDISED_LIMIT), STANDARDISED_LIMIT)
        if value != 0:
            slots[count], values[count] = slot, value
            count += 1
    return count


@compiled
def _outputs(slots: Any, values: Any, count: int, weight: Any, outputs: Any) -> None:
    """Sum the weights [G, K] of an example."""
    for g in range(outputs.shape[0]):
        for k in range(outputs.shape[1]):
            outputs[g, k] = 0.0
    for a in range(count):
        for g in range(outputs.shape[0]):
            for k in range(outputs.shape[1]):
                outputs[g, k] += values[a] * weight[slots[a], g, k]


@compiled
def _probabilities(outputs: Any) -> None:
    """Outputs [G, K] to probabilities, in place: of class 1 where there is one output."""
    for g in range(outputs.shape[0]):
        if outputs.shape[1] == 1:
            outputs[g, 0] = 1.0 / (1.0 + np.exp(-outputs[g, 0]))
        else:
            highest, total = outputs[g, 0], 0.0
            for k in range(outputs.shape[1]):
                highest = max(highest, outputs[g, k])
            for k in range(outputs.shape[1]):
                outputs[g, k] = np.exp(outputs[g, k] - highest)
                total += outputs[g, k]
            for k in range(outputs.shape[1]):
                outputs[g, k] /= total


@compiled
def _predict(outputs: Any, rules: Any, target: Any, prediction: Any) -> None:
    """Outputs [G, K] to what is said [G, C], within the range or above the floor."""
    if rules.regression:
        middle = target[1] if target[0] > 0 else (rules.low + rules.high) / 2
        for g in range(outputs.shape[0]):
            value = middle + _deviation(target) * outputs[g, 0]
            prediction[g, 0] = min(max(value, rules.low), rules.high)
        return
    _probabilities(outputs)
    scale = 1 - rules.outputs * rules.floor
    for g in range(outputs.shape[0]):
        for c in range(rules.outputs):
            p = outputs[g, c] if outputs.shape[1] > 1 else outputs[g, 0] if c else 1 - outputs[g, 0]
            prediction[g, c] = p * scale + rules.floor


@compiled
def _gradient(outputs: Any, rules: Any, target: Any, y: float) -> None:
    """Outputs [G, K] to the gradient of the loss by them, in place."""
    if rules.regression:
        for g in range(outputs.shape[0]):
            outputs[g, 0] -= (y - target[1]) / _deviation(target)
        return
    _probabilities(outputs)
    for g in range(outputs.shape[0]):
        if outputs.shape[1] == 1:
            outputs[g, 0] -= y
        else:
            outputs[g, int(y)] -= 1.0


@compiled
def _step(slots: Any, values: Any, count: int, gradient: Any, steps: Any, state: Any) -> None:
    """Move the weights of one example, each variant by its own steps."""
    rates, keeps = steps
    for a in range(count):
        for g in range(gradient.shape[0]):
            for k in range(gradient.shape[1]):
                slope = values[a] * gradient[g, k]
                square = keeps[g] * state.square[slots[a], g, k] + slope * slope
                state.square[slots[a], g, k] = square
                state.weight[slots[a], g, k] -= rates[g] * slope / np.sqrt(square + TINY)


@compiled
def _follow(stream: Any, layout: Any, rules: Any, steps: Any, state: Any, waiting: Any, judged: Any) -> None:
    width = len(layout.kind)
    slots, values = np.zeros(width + 2, np.int64), np.zeros(width + 2)
    outputs = np.zeros((len(state.loss), state.weight.shape[2]))
    target, label = state.moments[width], 0
    for e in range(len(stream.order)):
        s = stream.order[e]
        if s >= 0:
            for j in range(width):
                if layout.kind[j] <= OPTIONAL and not np.isnan(stream.x[s, j]):
                    _count(state.moments[j], float(stream.x[s, j]))
            count = _read(stream.x[s], stream.task[s], layout, state.moments, slots, values)
            _outputs(slots, values, count, state.weight, outputs)
            _predict(outputs, rules, target, waiting.prediction[s])
            waiting.leader[s] = least(state.loss)
            continue
        s, y = ~s, stream.y[e]
        judge(waiting, s, y, rules, state.loss, judged, label)
        label += 1
        if rules.regression:
            _count(target, y)
        count = _read(stream.x[s], stream.task[s], layout, state.moments, slots, values)
        _outputs(slots, values, count, state.weight, outputs)
        _gradient(outputs, rules, target, y)
        _step(slots, values, count, outputs, steps, state)
