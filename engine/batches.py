"""Episodes as tensors: stacking those that adaptations left behind, and drawing mini-batches of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from engine.types import Batch, EngineError, Episode, Episodes, Float32, Int64

T = TypeVar("T")

BLOCK = 32
"""The most tasks of one tensor call: kernels choose their order of summation by shape, so blocks are full."""

NEAR = 80_000
"""Numbers of a block's largest tensor. What a step works on then stays in the processor's caches, and a block that is
full of one task costs no more than a loop over tasks would."""


def blocks(count: int, size: int) -> Iterator[slice]:
    """So many things in runs of at most `size`."""
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


def sample(episodes: Sequence[T], size: int, *, seed: int, step: int) -> list[T]:
    """Draw `size` different episodes, or all where there are fewer; the same for the same seed and step."""
    chosen = np.random.default_rng((seed, step)).permutation(len(episodes))[:size]
    return [episodes[i] for i in chosen]


def stack(episodes: Sequence[Episode], size: int = 0, support: int = 0, query: int = 0) -> Episodes:
    """Pad ragged episodes to the bucket of the longest, or of so many examples, and with empty ones to `size`.

    Support weights are as stored, query weights 1 / length. Few shapes mean few recordings of the inner loop.
    """
    if not episodes:
        raise EngineError("stack needs at least one episode, got none")
    return Episodes(
        _pad([(e.support_x, e.support_y, e.support_weight) for e in episodes], size, support),
        _pad([(e.query_x, e.query_y, even(len(e.query_y))) for e in episodes], size, query),
    )


def present(batch: Batch) -> tuple[Float32, Float32, Float32, Int64]:
    """Examples that weigh something: x [M, W], y [M] and weight [M], and where each task's end [U + 1]."""
    x, y, weight = (column.detach().numpy() for column in batch)
    there = weight > 0
    if there.all():
        return x.reshape(-1, x.shape[-1]), y.ravel(), weight.ravel(), np.arange(len(y) + 1) * y.shape[1]
    ends = np.zeros(len(y) + 1, np.int64)
    np.cumsum(there.sum(1), out=ends[1:])
    return x[there], y[there], weight[there], ends


def by_size(episodes: Episodes) -> list[Episodes]:
    """Those of as many support and query examples together, in order of size and without padding."""
    present = [side.weight > 0 for side in episodes]
    sizes = torch.stack([side.sum(1) for side in present], 1)
    _, which = torch.unique(sizes, dim=0, return_inverse=True)
    return [
        Episodes(*(_of_size(side, there, which == k) for side, there in zip(episodes, present, strict=True)))
        for k in range(int(which.max()) + 1)
    ]


def _of_size(batch: Batch, present: Tensor, tasks: Tensor) -> Batch:
    """Some tasks of a batch, whose numbers of examples are the same."""
    x, y, weight = (column[tasks][present[tasks]] for column in batch)
    shape = int(tasks.sum()), int(present[tasks].sum()) // int(tasks.sum())
    return Batch(x.view(*shape, x.shape[-1]), y.view(shape), weight.view(shape))


def resplit(episodes: Episodes, turn: int) -> Episodes:
    """The same examples of each class, the next of them as the support set; turn 0 changes nothing but the order.

    With k support examples of n of a class, n / k turns let each example be a support example once. Sides keep
    their lengths, and each class the weight it has on a side, in even parts.
    """
    support, query = episodes
    examples = Batch(*(torch.cat(pair, 1) for pair in zip(support, query, strict=True)))
    alike = (examples.y.unsqueeze(1) == examples.y.unsqueeze(2)) & (examples.weight > 0).unsqueeze(1)
    rank = (alike & torch.ones_like(alike[0]).tril(-1)).sum(2)
    shots = alike[..., : support.y.shape[1]].sum(2)
    moved = (rank - turn * shots) % alike.sum(2).clamp(min=1)
    present = examples.weight > 0
    chosen = present & (moved < shots)
    of_class = alike * examples.weight.unsqueeze(1)
    return Episodes(
        _gathered(examples, chosen, alike, of_class[..., : support.y.shape[1]]),
        _gathered(examples, present & ~chosen, alike, of_class[..., support.y.shape[1] :]),
    )


def _gathered(examples: Batch, chosen: Tensor, alike: Tensor, of_class: Tensor) -> Batch:
    """The chosen examples first, as long a side as was; `of_class` weighs its examples [U, N, side] of each class."""
    order = (~chosen).to(torch.uint8).argsort(dim=1, stable=True)[:, : of_class.shape[2]]
    share = of_class.sum(2) / (alike & chosen.unsqueeze(1)).sum(2).clamp(min=1)
    x = examples.x.gather(1, order.unsqueeze(-1).expand(-1, -1, examples.x.shape[-1]))
    return Batch(x, examples.y.gather(1, order), (share * chosen).gather(1, order))


def even(count: int) -> Float32:
    """Weights of so many examples that all count alike."""
    return np.full(count, 1 / max(count, 1), np.float32)


def _pad(sets: Sequence[tuple[Float32, Float32, Float32]], size: int, length: int) -> Batch:
    """Join sets of x [S, W], y [S] and weight [S]; a padded example is zero and weighs 0."""
    shape = max(len(sets), size), bucket_of(max(length, *(len(y) for _, y, _ in sets)))
    x = np.zeros((*shape, sets[0][0].shape[1]), np.float32)
    y, weight = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    for i, (xs, ys, weights) in enumerate(sets):
        x[i, : len(ys)], y[i, : len(ys)], weight[i, : len(ys)] = xs, ys, weights
    return Batch(torch.from_numpy(x), torch.from_numpy(y), torch.from_numpy(weight))


def block_of(numbers: int) -> int:
    """Tasks of one tensor call whose largest tensor has so many numbers a task: a power of two."""
    return min(BLOCK, 1 << max(0, (NEAR // max(numbers, 1)).bit_length() - 1))


SMALLEST_BUCKET = 8


def bucket_of(size: int) -> int:
    """The padded length of a support set: a power of two, so that it depends on the task alone."""
    return max(SMALLEST_BUCKET, 1 << (size - 1).bit_length()) if size else 0


def class_weights(labels: Int64, present: Any, counts: Int64) -> Any:
    """What weighs a balanced set back to the class counts: counts of a class over its share of the set."""
    weights = np.zeros(labels.shape)
    for k in range(counts.shape[1]):
        members = (labels == k) & (present > 0)
        share = members.sum(axis=1, keepdims=True)
        weights += members * (counts[:, k : k + 1] / np.maximum(share, 1))
    return weights
