"""Every task trains all of theta by itself, tables of buckets among it: the inner steps of Reptile.

(Nichol, Achiam, Schulman 2018, arXiv:1803.02999, algorithm 1.) What a task moves of the tables is a few rows. They
are moved where they lie, and put back before the next task begins.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from engine.compiled import compiled_apart, compiled_within, fill
from engine.kernels.descent import forget
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
from engine.kernels.products import after, square
from engine.kernels.row_loop import add_bag
from engine.kernels.slopes import (
    DENSE,
    EMBEDDINGS,
    NUMBERS,
    WEIGHTS,
    Tables,
    by_tables,
    squares_of_touched,
)
from engine.kernels.vectors import WIDTH, address, fused, load, spread, store


class Parts(NamedTuple):
    """Examples of U tasks in P parts: those of part p of task t are ends[p U + t] to ends[p U + t + 1] of M."""

    stored: Any
    """[M, W] as they are stored."""
    dense: Any
    """[M, D] what the network reads of them; embeddings are written anew at each step."""
    numbers: Any
    """[M * numbers] what the linear model does."""
    wide: Any
    """[M, C] the weights of their buckets; written anew as well."""
    y: Any
    weight: Any
    ends: Any
    """[P U + 1]"""


class Buckets(NamedTuple):
    """All tables, one after the other."""

    was: Any
    """As theta has them."""
    now: Any
    """As the task has them whose turn it is; as theta has them between two tasks."""
    moved: Any
    """How far tasks have moved them, in sum."""


class Room(NamedTuple):
    """What the passes write to."""

    work: Any
    own: Any
    """Theta's parameters twice, and the hidden layers' weights."""
    most: int
    """Examples of a part, at most."""


@compiled_apart
def train_apart(
    network: Network, theta: Theta, parts: Parts, count: int, tasks: Any, steps: Steps, tables: Tables,
    buckets: Buckets, room: Room, moved: Any,
) -> None:  # fmt: skip
    """Add to `moved`, and to the buckets', how far each of `tasks` [n] moves from theta: theta minus where it ends.

    Step k is taken on part k mod `count`; all steps are of the first of their sizes.
    """
    net, at = network_at(network), theta_at(theta)
    rows = rows_at(Rows(parts.dense, parts.numbers, parts.wide, parts.y))
    size, work, mine, sums = (
        len(theta.own),
        work_of(net, room.most, address(room.work)),
        address(room.own),
        address(moved),
    )
    its, forward = after(mine, size), after(mine, 2 * size)
    among = (len(parts.ends) - 1) // count
    taken = Steps(steps.number, mine, steps.clip, steps.proximal)
    for t in tasks:
        copy(at.own, mine, size)
        copy(at.forward, forward, len(theta.forward))
        for k in range(steps.number):
            segment = k % count * among + t
            first, examples = parts.ends[segment], parts.ends[segment + 1] - parts.ends[segment]
            read_tables(parts, first, examples, tables, buckets.now)
            y, weight = after(address(parts.y), first), after(address(parts.weight), first)
            task = Task(since(net, rows, first), y, weight, examples, mine, its, mine, forward)
            find_slope(net, at, task, parts.stored[first : first + examples], taken, size, work, tables)
            hold(net, at, task, taken, size, tables, buckets)
            take_step(net, task, taken, steps.sizes[0], size, tables, buckets.now)
            turn(net, mine, forward)
        for i in range(0, size, WIDTH):
            store(sums, i, load(sums, i) + load(at.own, i) - load(mine, i))
        put_back(net.outputs, tables, buckets)


@compiled_within
def read_tables(parts: Parts, first: int, examples: int, tables: Tables, now: Any) -> None:
    """Write what rows read of tables that have moved."""
    for n in range(first, first + examples):
        if len(tables.bags):
            fill(parts.wide[n], 0.0)
        for b in range(len(tables.bags)):
            bag = tables.bags[b]
            embedding = parts.dense[n, bag[DENSE] : bag[DENSE] + bag[NUMBERS]]
            fill(embedding, 0.0)
            add_bag(now, parts.stored[n], bag, bag[EMBEDDINGS], embedding)
            if bag[WEIGHTS] >= 0:
                add_bag(now, parts.stored[n], bag, bag[WEIGHTS], parts.wide[n])


@compiled_within
def find_slope(
    net: Network, theta: Theta, task: Task, stored: Any, steps: Steps, size: int, work: Work, tables: Tables
) -> None:
    """Write the gradient of a task's loss by all that it has; nothing slopes without examples."""
    if not task.examples:
        for i in range(0, size, WIDTH):
            store(task.gradient, i, spread(np.float32(0)))
        return
    forward_loss(net, theta, task, Steps(0, steps.sizes, 0.0, 0.0), size, work)
    by_own(net, task.rows.x, task.rows.numbers, task.examples, task.own, task.body, work, task.gradient)
    if len(tables.bags):
        descend(net, 0, task.body, task.examples, work)
        by_tables(net, stored, work, tables)


@compiled_within
def hold(
    net: Network, theta: Theta, task: Task, steps: Steps, size: int, tables: Tables, buckets: Buckets
) -> None:
    """Add the gradient of the proximal term, which holds a task near theta."""
    if not steps.proximal:
        return
    proximal = np.float32(steps.proximal)
    for i in range(0, size, WIDTH):
        away = load(task.own, i) - load(theta.own, i)
        store(task.gradient, i, fused(spread(proximal), away, load(task.gradient, i)))
    for n in range(tables.count[0]):
        for start, width in ranges(net.outputs, tables, n):
            for i in range(start, start + width):
                tables.slope[i] += proximal * (buckets.now[i] - buckets.was[i])


@compiled_within
def ranges(outputs: int, tables: Tables, n: int) -> Any:
    """Where embedding and weights of the nth row touched begin in the tables, and how many numbers they are."""
    bag, bucket = tables.bags[tables.touched[n, 0]], tables.touched[n, 1]
    weights = outputs if bag[WEIGHTS] >= 0 else 0
    return (
        (bag[EMBEDDINGS] + bucket * bag[NUMBERS], bag[NUMBERS]),
        (bag[WEIGHTS] + bucket * outputs, np.int64(weights)),
    )


@compiled_within
def take_step(
    net: Network, task: Task, steps: Steps, rate: float, size: int, tables: Tables, now: Any
) -> None:
    """Take one step along the clipped gradient, which is zero again in the tables."""
    squares = float(square(task.gradient, size)) + squares_of_touched(net.outputs, tables)
    factor = np.float32(-rate * steps.clip / math.sqrt(max(steps.clip * steps.clip, squares)))
    for i in range(0, size, WIDTH):
        store(task.own, i, fused(spread(factor), load(task.gradient, i), load(task.own, i)))
    for n in range(tables.count[0]):
        for start, width in ranges(net.outputs, tables, n):
            for i in range(start, start + width):
                now[i] += factor * tables.slope[i]
                tables.slope[i] = 0


@compiled_within
def put_back(outputs: int, tables: Tables, buckets: Buckets) -> None:
    """Note how far rows of tables were moved, and let them be theta's again."""
    for n in range(tables.count[0]):
        for start, width in ranges(outputs, tables, n):
            for i in range(start, start + width):
                buckets.moved[i] += buckets.was[i] - buckets.now[i]
                buckets.now[i] = buckets.was[i]
    forget(outputs, tables)
