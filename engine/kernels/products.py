"""Products of matrices, in vectors: each sum in the order of its terms, whatever stands beside it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from engine.compiled import compiled_within
from engine.kernels.vectors import WIDTH, fused, load, one, spread, store, total

ROWS = 4
"""Rows of one tile: four sums for each vector of columns keep the processor busy, and in registers."""


class Matrix(NamedTuple):
    """Element (n, k) lies `n row + k column` elements after an address."""

    start: int
    row: int
    column: int = 1


def rounded_up(width: int) -> int:
    """A number of columns in whole vectors."""
    return (width + WIDTH - 1) // WIDTH * WIDTH


padded = compiled_within(rounded_up)


@compiled_within
def after(start: int, count: int) -> int:
    """The address of an element, so many after another."""
    return start + 4 * count


@compiled_within
def multiply(
    left: Matrix, right: Matrix, base: Matrix, out: Matrix, rows: int, terms: int, width: int
) -> None:
    """Write base + left [rows, terms] times right [terms, width] to out; columns up to whole vectors.

    All but `left` have their columns side by side. `base` may be one row for all, at a distance of 0.
    """
    tiled = rows - rows % ROWS
    for n in range(0, tiled, ROWS):
        a = after(left.start, n * left.row)
        b, c, d = after(a, left.row), after(a, 2 * left.row), after(a, 3 * left.row)
        s, o = n * base.row, n * out.row
        for j in range(0, width, WIDTH):
            w, x = load(base.start, s + j), load(base.start, s + base.row + j)
            y, z = load(base.start, s + 2 * base.row + j), load(base.start, s + 3 * base.row + j)
            for k in range(terms):
                factor, i = load(right.start, k * right.row + j), k * left.column
                w = fused(spread(one(a, i)), factor, w)
                x = fused(spread(one(b, i)), factor, x)
                y = fused(spread(one(c, i)), factor, y)
                z = fused(spread(one(d, i)), factor, z)
            store(out.start, o + j, w)
            store(out.start, o + out.row + j, x)
            store(out.start, o + 2 * out.row + j, y)
            store(out.start, o + 3 * out.row + j, z)
    for n in range(tiled, rows):
        for j in range(0, width, WIDTH):
            w = load(base.start, n * base.row + j)
            for k in range(terms):
                factor = one(left.start, n * left.row + k * left.column)
                w = fused(spread(factor), load(right.start, k * right.row + j), w)
            store(out.start, n * out.row + j, w)


@compiled_within
def dot(a: int, b: int, width: int) -> float:
    """Sum of the products of two rows of whole vectors."""
    sums = load(a, 0) * load(b, 0)
    for j in range(WIDTH, width, WIDTH):
        sums = fused(load(a, j), load(b, j), sums)
    return total(sums)  # type: ignore[no-any-return]


@compiled_within
def square(a: int, width: int) -> float:
    """Sum of the squares of whole vectors, in two sums."""
    even, odd = spread(np.float32(0)), spread(np.float32(0))
    last = width - width % (2 * WIDTH)
    for j in range(0, last, 2 * WIDTH):
        even = fused(load(a, j), load(a, j), even)
        odd = fused(load(a, j + WIDTH), load(a, j + WIDTH), odd)
    if last < width:
        even = fused(load(a, last), load(a, last), even)
    return total(even + odd)  # type: ignore[no-any-return]
