"""One step of all of theta along its gradient: Adam for the network, Adagrad for the linear part and for buckets.

(Kingma, Ba 2015, arXiv:1412.6980, algorithm 1, as torch takes it; Duchi, Hazan, Singer 2011, JMLR 12.) What was
stepped is averaged (Polyak and Juditsky 1992). No number depends on another, so nothing depends on an order.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from engine.compiled import compiled_within
from engine.kernels.inner_loop import turn
from engine.kernels.network import Network, Theta
from engine.kernels.row_theta import RowTheta
from engine.kernels.slopes import EMBEDDINGS, MARKS, NUMBERS, WEIGHTS, Tables
from engine.kernels.vectors import address
from engine.learners.training import TINY, Pace

EPSILON = np.float32(TINY)


class Moving(NamedTuple):
    """Vectors beside theta's parameters, as long as these."""

    first: Any
    """Adam's mean of gradients."""
    second: Any
    """Its mean of squares; of the linear part Adagrad's sum of them."""
    mean: Any
    """Of the parameters over the last steps."""


class Moved(NamedTuple):
    """Theta in training: vectors that are moved where they lie."""

    theta: Theta
    """All of which is its own; its linear part begins at `split`."""
    split: int
    beside: Moving
    front: RowTheta
    """What reads rows, by the tables that are moved."""
    sums: Any
    """Adagrad's, of these tables."""
    gradient: Any
    tables: Tables


@compiled_within
def move(
    net: Network, moved: Moved, pace: Pace, s: int, norm: float, labels: int, taken: int, newest: float
) -> None:
    """Take step s along a gradient of that norm, and of so many labels; it is the nth of Adam's that is `taken`.

    The gradient of tables is zero again.
    """
    theta, beside, gradient, tables = moved.theta, moved.beside, moved.gradient, moved.tables
    own, split, share = theta.own, moved.split, np.float32(newest)
    scale = np.float32(min(1.0, pace.clip / max(norm, 1e-12)))
    by_adam(own[:split], beside.first, beside.second, gradient, scale, pace, pace.rates[s], taken)
    by_adagrad(own[split:], beside.second[split:], gradient[split:], scale, np.float32(pace.linear))
    for i in range(len(gradient)):
        beside.mean[i] += share * (own[i] - beside.mean[i])
    turn(net, address(own), address(theta.forward))
    scale *= np.float32(labels)
    for n in range(tables.count[0]):
        bag, bucket = tables.bags[tables.touched[n, 0]], tables.touched[n, 1]
        start, width = bag[EMBEDDINGS] + bucket * bag[NUMBERS], bag[NUMBERS]
        of_bucket(start, width, moved, scale, pace)
        start, width = bag[WEIGHTS] + bucket * net.outputs, net.outputs if bag[WEIGHTS] >= 0 else 0
        of_bucket(start, width, moved, scale, pace)
    forget(net.outputs, tables)


@compiled_within
def of_bucket(start: int, width: int, moved: Moved, scale: Any, pace: Pace) -> None:
    """Adagrad of one row of a table."""
    rows = slice(start, start + width)
    values, slope = moved.front.tables[rows], moved.tables.slope[rows]
    by_adagrad(values, moved.sums[rows], slope, scale, np.float32(pace.tables))


@compiled_within
def by_adam(
    values: Any, first: Any, second: Any, gradient: Any, scale: Any, pace: Pace, rate: float, taken: int
) -> None:
    """Adam, with weight decay as a part of the gradient."""
    decay, one, two = np.float32(pace.decay), np.float32(1 - pace.first), np.float32(1 - pace.second)
    beta = np.float32(pace.second)
    size = np.float32(rate / (1 - pace.first**taken))
    root = np.float32(math.sqrt(1 - pace.second**taken))
    for i in range(len(values)):
        slope = gradient[i] * scale + decay * values[i]
        first[i] += one * (slope - first[i])
        second[i] = beta * second[i] + two * slope * slope
        values[i] -= size * first[i] / (np.sqrt(second[i]) / root + EPSILON)


@compiled_within
def by_adagrad(values: Any, sums: Any, gradient: Any, scale: Any, rate: Any) -> None:
    """Adagrad."""
    for i in range(len(values)):
        slope = gradient[i] * scale
        sums[i] += slope * slope
        values[i] -= rate * slope / (np.sqrt(sums[i]) + EPSILON)


@compiled_within
def forget(outputs: int, tables: Tables) -> None:
    """Let the gradient of tables be zero again."""
    for n in range(tables.count[0]):
        bag, bucket = tables.bags[tables.touched[n, 0]], tables.touched[n, 1]
        start = bag[EMBEDDINGS] + bucket * bag[NUMBERS]
        tables.slope[start : start + bag[NUMBERS]] = 0
        start = bag[WEIGHTS] + bucket * outputs
        if bag[WEIGHTS] >= 0:
            tables.slope[start : start + outputs] = 0
        tables.marked[bag[MARKS] + bucket] = False
    tables.count[0] = 0
