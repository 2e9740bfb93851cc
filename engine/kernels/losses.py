"""The loss of a task's outputs, and its slope by them: squared errors, or cross-entropy among the classes named."""

from __future__ import annotations

import math

import numpy as np

from engine.compiled import compiled_within
from engine.kernels.network import Network
from engine.kernels.products import after
from engine.kernels.vectors import one, put


@compiled_within
def loss_and_slope(net: Network, y: int, weight: int, rows: int, out: int) -> float:
    """The weighted loss of outputs [rows, C], which become its slope."""
    sums = 0.0
    for n in range(rows):
        label, share = one(y, n), one(weight, n)
        if net.named:
            sums += float(share) * cross_entropy(net.named, int(label), share, after(out, n * net.outputs))
            for c in range(net.named, net.outputs):
                put(out, n * net.outputs + c, np.float32(0))
        else:
            error = one(out, n) - label
            sums += float(share) * float(error) * float(error)
            put(out, n, np.float32(2) * share * error)
    return sums


@compiled_within
def cross_entropy(named: int, label: int, weight: float, out: int) -> float:
    """Minus the logarithm of the label's softmax; outputs become the slope of that, times a weight."""
    most = one(out, 0)
    for c in range(1, named):
        most = max(most, one(out, c))
    lead, sums = float(one(out, label) - most), np.float32(0)
    for c in range(named):
        value = np.float32(math.exp(one(out, c) - most))
        put(out, c, value)
        sums += value
    for c in range(named):
        put(out, c, one(out, c) * (weight / sums))
    put(out, label, one(out, label) - weight)
    return math.log(float(sums)) - lead
