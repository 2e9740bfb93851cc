"""The compiled loop that works out outputs of a network row by row: the same bits for one row and for thousands.

Tensor libraries choose the order of their sums by the shape of a block, so the bits of a row hang on the block that
it lies in, and a single event costs a whole one. Here every sum runs in the order of its inputs: products in single
precision, all else in double. Which networks it knows, and where their parameters lie, `row_by_row` says.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from engine.compiled import compiled, compiled_as, copy, fill
from engine.features.columns import STANDARDISED_LIMIT
from engine.features.front_end import RATE_STRENGTH, VALUE_STRENGTH
from engine.kernels.network import EPSILON
from engine.kernels.row_theta import ROW_THETA, SHAPE, RowTheta, Shape
from engine.types import Float32, Float64, Int64

LINEAR, NORM, RECTIFIER = range(3)

LEAST = 1e-30
"""A count of labels is taken to be this at least: its logarithm is a number."""


@compiled
def clipped(value: float) -> float:
    """Within the limit of standardised numbers; what is not a number stays so."""
    if value > STANDARDISED_LIMIT:
        return STANDARDISED_LIMIT
    return -STANDARDISED_LIMIT if value < -STANDARDISED_LIMIT else value


@compiled
def add_bag(tables: Float32, x: Float32, bag: Int64, table: int, into: Float32) -> None:
    """Add the mean of the rows of a table that the ids of a bag name; id 0 of a text is padding."""
    start, ids, width = bag[0], bag[1], len(into)
    if ids == 1:
        row = tables[table + int(x[start]) * width :]
        for k in range(width):
            into[k] += row[k]
        return
    present = np.float32(0.0)
    for i in range(ids):
        present += np.float32(x[start + i] > 0)
    for k in range(width if present > 0 else 0):
        total = np.float32(0.0)
        for i in range(ids):
            if x[start + i] > 0:
                total += tables[table + int(x[start + i]) * width + k]
        into[k] += total / present


@compiled
def write_rates(s: Any, theta: Float32, log_rate: Any, counts: Float32, into: Float32) -> int:
    """Write what counts of labels say of a task's rates, drawn towards those of all; returns how many numbers."""
    if s.classes == 0:
        count, away = np.float64(counts[0]), np.float64(counts[1]) - np.float64(theta[s.rate])
        into[0] = clipped(away * (count / (count + VALUE_STRENGTH)) / np.float64(theta[s.unit]))
        return 1
    total = 0.0
    for k in range(s.classes):
        total += np.float64(counts[k]) + RATE_STRENGTH * np.float64(theta[s.rate + k])
    first = 0.0
    for k in range(s.classes):
        drawn = np.float64(counts[k]) + RATE_STRENGTH * np.float64(theta[s.rate + k])
        share = math.log(max(drawn, LEAST) / total) - log_rate[k]
        if s.classes != 2:
            into[k] = share
        elif k == 0:
            first = share
        else:
            into[0] = share - first
    return 1 if s.classes == 2 else int(s.classes)


@compiled
def write_last(s: Any, theta: Float32, last: float, into: Float32) -> int:
    """Write what the last label was; returns how many numbers."""
    if s.classes == 0:
        value = (last - np.float64(theta[s.rate])) / np.float64(theta[s.unit])
        into[0] = 0.0 if math.isnan(last) else clipped(value)
        return 1
    for k in range(s.marks):
        into[k] = 1.0 if last == k + 1.0 else 0.0
    return int(s.marks)


@compiled
def write_dense(s: Any, theta: Float32, tables: Float32, log_rate: Any, x: Float32, dense: Float32) -> None:
    """Write the dense row of a stored one: numbers first, then embeddings."""
    at = 0
    for i in range(len(s.numeric)):
        value = x[s.numeric[i]]
        standard = (value - theta[s.mean + i]) / theta[s.std + i]
        dense[at] = 0.0 if math.isnan(value) else clipped(standard)
        at += 1
    for i in range(len(s.flagged)):
        dense[at] = 1.0 if math.isnan(x[s.flagged[i]]) else 0.0
        at += 1
    for i in range(len(s.plain)):
        dense[at] = x[s.plain[i]]
        at += 1
    for i in range(len(s.sets)):
        at += write_rates(s, theta, log_rate, x[s.sets[i] :], dense[at:])
    if s.last >= 0:
        at += write_last(s, theta, np.float64(x[s.last]), dense[at:])
    for b in range(len(s.bags)):
        bag = s.bags[b]
        into = dense[at : at + bag[2]]
        fill(into, 0.0)
        add_bag(tables, x, bag, bag[3], into)
        at += bag[2]


