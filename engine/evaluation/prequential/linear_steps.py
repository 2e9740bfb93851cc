"""The online linear model event by event, as machine code: predictions, gradients, steps."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from engine.compiled import compiled
from engine.features.columns import STANDARDISED_LIMIT
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


class Layout(NamedTuple):
    """Where the weights of each stored number lie."""

    kind: Int64
    """[W]"""
    start: Int64
    """[W]"""
    bias: int
    tasks: int
    """Of the first task's weight; -1 where a task has none."""


class State(NamedTuple):
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


def waiting(rules: Rules, variants: int, examples: int) -> Waiting:
    """Room for what is said of that many examples."""
    prediction = np.zeros((examples, variants, rules.outputs), np.float32)
    return Waiting(prediction, np.zeros(examples, np.int64))


def unjudged(rules: Rules, variants: int, order: Int64) -> Judged:
    """Room for the labels of a stream."""
    labels = int((order < 0).sum())
    return Judged(np.zeros((labels, variants, rules.outputs), np.float32), np.zeros(labels, np.int64))


def room_of(layout: Layout, state: State) -> tuple[Int64, Float64, Float64]:
    """Room for the weights that an example has [W + 2], what each is multiplied by, and outputs [G, K]."""
    most = len(layout.kind) + 2
    return np.zeros(most, np.int64), np.zeros(most), np.zeros((len(state.loss), state.weight.shape[2]))


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
def follow(
    stream: Any, layout: Any, rules: Any, steps: Any, state: Any, waiting: Any, judged: Any, room: Any
) -> None:
    """Go through a stream: predict each observation, and learn from each label as it becomes known."""
    width, (slots, values, outputs) = len(layout.kind), room
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
