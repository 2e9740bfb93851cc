"""Support sets read back from rows: what an adaptation reads, and the episode that it leaves for the outer loop."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import torch

from engine.batches import bucket_of
from engine.compiled import compiled, compiled_as, copy, fill, scalars, vectors
from engine.located import LOCATED, Located
from engine.stream.layout import columns_at
from engine.stream.table import TaskTable
from engine.types import Batch, Episode, Float32, Float64, Int64

ROW = -1
"""In place of an adaptation's number: what the row holds already."""


class Sets(NamedTuple):
    """Room for T support sets, one after the other; set t is ends[t] to ends[t + 1], in order of arrival."""

    ends: Any
    """[T + 1]"""
    x: Any
    """[M, W]"""
    y: Any
    """[M]"""
    counts: Any
    """[T, C] labels of each class that the task had met."""


class Left(NamedTuple):
    """Room for A adaptations, in order: the sets that they adapt on, and the episodes that they leave."""

    number: Any
    """[2] how many there are, and of how many the set before is in `first`."""
    task: Any
    """[A] row of the table."""
    event: Any
    """[A] the label at which the task adapts,"""
    labels: Any
    """[A] and the task's label count with it."""
    before: Any
    """[A] the set that the task had adapted on before: t of `due`, or -1 - t of `first`."""
    first: Sets
    due: Sets
    """[A]"""
    query: Sets
    """[A] every label since; counts are of no use."""


SETS_LAYOUT = scalars(Sets, ["int64[]", "float32[,]", "float32[]", "int64[,]"])
LEFT_LAYOUT = scalars(Left, [*["int64[]"] * 5, *[SETS_LAYOUT] * 3])


class Support(NamedTuple):
    """T support sets, one after the other; set t is ends[t] to ends[t + 1], in order of arrival."""

    ends: Int64
    """[T + 1]"""
    x: Float32
    """[M, W]"""
    y: Float32
    """[M]"""
    weight: Float32
    """[M] in the inner loss."""


def room_for(adaptations: int, tasks: int, rows: Any) -> Left:
    """Room for as many adaptations of as many of the tasks of rows at most."""
    sets = min(adaptations, tasks), adaptations, adaptations
    first, due, query = (room_of(count, *_sizes(rows)) for count in sets)
    return _left(adaptations, first, due, query)


def _left(adaptations: int, first: Sets, due: Sets, query: Sets) -> Left:
    number, (task, event, labels, before) = np.zeros(2, np.int64), np.zeros((4, adaptations), np.int64)
    return Left(number, task, event, labels, before, first, due, query)


def _sizes(rows: Any) -> tuple[int, int, int]:
    """Slots of a support set, numbers of an example, and classes."""
    (slots, width), (classes,) = rows.dtype["support_x"].shape, rows.dtype["class_counts"].shape
    return slots, width, classes


def room_of(sets: int, slots: int, width: int, classes: int) -> Sets:
    """Room for so many sets, of at most `slots` examples of that width."""
    return Sets(
        ends=np.zeros(sets + 1, np.int64),
        x=np.empty((sets * slots, width), np.float32),
        y=np.empty(sets * slots, np.float32),
        counts=np.empty((sets, classes), np.int64),
    )


NOTHING_LEFT = _left(0, *[room_of(0, 0, 0, 0)] * 3)
"""Room for no adaptation: where they are found ahead, none is noted again."""


@compiled
def following(c: Any, u: int, after: int) -> int:
    """The slot of the example that came next after a label count; -1 where none did."""
    chosen = -1
    for s in range(len(c.support_seq[u])):
        seq = c.support_seq[u, s]
        if seq > after and (chosen < 0 or seq < c.support_seq[u, chosen]):
            chosen = s
    return chosen


@compiled
def is_superseded(c: Any, u: int, s: int) -> bool:
    """Whether a later example of the same observation has replaced one."""
    for other in range(len(c.support_seq[u])):
        if c.support_id[u, other] == c.support_id[u, s] and c.support_seq[u, other] > c.support_seq[u, s]:
            return True
    return False


@compiled
def add(c: Any, u: int, s: int, sets: Any, t: int) -> None:
    """Add the example in a slot to a set."""
    at = sets.ends[t + 1]
    copy(c.support_x[u, s], sets.x[at])
    sets.y[at] = c.support_y[u, s]
    sets.ends[t + 1] = at + 1


@compiled
def read_set(c: Any, u: int, sets: Any, t: int) -> None:
    """Write the set that a task's last adaptation read, or was due to read: as of `adapted_through`."""
    through = c.adapted_through[u]
    sets.ends[t + 1] = sets.ends[t]
    copy(c.adapted_counts[u], sets.counts[t])
    s = following(c, u, 0)
    while s >= 0 and c.support_seq[u, s] <= through:
        if c.support_dropped[u, s] == 0 or c.support_dropped[u, s] > through:
            add(c, u, s, sets, t)
        s = following(c, u, c.support_seq[u, s])


@compiled
def read_since(c: Any, u: int, sets: Any, t: int) -> None:
    """Write every label since the last adaptation.

    What a balanced set has let go meanwhile is judged on too, as often as it came; what was corrected is not.
    """
    sets.ends[t + 1] = sets.ends[t]
    s = following(c, u, c.adapted_through[u])
    while s >= 0:
        if not is_superseded(c, u, s):
            add(c, u, s, sets, t)
        s = following(c, u, c.support_seq[u, s])


@compiled
def take_stock(c: Any, u: int) -> None:
    """From here on the set as of now is the one that the last adaptation read."""
    c.adapted_through[u] = c.seq[u]
    copy(c.class_counts[u], c.adapted_counts[u])