@compiled
def add_products(
    theta: Float32, own: Float32, weight: int, inputs: int, before: Float32, after: Float32
) -> None:
    """Add the products of a linear layer, in the order of its inputs, wherever its weights lie."""
    outputs = len(after)
    if weight < 0:  # a task's own: [outputs, inputs]
        w = own[-1 - weight : -1 - weight + inputs * outputs]
        for k in range(inputs):
            for j in range(outputs):
                after[j] += before[k] * w[j * inputs + k]
        return
    fours = inputs - inputs % 4
    for k in range(0, fours, 4):
        a, b, c, d = before[k], before[k + 1], before[k + 2], before[k + 3]
        at = weight + k * outputs
        w, x = theta[at : at + outputs], theta[at + outputs : at + 2 * outputs]
        y, z = theta[at + 2 * outputs : at + 3 * outputs], theta[at + 3 * outputs : at + 4 * outputs]
        for j in range(outputs):
            after[j] = after[j] + a * w[j] + b * x[j] + c * y[j] + d * z[j]
    for k in range(fours, inputs):
        w = theta[weight + k * outputs : weight + (k + 1) * outputs]
        for j in range(outputs):
            after[j] += before[k] * w[j]


@compiled
def write_places(theta: Float32, own: Float32, place: int, into: Float32) -> None:
    """Write the numbers that begin at a place."""
    for j in range(len(into)):
        into[j] = theta[place + j] if place >= 0 else own[-1 - place + j]


@compiled
def normalise(theta: Float32, own: Float32, layer: Int64, values: Float32) -> None:
    """Layer normalisation, in place."""
    total, squares = 0.0, 0.0
    for k in range(len(values)):
        total += np.float64(values[k])
    mean = total / len(values)
    for k in range(len(values)):
        away = np.float64(values[k]) - mean
        squares += away * away
    scale = 1.0 / math.sqrt(squares / len(values) + EPSILON)
    weight, bias = layer[3], layer[4]
    for k in range(len(values)):
        w = theta[weight + k] if weight >= 0 else own[-1 - weight + k]
        b = theta[bias + k] if bias >= 0 else own[-1 - bias + k]
        values[k] = np.float32((np.float64(values[k]) - mean) * scale) * w + b


@compiled
def run_layers(s: Any, theta: Float32, own: Float32, before: Float32, after: Float32, made: Float32) -> None:
    """Run the network on the numbers in `before`, with another buffer, and write its outputs."""
    for n in range(len(s.layers)):
        layer = s.layers[n]
        kind, inputs, outputs = layer[0], layer[1], layer[2]
        if kind == LINEAR:
            write_places(theta, own, layer[4], after[:outputs])
            add_products(theta, own, layer[3], inputs, before[:inputs], after[:outputs])
            before, after = after, before
        elif kind == NORM:
            normalise(theta, own, layer, before[:outputs])
        else:
            for k in range(outputs):
                if before[k] < 0.0:
                    before[k] = 0.0
    copy(before, made)


@compiled
def add_wide(
    s: Any, theta: Float32, tables: Float32, own: Float32, x: Float32, dense: Float32, made: Float32
) -> None:
    """Add what the linear model beside the network puts out."""
    for b in range(len(s.bags)):
        add_bag(tables, x, s.bags[b], s.bags[b, 4], made)
    for j in range(s.outputs):
        made[j] += theta[s.bias + j] if s.bias >= 0 else own[-1 - s.bias + j]
    add_products(theta, own, s.weight, s.numbers, dense[: s.numbers], made)


@compiled_as(SHAPE, "float32[]", "float64[]")
def log_rates(s: Shape, theta: Float32, found: Float64) -> None:
    """Write the logarithm of each class's rate [classes]."""
    for k in range(s.classes):
        found[k] = math.log(max(np.float64(theta[s.rate + k]), LEAST))


@compiled
def write_inputs(theta: Any, x: Float32, dense: Float32, wide: Float32) -> None:
    """Write what the network reads of a stored row, and the weights of its buckets beside it."""
    s = theta.shape
    write_dense(s, theta.numbers, theta.tables, theta.log_rate, x, dense)
    fill(wide, 0.0)
    for b in range(len(s.bags) if s.wide else 0):
        add_bag(theta.tables, x, s.bags[b], s.bags[b, 4], wide)


ROOM = 3
"""Rows of `widest` numbers that a pass needs: for what the network reads, and for two layers."""


@compiled
def read_row(theta: Any, x: Float32, room: Float32) -> None:
    """Write what the network reads of a stored row x [W] to `room` [ROOM, widest]."""
    write_dense(theta.shape, theta.numbers, theta.tables, theta.log_rate, x, room[0, : theta.shape.width])


@compiled
def row_outputs(theta: Any, own: Float32, x: Float32, room: Float32, made: Float32) -> None:
    """Write the outputs [C] of the stored row x [W] that was read into `room`, by fast parameters [F]."""
    s = theta.shape
    dense = room[0, : s.width]
    copy(dense, room[1, : s.width])
    run_layers(s, theta.numbers, own, room[1], room[2], made)
    if s.wide:
        add_wide(s, theta.numbers, theta.tables, own, x, dense, made)
    if s.classes == 0:
        made[0] = made[0] * theta.numbers[s.unit] + theta.numbers[s.rate]


@compiled_as(ROW_THETA, "float32[,]", "float32[,]", "float32[,]")
def row_inputs(theta: RowTheta, x: Float32, dense: Float32, wide: Float32) -> None:
    """Write what the network reads [n, D], and the weights of buckets [n, C] beside it, of stored rows x [n, W]."""
    for i in range(len(x)):
        write_inputs(theta, x[i], dense[i], wide[i])
