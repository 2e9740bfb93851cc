"""The way back: from the slope of a loss by outputs to its gradient by what a task owns."""

from __future__ import annotations

import numpy as np

from engine.compiled import compiled_within
from engine.kernels.network import (
    BELOW,
    BIAS,
    EVERYTHING,
    HEAD,
    SCALE,
    SHIFT,
    UNITS,
    WEIGHT,
    Network,
    Work,
    entry,
    in_layer,
    is_rectified,
    layer_below,
)
from engine.kernels.products import Matrix, after, multiply, padded
from engine.kernels.vectors import WIDTH, fused, load, one, put, spread, store, total, unless_negative


@compiled_within
def by_own(
    net: Network, x: int, numbers: int, rows: int, own: int, body: int, work: Work, gradient: int
) -> None:
    """Write the gradient by a task's own parameters, from the slope in `work.out`."""
    last = net.layers - 1
    hidden = Matrix(in_layer(net, work, work.hidden, last, 0), net.widest, 1)
    width, read = padded(entry(net, last, UNITS)), padded(net.numbers)
    by_linear(net, hidden, rows, work, after(gradient, net.head), after(gradient, net.head_bias), width)
    if net.linear >= 0:
        numbered = Matrix(numbers, read, 1)
        by_linear(
            net, numbered, rows, work, after(gradient, net.linear), after(gradient, net.linear_bias), read
        )
    if net.owns == HEAD:
        return
    slope, head = Matrix(work.out, net.outputs, 1), Matrix(after(own, net.head), width, 1)
    nothing, out = Matrix(work.zero, 0, 1), Matrix(work.slope, net.widest, 1)
    multiply(slope, head, nothing, out, rows, net.outputs, width)
    for layer in range(last, -1, -1):
        by_norm(net, layer, rows, work, gradient)
        if layer > 0 or net.owns == EVERYTHING:
            through_norm(net, layer, rows, work, own)
        if net.owns == EVERYTHING:
            by_weight(net, layer, layer_below(net, layer, x, work), rows, work, gradient)
        if layer > 0:
            descend(net, layer, body, rows, work)


@compiled_within
def by_linear(net: Network, read: Matrix, rows: int, work: Work, weight: int, bias: int, width: int) -> None:
    """The gradient by weight and bias of a linear layer that puts out."""
    slope, nothing = Matrix(work.out, 1, net.outputs), Matrix(work.zero, 0, 1)
    multiply(slope, read, nothing, Matrix(weight, width, 1), net.outputs, rows, width)
    for c in range(net.outputs):
        sums = np.float32(0)
        for n in range(rows):
            sums += one(work.out, n * net.outputs + c)
        put(bias, c, sums)


@compiled_within
def by_norm(net: Network, layer: int, rows: int, work: Work, gradient: int) -> None:
    """The gradient by a layer's scale and shift; what was rectified away slopes no more."""
    normal, hidden = in_layer(net, work, work.normal, layer, 0), in_layer(net, work, work.hidden, layer, 0)
    scale, shift = entry(net, layer, SCALE), entry(net, layer, SHIFT)
    rectified = is_rectified(net, layer)
    for j in range(0, padded(entry(net, layer, UNITS)), WIDTH):
        by_scale, by_shift = spread(np.float32(0)), spread(np.float32(0))
        for at in range(j, j + rows * net.widest, net.widest):
            slope = load(work.slope, at)
            if rectified:
                slope = unless_negative(load(hidden, at), slope)
                store(work.slope, at, slope)
            by_scale = fused(slope, load(normal, at), by_scale)
            by_shift = by_shift + slope
        store(gradient, scale + j, by_scale)
        store(gradient, shift + j, by_shift)


@compiled_within
def through_norm(net: Network, layer: int, rows: int, work: Work, own: int) -> None:
    """The slope by what was scaled becomes that by what was normalised."""
    units, scale = entry(net, layer, UNITS), after(own, entry(net, layer, SCALE))
    width, count = padded(units), np.float32(units)
    for n in range(rows):
        normal, row = in_layer(net, work, work.normal, layer, n), after(work.slope, n * net.widest)
        sums, along = spread(np.float32(0)), spread(np.float32(0))
        for j in range(0, width, WIDTH):
            slope = load(row, j) * load(scale, j)
            store(row, j, slope)
            sums = sums + slope
            along = fused(slope, load(normal, j), along)
        mean, share = spread(total(sums) / count), spread(-total(along) / count)
        inverse = spread(one(work.spread, layer * work.rows + n))
        for j in range(0, width, WIDTH):
            slope = fused(load(normal, j), share, load(row, j) - mean)
            store(row, j, slope * inverse)


@compiled_within
def by_weight(net: Network, layer: int, lower: Matrix, rows: int, work: Work, gradient: int) -> None:
    """The gradient by a layer's weight and bias."""
    inputs, units = padded(entry(net, layer, BELOW)), entry(net, layer, UNITS)
    inside, bias = after(work.inside, layer * net.widest), entry(net, layer, BIAS)
    slope, out = (
        Matrix(work.slope, 1, net.widest),
        Matrix(after(gradient, entry(net, layer, WEIGHT)), inputs, 1),
    )
    multiply(slope, lower, Matrix(work.zero, 0, 1), out, units, rows, inputs)
    for j in range(0, padded(units), WIDTH):
        sums = spread(np.float32(0))
        for n in range(rows):
            sums = sums + load(work.slope, n * net.widest + j)
        store(gradient, bias + j, sums * load(inside, j))


@compiled_within
def descend(net: Network, layer: int, body: int, rows: int, work: Work) -> None:
    """The slope by a layer's sums becomes that by the activations below."""
    inputs = padded(entry(net, layer, BELOW))
    weight = Matrix(after(body, entry(net, layer, WEIGHT)), inputs, 1)
    slope, back = Matrix(work.slope, net.widest, 1), Matrix(work.back, net.widest, 1)
    multiply(slope, weight, Matrix(work.zero, 0, 1), back, rows, entry(net, layer, UNITS), inputs)
    for n in range(rows):
        for j in range(n * net.widest, n * net.widest + inputs, WIDTH):
            store(work.slope, j, load(work.back, j))