@compiled
def leave(c: Any, u: int, n: int, before: int, left: Any) -> int:
    """Note that task u adapts at label n: the episode that ends there, and its support set as of now.

    `before` is the number of its adaptation before, or ROW. Returns the number of this one.
    """
    k = left.number[0]
    left.task[k], left.event[k], left.labels[k] = u, n, c.seq[u]
    if before == ROW:
        before = -1 - left.number[1]
        read_set(c, u, left.first, left.number[1])
        left.number[1] += 1
    left.before[k] = before
    read_since(c, u, left.query, k)
    take_stock(c, u)
    read_set(c, u, left.due, k)
    left.number[0] = k + 1
    return int(k)


@compiled_as(LOCATED, *vectors(2), LEFT_LAYOUT)
def leave_all(located: Located, tasks: Int64, last: Int64, left: Left) -> None:
    """Note that tasks adapt, each at its event last[u]."""
    c = columns_at(located)
    for t in range(len(tasks)):
        leave(c, tasks[t], last[tasks[t]], ROW, left)


@compiled_as(LOCATED, *vectors(1), SETS_LAYOUT)
def read_sets(located: Located, tasks: Int64, sets: Sets) -> None:
    """Write the sets that the last adaptations of tasks [T] read, or were due to read."""
    c = columns_at(located)
    for t in range(len(tasks)):
        read_set(c, tasks[t], sets, t)


def support_of(states: TaskTable, tasks: Int64, balanced: bool) -> Support:
    """The sets that the last adaptations of tasks read, or were due to read."""
    slots, width, classes = _sizes(states.rows)
    sets = room_of(len(tasks), slots, width, classes)
    read_sets(states.located, tasks, sets)
    return weighed(sets, len(tasks), slots, balanced)


def weighed(sets: Sets, count: int, slots: int, balanced: bool) -> Support:
    """The first so many sets, of at most `slots` examples, each with its weight in the inner loss.

    Where sets are `balanced`, examples weigh what brings their class back to its share among all labels.
    """
    ends = sets.ends[: count + 1]
    shares, weight = np.zeros((count, slots)), np.empty(ends[-1], np.float32)
    write_shares(sets, balanced, shares)
    write_weights(ends, shares, shares.sum(axis=1), weight)
    return Support(ends, sets.x[: ends[-1]], sets.y[: ends[-1]], weight)


@compiled_as(SETS_LAYOUT, "boolean", "float64[,]")
def write_shares(sets: Sets, balanced: bool, shares: Float64) -> None:
    """Write what examples weigh beside each other [T, slots]: labels of their class over those of it in the set."""
    for t in range(len(shares)):
        y = sets.y[sets.ends[t] : sets.ends[t + 1]]
        if not balanced:
            fill(shares[t, : len(y)], 1.0)
        for k in range(sets.counts.shape[1] if balanced else 0):
            members = 0
            for i in range(len(y)):
                members += y[i] == k
            for i in range(len(y)):
                if y[i] == k:
                    shares[t, i] = sets.counts[t, k] / members


@compiled_as("int64[]", "float64[,]", "float64[]", "float32[]")
def write_weights(ends: Int64, shares: Float64, sums: Float64, weight: Float32) -> None:
    """Write what examples weigh [M]: their shares, which add up to 1 in a set."""
    for t in range(len(shares)):
        for i in range(ends[t + 1] - ends[t]):
            weight[ends[t] + i] = shares[t, i] / max(sums[t], 1e-12)


def examples_of(support: Support) -> tuple[Float32, Float32, Float32, Int64]:
    """What weighs in the sets: x [M, W], y [M], weight [M]; set t is ends[t] to ends[t + 1]."""
    weighs = support.weight > 0
    if np.count_nonzero(weighs) == len(weighs):
        return support.x, support.y, support.weight, support.ends
    ends = np.concatenate([[0], np.cumsum(weighs)])[support.ends]
    return support.x[weighs], support.y[weighs], support.weight[weighs], ends


def padded(support: Support, members: Int64, block: int) -> Batch:
    """Some of the sets (of one bucket, at most `block` of them) as a full block, the first repeated."""
    starts, stops = support.ends[members].tolist(), support.ends[members + 1].tolist()
    length = bucket_of(max(stop - start for start, stop in zip(starts, stops, strict=True)))
    x = np.zeros((block, length, support.x.shape[1]), np.float32)
    y, weight = np.zeros((2, block, length), np.float32)
    for place, (start, stop) in enumerate(zip(starts, stops, strict=True)):
        weighs = support.weight[start:stop] > 0
        x[place, : stop - start] = np.where(weighs[:, None], support.x[start:stop], 0)
        y[place, : stop - start] = np.where(weighs, support.y[start:stop], 0)
        weight[place, : stop - start] = support.weight[start:stop]
    for column in (x, y, weight):
        column[len(members) :] = column[0]
    return Batch(torch.from_numpy(x), torch.from_numpy(y), torch.from_numpy(weight))


def episodes_of(left: Left, first: Support, due: Support, numbers: Iterable[int]) -> list[Episode]:
    """The episodes that adaptations of these numbers left; none of one before which no label came."""
    task, event, labels, before = (column.tolist() for column in left[1:5])
    query, episodes = left.query.ends.tolist(), []
    for k in numbers:
        of, t = (due, before[k]) if before[k] >= 0 else (first, -1 - before[k])
        read, since = slice(of.ends[t], of.ends[t + 1]), slice(query[k], query[k + 1])
        if query[k] < query[k + 1]:
            episodes.append(
                Episode(
                    row=task[k],
                    labels=labels[k],
                    event=event[k],
                    support_x=of.x[read],
                    support_y=of.y[read],
                    support_weight=of.weight[read],
                    query_x=left.query.x[since],
                    query_y=left.query.y[since],
                )
            )
    return episodes
