"""Forward passes of a multilayer perceptron over rows, in vectors.

    z = W h' + b;   n = (z - mean z) / sqrt(var z + eps);   h = relu(scale n + shift)        for each hidden layer
    outputs = wide + head h + linear x

Every row of numbers is padded to whole vectors with zeros, parameters as well, and stays so.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from engine.compiled import compiled_within, scalars
from engine.kernels.products import Matrix, after, dot, multiply, padded
from engine.kernels.vectors import (
    WIDTH,
    address,
    fused,
    load,
    one,
    put,
    spread,
    store,
    total,
    unless_negative,
    whole,
)

EVERYTHING, NORMS, HEAD = 0, 1, 2
"""What of the network a task owns: all of it; scales, shifts and the head; the head alone."""

EPSILON = 1e-5
"""Added to a variance, as torch's layer normalisation does."""

CHUNK = 32
"""Rows of one forward pass over many."""

ENTRIES = 8
"""Numbers that describe one hidden layer, in this order."""

BELOW, UNITS, FORWARD, WEIGHT, BIAS, SCALE, SHIFT = range(7)


class Network(NamedTuple):
    """What the passes have to know of a network; where a parameter begins, in a vector of those beside it.

    Parameters that a task owns lie in a vector of its own, the others in theta's, in torch's order and layout.
    """

    owns: int
    layers: int
    """L, of the hidden layers."""
    table: Any
    """[L, ENTRIES] inputs, units, where the weight begins, transposed [in, out] in a vector of those and [out, in] as
    torch has it, and bias, scale and shift. From Python an array, in compiled code its address."""
    widest: int
    """Of the rows of activations, padded."""
    rectified: bool
    """Whether the last hidden layer is."""
    head: int
    """Where the head's weight [C, H] begins, and its bias."""
    head_bias: int
    numbers: int
    """How many of the inputs a linear model beside the network reads; none without one."""
    linear: int
    """Where its weight [C, numbers] begins, and its bias; -1 without one."""
    linear_bias: int
    outputs: int
    named: int
    """How many of the outputs count in a loss over classes; 0 of a regression."""


class Theta(NamedTuple):
    """One version of theta's network: vectors, or their addresses."""

    own: Any
    """Where tasks begin."""
    body: Any
    """Every parameter."""
    forward: Any
    """The hidden layers' weights, transposed, one after the other."""


NETWORK = scalars(Network, [*["int64"] * 2, "int64[]", "int64", "boolean", *["int64"] * 7])
THETA = scalars(Theta, ["float32[]"] * 3)


class Rows(NamedTuple):
    """What is read of M examples, one after the other: vectors, or their addresses."""

    x: Any
    """[M, D] what the network reads."""
    numbers: Any
    """[M, numbers] what the linear model does."""
    wide: Any
    """[M, C] what is added to the outputs; not padded."""
    fixed: Any
    """[M, H] what of the activations is the same for all tasks; nothing, where they own everything."""


class Work(NamedTuple):
    """Addresses of room for the passes over some rows."""

    rows: int
    normal: int
    """[L, rows, widest] activations, normalised."""
    hidden: int
    """[L, rows, widest] activations, scaled, shifted and rectified."""
    slope: int
    """[rows, widest] of the loss by activations, on its way back through the layers."""
    back: int
    """[rows, widest] the same, one layer below."""
    zero: int
    """[widest] zeros."""
    inside: int
    """[L, widest] 1 where a layer has an activation, 0 where it is padded."""
    spread: int
    """[L, rows] the inverse of the deviation that was."""
    out: int
    """[rows, C] outputs, then the slope of the loss by them; not padded."""


@compiled_within
def network_at(net: Network) -> Network:
    """The same, with the address of its table."""
    return Network(
        net.owns, net.layers, address(net.table), net.widest, net.rectified, net.head, net.head_bias, net.numbers,
        net.linear, net.linear_bias, net.outputs, net.named,
    )  # fmt: skip


@compiled_within
def theta_at(theta: Theta) -> Theta:
    """The same, as addresses."""
    return Theta(address(theta.own), address(theta.body), address(theta.forward))


@compiled_within
def rows_at(rows: Rows) -> Rows:
    """The same, as addresses."""
    return Rows(address(rows.x), address(rows.numbers), address(rows.wide), address(rows.fixed))


@compiled_within
def since(net: Network, rows: Rows, first: int) -> Rows:
    """Rows from one on."""
    inputs, numbers = padded(entry(net, 0, BELOW)), padded(net.numbers)
    fixed = padded(entry(net, fixed_layer(net), UNITS))
    return Rows(
        after(rows.x, first * inputs), after(rows.numbers, first * numbers),
        after(rows.wide, first * net.outputs), after(rows.fixed, first * fixed),
    )  # fmt: skip


@compiled_within
def fixed_layer(net: Network) -> int:
    """The last layer whose activations, or what is normalised of them, are the same for all tasks."""
    return net.layers - 1 if net.owns == HEAD else 0


@compiled_within
def copy(source: int, target: int, width: int) -> None:
    """Copy whole vectors."""
    for j in range(0, width, WIDTH):
        store(target, j, load(source, j))


