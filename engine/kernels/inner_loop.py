"""The inner loop of many tasks, one after the other: clipped gradient steps on each one's own examples.

What depends on nothing but parameters that all tasks share is computed once for every example, not once a step.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from engine.compiled import compiled_apart, compiled_within
from engine.kernels.gradients import by_own
from engine.kernels.losses import loss_and_slope
from engine.kernels.network import (
    BELOW,
    CHUNK,
    EVERYTHING,
    FORWARD,
    HEAD,
    UNITS,
    WEIGHT,
    Network,
    Rows,
    Theta,
    Work,
    climb,
    copy,
    entry,
    fixed_layer,
    in_layer,
    layer_below,
    network_at,
    put_out,
    rows_at,
    scale,
    since,
    theta_at,
    work_of,
)
from engine.kernels.products import after, padded, square
from engine.kernels.vectors import WIDTH, address, fused, load, one, put, spread, store, total, transpose


class Steps(NamedTuple):
    """How a task takes its steps."""

    number: int
    sizes: Any
    """Of each number that a task owns, padded."""
    clip: float
    proximal: float


class Task(NamedTuple):
    """Addresses of one task's examples, and of its parameters as they move."""

    rows: Rows
    y: int
    weight: int
    examples: int
    own: int
    gradient: int
    body: int
    forward: int


@compiled_apart
def fixed_part(network: Network, theta: Theta, x: Any, count: int, room: Any, out: Any) -> None:
    """Write what of the activations of rows x [N, D] is the same for all tasks to out [N, H]; both padded."""
    net, at = network_at(network), theta_at(theta)
    work, last = work_of(net, CHUNK, address(room)), fixed_layer(net)
    inputs, width = padded(entry(net, 0, BELOW)), padded(entry(net, last, UNITS))
    found = work.hidden if net.owns == HEAD else work.normal
    for first in range(0, count, CHUNK):
        rows = min(CHUNK, count - first)
        for layer in range(last + 1):
            lower = layer_below(net, layer, after(address(x), first * inputs), work)
            climb(net, layer, lower, at.body, at.forward, rows, work)
            if net.owns == HEAD:
                scale(net, layer, work, rows, at.body)
        for n in range(rows):
            copy(in_layer(net, work, found, last, n), after(address(out), (first + n) * width), width)


@compiled_apart
def adapted(
    network: Network, theta: Theta, rows: Rows, y: Any, weight: Any, ends: Any,
    steps: Steps, places: Any, most: int, room: Any, own: Any, out: Any,
) -> None:  # fmt: skip
    """Write fast parameters [T, F] of T tasks; task t has examples ends[t] to ends[t + 1], at most `most`.

    `y` [M] is a class, or a standardised value, `weight` [M] counts in the loss. `own` is room for what a task owns,
    its gradient, and the transposed weights where it owns these; fast parameters lie at `places` [F] of the first.
    """
    net, at, every = network_at(network), theta_at(theta), rows_at(rows)
    size, work, mine = len(theta.own), work_of(net, most, address(room)), address(own)
    body = mine if net.owns == EVERYTHING else at.body
    forward = after(mine, 2 * size) if net.owns == EVERYTHING else at.forward
    taken = Steps(steps.number, address(steps.sizes), steps.clip, steps.proximal)
    for t in range(len(ends) - 1):
        first, count = ends[t], ends[t + 1] - ends[t]
        copy(at.own, mine, size)
        if count and steps.number:
            if net.owns == EVERYTHING:
                copy(at.forward, forward, len(theta.forward))
            task = Task(
                since(net, every, first), after(address(y), first), after(address(weight), first),
                count, mine, after(mine, size), body, forward,
            )  # fmt: skip
            adapt(net, at, task, taken, size, work)
        for i in range(len(places)):
            out[t, i] = one(mine, places[i])


