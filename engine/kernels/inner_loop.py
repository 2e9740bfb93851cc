"""The inner loop of many tasks, one after the other: clipped gradient steps on each one's own examples.

What depends on nothing but parameters that all tasks share is computed once for every example, not once a step.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from engine.compiled import compiled_apart, compiled_as, compiled_within, scalars
from engine.kernels.gradients import by_own
from engine.kernels.losses import loss_and_slope
from engine.kernels.network import (
    BELOW,
    CHUNK,
    EVERYTHING,
    FORWARD,
    HEAD,
    NETWORK,
    THETA,
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
    scale,
    theta_at,
    work_of,
)
from engine.kernels.products import after, padded, square
from engine.kernels.row_loop import write_inputs
from engine.kernels.row_theta import ROW_THETA, RowTheta
from engine.kernels.vectors import WIDTH, address, fused, load, one, put, spread, store, total, transpose
from engine.types import Float32, Int64


class Steps(NamedTuple):
    """How a task takes its steps."""

    number: int
    sizes: Any
    """Of each number that a task owns, padded."""
    clip: float
    proximal: float


class Told(NamedTuple):
    """Examples of T tasks, one task's after the other's."""

    stored: Any
    """[M, W] as they are stored."""
    y: Any
    """[M] classes, or standardised values."""
    weight: Any
    """[M] in the loss."""
    ends: Any
    """[T + 1] task t's are ends[t] to ends[t + 1]."""


class Room(NamedTuple):
    """What passes over the examples of one task, at most so many, write to; all zero at first."""

    most: int
    work: Any
    own: Any
    """What a task owns, twice, and the hidden layers' weights."""
    dense: Any
    """[most, D] what the network reads."""
    numbers: Any
    """[most, numbers] what the linear model does."""
    wide: Any
    """[most, C] the weights of buckets."""


STEPS = scalars(Steps, ["int64", "float32[]", "float64", "float64"])
ROOM = scalars(Room, ["int64", "float32[]", "float32[]", *["float32[,]"] * 3])


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
        fix(net, at, after(address(x), first * inputs), rows, work)
        for n in range(rows):
            copy(in_layer(net, work, found, last, n), after(address(out), (first + n) * width), width)


@compiled_within
def read_task(net: Network, front: RowTheta, told: Told, t: int, room: Room) -> None:
    """Write what the network reads of a task's examples."""
    first = told.ends[t]
    for n in range(told.ends[t + 1] - first):
        dense, numbers = room.dense[n], room.numbers[n]
        write_inputs(front, told.stored[first + n], dense, room.wide[n])
        for k in range(net.numbers):
            numbers[k] = dense[k]


@compiled_within
def told_task(told: Told, t: int, room: Room, own: int, gradient: int, body: int, forward: int) -> Task:
    """A task whose examples are read."""
    first, count = told.ends[t], told.ends[t + 1] - told.ends[t]
    rows = Rows(address(room.dense), address(room.numbers), address(room.wide), 0)
    labels, shares = after(address(told.y), first), after(address(told.weight), first)
    return Task(rows, labels, shares, count, own, gradient, body, forward)


@compiled_within
def fix(net: Network, theta: Theta, x: int, rows: int, work: Work) -> None:
    """Compute what of the activations of rows is the same for all tasks; nothing where they own everything."""
    for layer in range(0 if net.owns == EVERYTHING else fixed_layer(net) + 1):
        climb(net, layer, layer_below(net, layer, x, work), theta.body, theta.forward, rows, work)
        if net.owns == HEAD:
            scale(net, layer, work, rows, theta.body)


@compiled_within
def adapt(net: Network, theta: Theta, task: Task, steps: Steps, size: int, work: Work) -> None:
    """One task's steps, from theta; theta again where it has diverged, by a loss that is no number too.

    What no step changes is in `work`.
    """
    rows = task.rows
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


@compiled_as(
    NETWORK,
    THETA,
    ROW_THETA,
    "float32[,]",
    "float32[]",
    "float32[]",
    "int64[]",
    STEPS,
    "int64[]",
    ROOM,
    "float32[,]",
)
def adapted(
    network: Network, theta: Theta, front: RowTheta, stored: Float32, y: Float32, weight: Float32, ends: Int64,
    steps: Steps, places: Int64, room: Room, out: Float32,
) -> None:  # fmt: skip
    """Write fast parameters [T, F] of T tasks, whose examples are those of `Told`, none of more than `room.most`.

    They lie at `places` [F] of what a task owns.
    """
    told = Told(stored, y, weight, ends)
    net, at = network_at(network), theta_at(theta)
    size, work, mine = len(theta.own), work_of(net, room.most, address(room.work)), address(room.own)
    body = mine if net.owns == EVERYTHING else at.body
    forward = after(mine, 2 * size) if net.owns == EVERYTHING else at.forward
    taken = Steps(steps.number, address(steps.sizes), steps.clip, steps.proximal)
    for t in range(len(told.ends) - 1):
        copy(at.own, mine, size)
        if told.ends[t + 1] > told.ends[t] and steps.number:
            if net.owns == EVERYTHING:
                copy(at.forward, forward, len(theta.forward))
            read_task(net, front, told, t, room)
            task = told_task(told, t, room, mine, after(mine, size), body, forward)
            fix(net, at, task.rows.x, task.examples, work)
            adapt(net, at, task, taken, size, work)
        for i in range(len(places)):
            out[t, i] = one(mine, places[i])