@compiled_within
def entry(net: Network, layer: int, which: int) -> int:
    """One of the numbers that describe a layer."""
    return whole(net.table, layer * ENTRIES + which)  # type: ignore[no-any-return]


def room_for(layers: int, widest: int, outputs: int, rows: int) -> int:
    """How many numbers `Work` needs."""
    return (2 * layers * rows + 2 * rows + 1 + layers) * widest + layers * rows + rows * outputs


@compiled_within
def work_of(net: Network, rows: int, start: int) -> Work:
    """Divide room, all zero, that begins at an address."""
    layer, every = rows * net.widest, net.layers * rows * net.widest
    normal, hidden = start, after(start, every)
    slope = after(hidden, every)
    back = after(slope, layer)
    zero = after(back, layer)
    inside = after(zero, net.widest)
    deviation = after(inside, net.layers * net.widest)
    for n in range(net.layers):
        for j in range(entry(net, n, UNITS)):
            put(inside, n * net.widest + j, np.float32(1))
    out = after(deviation, net.layers * rows)
    return Work(rows, normal, hidden, slope, back, zero, inside, deviation, out)


@compiled_within
def in_layer(net: Network, work: Work, part: int, layer: int, n: int) -> int:
    """The address of a row of activations."""
    return after(part, (layer * work.rows + n) * net.widest)


@compiled_within
def is_rectified(net: Network, layer: int) -> bool:
    """Whether a layer's activations are."""
    return net.rectified or layer < net.layers - 1


@compiled_within
def normalise(net: Network, layer: int, work: Work, rows: int) -> None:
    """Bring each row of a layer to mean 0 and deviation 1."""
    units, inside = entry(net, layer, UNITS), after(work.inside, layer * net.widest)
    width, count = padded(units), np.float32(units)
    for n in range(rows):
        row = in_layer(net, work, work.normal, layer, n)
        sums = load(row, 0)
        for j in range(WIDTH, width, WIDTH):
            sums = sums + load(row, j)
        mean, squares = spread(total(sums) / count), spread(np.float32(0))
        for j in range(0, width, WIDTH):
            apart = (load(row, j) - mean) * load(inside, j)
            store(row, j, apart)
            squares = fused(apart, apart, squares)
        inverse = np.float32(1) / np.sqrt(total(squares) / count + np.float32(EPSILON))
        put(work.spread, layer * work.rows + n, inverse)
        for j in range(0, width, WIDTH):
            store(row, j, load(row, j) * spread(inverse))


@compiled_within
def scaled(normal: int, scale: int, shift: int, rectify: bool, width: int, out: int) -> None:
    """Scale, shift and rectify one row; what is not a number stays so."""
    for j in range(0, width, WIDTH):
        value = fused(load(normal, j), load(scale, j), load(shift, j))
        store(out, j, unless_negative(value, value) if rectify else value)


@compiled_within
def scale(net: Network, layer: int, work: Work, rows: int, own: int) -> None:
    """Scale, shift and rectify rows of a layer, all by the same parameters."""
    width, rectify = padded(entry(net, layer, UNITS)), is_rectified(net, layer)
    by, add = after(own, entry(net, layer, SCALE)), after(own, entry(net, layer, SHIFT))
    for n in range(rows):
        normal, hidden = (
            in_layer(net, work, work.normal, layer, n),
            in_layer(net, work, work.hidden, layer, n),
        )
        scaled(normal, by, add, rectify, width, hidden)


@compiled_within
def layer_below(net: Network, layer: int, x: int, work: Work) -> Matrix:
    """The rows that a layer reads; x is where the network's inputs begin."""
    if layer == 0:
        return Matrix(x, padded(entry(net, 0, BELOW)), 1)
    return Matrix(in_layer(net, work, work.hidden, layer - 1, 0), net.widest, 1)


@compiled_within
def climb(net: Network, layer: int, lower: Matrix, body: int, forward: int, rows: int, work: Work) -> None:
    """One layer's weight, bias and normalisation on the rows below."""
    width = padded(entry(net, layer, UNITS))
    weight = Matrix(after(forward, entry(net, layer, FORWARD)), width, 1)
    bias = Matrix(after(body, entry(net, layer, BIAS)), 0, 1)
    out = Matrix(in_layer(net, work, work.normal, layer, 0), net.widest, 1)
    multiply(lower, weight, bias, out, rows, entry(net, layer, BELOW), width)
    normalise(net, layer, work, rows)


@compiled_within
def put_out(net: Network, hidden: int, rows: Rows, n: int, own: int, out: int) -> None:
    """The outputs of one row of the last layer's activations, that of row n of what is read."""
    width, numbers = padded(entry(net, net.layers - 1, UNITS)), padded(net.numbers)
    for c in range(net.outputs):
        value = one(rows.wide, n * net.outputs + c) + one(own, net.head_bias + c)
        if net.linear >= 0:
            value += one(own, net.linear_bias + c)
            if numbers:
                weight = after(own, net.linear + c * numbers)
                value += dot(after(rows.numbers, n * numbers), weight, numbers)
        put(out, c, value + dot(hidden, after(own, net.head + c * width), width))
