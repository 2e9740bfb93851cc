"""The gradient of losses by all of theta, network and tables of buckets, each task at parameters of its own.

First order: what a task adapted stands in theta's place, and its gradient for theta's (Finn, Abbeel, Levine 2017,
arXiv:1703.03400, section 5.2). Labels of any tasks are one more, which has adapted nothing.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from engine.compiled import compiled_apart, compiled_within
from engine.kernels.gradients import by_own, descend
from engine.kernels.inner_loop import Steps, Task, forward_loss, turn
from engine.kernels.network import (
    Network,
    Rows,
    Theta,
    Work,
    copy,
    network_at,
    rows_at,
    since,
    theta_at,
    work_of,
)
from engine.kernels.products import after
from engine.kernels.vectors import WIDTH, address, load, one, put, store

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


@compiled_apart
def slopes(
    network: Network, theta: Theta, turned: bool, phi: Any, places: Any, read: Rows, stored: Any, y: Any, weight: Any,
    ends: Any, most: int, room: Any, own: Any, gradient: Any, tables: Tables, losses: Any,
) -> float:  # fmt: skip
    """Write the gradient of the sum of T tasks' losses, and these [T, 2]: at theta, and at a task's own phi [T, F].

    Task t has examples ends[t] to ends[t + 1] of M, whose stored rows are [M, W], and phi lies at `places` [F] of
    theta's parameters; hidden layers' weights among them have to be `turned`. The first task has adapted nothing.
    `own` is room for theta's parameters twice, and for the hidden layers' weights. Returns the sum of squares.
    """
    net, at, every = network_at(network), theta_at(theta), rows_at(read)
    size, work, mine, sums = (
        len(theta.own),
        work_of(net, most, address(room)),
        address(own),
        address(gradient),
    )
    its, forward = after(mine, size), after(mine, 2 * size) if turned else at.forward
    steps = Steps(0, mine, 0.0, 0.0)
    gradient[:] = 0
    for t in range(len(ends) - 1):
        first, count = ends[t], ends[t + 1] - ends[t]
        losses[t, 0] = losses[t, 1] = 0.0
        if not count:
            continue
        rows, labels, shares = (
            since(net, every, first),
            after(address(y), first),
            after(address(weight), first),
        )
        task = Task(rows, labels, shares, count, at.own, its, at.body, at.forward)
        losses[t, 0] = losses[t, 1] = forward_loss(net, at, task, steps, size, work)
        if t > 0:
            copy(at.own, mine, size)
            for i in range(len(places)):
                put(mine, places[i], phi[t - 1, i])
            if turned:
                turn(net, mine, forward)
            task = Task(rows, labels, shares, count, mine, its, mine, forward)
            losses[t, 1] = forward_loss(net, at, task, steps, size, work)
        by_own(net, rows.x, rows.numbers, count, task.own, task.body, work, its)
        for i in range(0, size, WIDTH):
            store(sums, i, load(sums, i) + load(its, i))
        if len(tables.bags):
            descend(net, 0, task.body, count, work)
            by_tables(net, stored[first : first + count], work, tables)
    return squares(gradient) + squares_of_touched(net.outputs, tables)


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
