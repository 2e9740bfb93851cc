"""Support sets read back from rows: as padded batches for a learner, and as episodes for the outer loop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from engine.batches import bucket_of, class_weights
from engine.stream.layout import Columns
from engine.types import Batch, Bool, Episode, Float32, Int64


class Support(NamedTuple):
    """T support sets, ragged: examples in order of arrival first, then whatever else the row holds."""

    sizes: Int64
    """[T] how many examples are in the set."""
    x: Float32
    """[T, R, W]"""
    y: Float32
    """[T, R]"""
    weight: Float32
    """[T, R] in the inner loss; 0 outside the set."""


def support_of(c: Columns, tasks: Int64, balanced: bool) -> Support:
    """The sets that the last adaptation read, or was due to read: as of `adapted_through`."""
    through = c.adapted_through[tasks, None]
    seq, dropped = c.support_seq[tasks], c.support_dropped[tasks]
    inside = (seq > 0) & (seq <= through) & ((dropped == 0) | (dropped > through))
    slots, sizes = _in_order(seq, inside)
    weights = np.where(np.arange(seq.shape[1]) < sizes[:, None], 1.0, 0.0)
    y = c.support_y[tasks[:, None], slots]
    if balanced:
        weights *= class_weights(y.astype(np.int64), weights, c.adapted_counts[tasks])
    weights /= np.maximum(weights.sum(axis=1, keepdims=True), 1e-12)
    return Support(sizes, c.support_x[tasks[:, None], slots], y, weights.astype(np.float32))


def joined(sets: Sequence[Support]) -> Support:
    """Support sets one after another."""
    return Support(*(np.concatenate(column) for column in zip(*sets, strict=True)))


def examples_of(support: Support) -> tuple[Float32, Float32, Float32, Int64]:
    """The examples of all sets, one after the other: x [M, W], y [M], weight [M]; set t is ends[t] to ends[t + 1]."""
    present = (np.arange(support.y.shape[1]) < support.sizes[:, None]) & (support.weight > 0)
    ends = np.concatenate([[0], np.cumsum(present.sum(axis=1))])
    return support.x[present], support.y[present], support.weight[present], ends


def padded(support: Support, members: Int64, block: int) -> Batch:
    """Some of the sets (of one bucket, at most `block` of them) as a full block, the first repeated."""
    length = bucket_of(int(support.sizes[members].max(initial=0)))
    width = min(length, support.y.shape[1])
    fill = np.concatenate([members, np.repeat(members[:1], block - len(members))])
    x = np.zeros((block, length, support.x.shape[2]), np.float32)
    y, weight = np.zeros((2, block, length), np.float32)
    weight[:, :width] = support.weight[fill, :width]
    present = weight[:, :width] > 0
    x[:, :width] = np.where(present[..., None], support.x[fill, :width], 0)
    y[:, :width] = np.where(present, support.y[fill, :width], 0)
    return Batch(torch.from_numpy(x), torch.from_numpy(y), torch.from_numpy(weight))


def episodes_of(c: Columns, tasks: Int64, last: Int64, balanced: bool) -> list[Episode]:
    """One episode a task about to adapt: support as of the last adaptation, query every label since.

    What a balanced set has let go meanwhile is judged on too, as often as it came; what was corrected is not.
    """
    support = support_of(c, tasks, balanced)
    seq = c.support_seq[tasks]
    since = (seq > c.adapted_through[tasks, None]) & ~_superseded(seq, c.support_id[tasks])
    slots, sizes = _in_order(seq, since)
    episodes = []
    for t, u in enumerate(tasks.tolist()):
        read, judged = support.sizes[t], slots[t, : sizes[t]]
        if len(judged):
            episodes.append(
                Episode(
                    row=u,
                    labels=int(c.seq[u]),
                    event=int(last[u]),
                    support_x=support.x[t, :read],
                    support_y=support.y[t, :read],
                    support_weight=support.weight[t, :read],
                    query_x=c.support_x[u, judged],
                    query_y=c.support_y[u, judged],
                )
            )
    return episodes


def _superseded(seq: Int64, ids: Any) -> Bool:
    """Which examples [T, R] a later one of the same observation has replaced."""
    arrived = np.argsort(seq, axis=1, kind="stable")
    by_id = np.argsort(np.take_along_axis(ids, arrived, axis=1), axis=1, kind="stable")
    order = np.take_along_axis(arrived, by_id, axis=1)
    ordered, used = np.take_along_axis(ids, order, axis=1), np.take_along_axis(seq, order, axis=1) > 0
    followed: Bool = np.zeros(seq.shape, np.bool_)
    superseded: Bool = np.zeros(seq.shape, np.bool_)
    followed[:, :-1] = (ordered[:, :-1] == ordered[:, 1:]) & used[:, :-1]
    np.put_along_axis(superseded, order, followed, axis=1)
    return superseded


def _in_order(seq: Int64, inside: Bool) -> tuple[Int64, Int64]:
    """Slots in order of arrival, those inside the set first [T, R], and how many are inside [T]."""
    order = np.argsort(np.where(inside, seq, np.iinfo(np.int64).max), axis=1, kind="stable")
    return order, inside.sum(axis=1)