@compiled_within
def adapt(net: Network, theta: Theta, task: Task, steps: Steps, size: int, work: Work) -> None:
    """One task's steps, from theta; theta again where it has diverged, by a loss that is no number too."""
    rows = task.rows
    recall(net, rows, task.examples, work)
    began = ended = forward_loss(net, theta, task, steps, size, work)
    for _ in range(steps.number):
        by_own(net, rows.x, rows.numbers, task.examples, task.own, task.body, work, task.gradient)
        move(task.gradient, steps, theta.own, size, task.own)
        if net.owns == EVERYTHING:
            turn(net, task.own, task.forward)
        ended = forward_loss(net, theta, task, steps, size, work)
    if not ended <= began:
        copy(theta.own, task.own, size)


@compiled_within
def recall(net: Network, rows: Rows, examples: int, work: Work) -> None:
    """Take up what of the activations of rows is the same for all tasks."""
    layer = fixed_layer(net)
    width = padded(entry(net, layer, UNITS))
    found = work.hidden if net.owns == HEAD else work.normal
    for n in range(examples if net.owns != EVERYTHING else 0):
        copy(after(rows.fixed, n * width), in_layer(net, work, found, layer, n), width)


@compiled_within
def forward_loss(net: Network, theta: Theta, task: Task, steps: Steps, size: int, work: Work) -> float:
    """The loss at a task's own parameters; leaves activations and slopes in `work`."""
    for layer in range(net.layers if net.owns == HEAD else 0, net.layers):
        if layer > 0 or net.owns == EVERYTHING:
            lower = layer_below(net, layer, task.rows.x, work)
            climb(net, layer, lower, task.body, task.forward, task.examples, work)
        scale(net, layer, work, task.examples, task.own)
    for n in range(task.examples):
        hidden = in_layer(net, work, work.hidden, net.layers - 1, n)
        put_out(net, hidden, task.rows, n, task.own, after(work.out, n * net.outputs))
    loss = loss_and_slope(net, task.y, task.weight, task.examples, work.out)
    return loss + steps.proximal / 2 * distance(task.own, theta.own, size) if steps.proximal else loss


@compiled_within
def distance(a: int, b: int, width: int) -> float:
    """Sum of squared differences."""
    sums = spread(np.float32(0))
    for i in range(0, width, WIDTH):
        apart = load(a, i) - load(b, i)
        sums = fused(apart, apart, sums)
    return float(total(sums))


@compiled_within
def move(gradient: int, steps: Steps, theta: int, width: int, own: int) -> None:
    """Take one step along the clipped gradient."""
    if steps.proximal:
        proximal = spread(np.float32(steps.proximal))
        for i in range(0, width, WIDTH):
            store(gradient, i, fused(proximal, load(own, i) - load(theta, i), load(gradient, i)))
    longest = steps.clip * steps.clip
    factor = spread(np.float32(-steps.clip / math.sqrt(max(longest, float(square(gradient, width))))))
    for i in range(0, width, WIDTH):
        store(own, i, fused(load(steps.sizes, i) * factor, load(gradient, i), load(own, i)))


@compiled_within
def turn(net: Network, own: int, forward: int) -> None:
    """Keep the transposed weights what they are transposed of."""
    for layer in range(net.layers):
        inputs, units = entry(net, layer, BELOW), entry(net, layer, UNITS)
        weight, turned = after(own, entry(net, layer, WEIGHT)), after(forward, entry(net, layer, FORWARD))
        row, column = padded(inputs), padded(units)
        for k in range(0, inputs, WIDTH):
            for j in range(0, units, WIDTH):
                source, target = after(weight, j * row + k), after(turned, k * column + j)
                if k + WIDTH <= inputs and j + WIDTH <= units:
                    transpose(source, row, target, column)
                else:
                    turn_some(source, row, target, column, min(WIDTH, inputs - k), min(WIDTH, units - j))


@compiled_within
def turn_some(source: int, row: int, target: int, column: int, inputs: int, units: int) -> None:
    """Transpose fewer than sixteen rows or columns."""
    for k in range(inputs):
        for j in range(units):
            put(target, k * column + j, one(source, j * row + k))
