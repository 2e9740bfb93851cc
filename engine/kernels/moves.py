"""How far tasks move from theta, each trained by itself on parts of its examples: what Reptile moves theta by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from engine.batches import present
from engine.kernels.apart import Buckets, Parts, Room, train_apart
from engine.kernels.network import Theta, room_for
from engine.kernels.plan import named
from engine.kernels.training import no_slopes, room_for_touched
from engine.types import Batch, Bool, Params

if TYPE_CHECKING:
    from engine.kernels.kernel import MLPTheta


def moves_apart(theta: MLPTheta, batches: Sequence[Batch], tasks: Bool, steps: int) -> Params:
    """The sum over tasks [U], those that are true, of theta minus where it ends after `steps` steps, by name.

    Step k is taken on batch k mod P of U tasks. Whoever asks knows that tasks have no step sizes of their own.
    """
    plan, front, body = theta.kernel.plan, theta.front, theta.theta.body
    parts, net = _parts(theta, batches), plan.whole
    most = int(np.diff(parts.ends).max(initial=1))
    room = Room(
        np.zeros(room_for(net.layers, net.widest, net.outputs, most), np.float32),
        np.zeros(2 * len(body) + len(theta.theta.forward), np.float32),
        most,
    )
    buckets = Buckets(front.tables, front.tables.copy(), np.zeros(len(front.tables), np.float32))
    moved, taken = np.zeros(len(body), np.float32), theta.steps._replace(number=steps)
    train_apart(
        net, Theta(body, body, theta.theta.forward), parts, len(batches), np.flatnonzero(tasks), taken,
        room_for_touched(no_slopes(theta), len(parts.y)), buckets, room, moved,
    )  # fmt: skip
    return {**plan.body.named(moved), **named(buckets.moved, theta.tables)}


def _parts(theta: MLPTheta, batches: Sequence[Batch]) -> Parts:
    each = [present(batch) for batch in batches]
    x, y, weight = (np.concatenate(columns) for columns in list(zip(*each, strict=True))[:3])
    counts = np.concatenate([np.diff(ends) for *_, ends in each])
    read = theta.read(x)
    return Parts(
        x, read.x.reshape(len(x), theta.kernel.inputs), read.numbers,
        read.wide.reshape(len(x), theta.kernel.plan.whole.outputs), *theta.counted(y, weight),
        np.concatenate([[0], np.cumsum(counts)]),
    )  # fmt: skip
