"""The gradient of a task's loss by tables of buckets, whose rows it names; and sums of squares."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from engine.compiled import compiled_within
from engine.kernels.network import Network, Work
from engine.kernels.products import after
from engine.kernels.vectors import one

FIRST_ID, IDS, NUMBERS, EMBEDDINGS, WEIGHTS, MARKS, DENSE = range(7)
"""What describes a category or text: where its ids begin in a stored row, and how many; numbers of an embedding;
where embeddings and weights (-1: none) begin in the tables, and marks of its buckets; where it is in a dense row."""


class Tables(NamedTuple):
    """The gradient by tables of buckets, which is zero but for a few rows."""

    slope: Any
    """As long as all tables."""
    bags: Any
    """[B, 7] int64"""
    marked: Any
    """One for each bucket of each category or text: whether its row is among those touched."""
    touched: Any
    """[n, 2] int64 category or text, and bucket."""
    count: Any
    """[1] int64, of the rows touched."""


@compiled_within
def by_tables(net: Network, stored: Any, work: Work, tables: Tables) -> None:
    """Add the slopes of rows, by what the network reads and by outputs, to those of the buckets that they name."""
    bags = tables.bags
    for n in range(len(stored)):
        inputs, outputs = after(work.slope, n * net.widest), after(work.out, n * net.outputs)
        for b in range(len(bags)):
            ids = stored[n, bags[b, FIRST_ID] : bags[b, FIRST_ID] + bags[b, IDS]]
            present = np.float32(0)
            for i in range(len(ids)):
                present += np.float32(1) if ids[i] > 0 or len(ids) == 1 else np.float32(0)
            for i in range(len(ids)):
                if ids[i] > 0 or len(ids) == 1:
                    add(net, tables, b, int(ids[i]), inputs, outputs, present)


@compiled_within
def add(net: Network, tables: Tables, b: int, bucket: int, inputs: int, outputs: int, present: Any) -> None:
    """Add one row's slopes to those of a bucket, which is one of so many present."""
    bag, width = tables.bags[b], tables.bags[b, NUMBERS]
    if not tables.marked[bag[MARKS] + bucket]:
        tables.marked[bag[MARKS] + bucket] = True
        tables.touched[tables.count[0], 0], tables.touched[tables.count[0], 1] = b, bucket
        tables.count[0] += 1
    start = bag[EMBEDDINGS] + bucket * width
    for k in range(width):
        tables.slope[start + k] += one(inputs, bag[DENSE] + k) / present
    start = bag[WEIGHTS] + bucket * net.outputs
    for c in range(net.outputs if bag[WEIGHTS] >= 0 else 0):
        tables.slope[start + c] += one(outputs, c) / present


@compiled_within
def squares(values: Any) -> float:
    """Sum of squares, in double precision."""
    a, b, c, d = 0.0, 0.0, 0.0, 0.0
    for i in range(0, len(values), 4):  # whole vectors
        a += float(values[i]) * float(values[i])
        b += float(values[i + 1]) * float(values[i + 1])
        c += float(values[i + 2]) * float(values[i + 2])
        d += float(values[i + 3]) * float(values[i + 3])
    return a + b + c + d


@compiled_within
def squares_of_touched(outputs: int, tables: Tables) -> float:
    """Sum of squares of the slopes by tables."""
    found = 0.0
    for n in range(tables.count[0]):
        bag, bucket = tables.bags[tables.touched[n, 0]], tables.touched[n, 1]
        start, width = bag[EMBEDDINGS] + bucket * bag[NUMBERS], bag[NUMBERS]
        for i in range(start, start + width):
            found += float(tables.slope[i]) * float(tables.slope[i])
        start, width = bag[WEIGHTS] + bucket * outputs, outputs if bag[WEIGHTS] >= 0 else 0
        for i in range(start, start + width):
            found += float(tables.slope[i]) * float(tables.slope[i])
    return found
