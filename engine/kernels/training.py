"""Theta of the default network while it is trained: vectors that compiled code moves in place."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import torch

from engine.batches import present
from engine.kernels.descent import Moving, forgotten, move
from engine.kernels.network import EVERYTHING, Theta, room_for
from engine.kernels.row_by_row import one_after_the_other
from engine.kernels.slopes import DENSE, IDS, MARKS, NUMBERS, WEIGHTS, Tables, slopes
from engine.learners.training import FIRST, SECOND, Pace, Slope, Trained
from engine.types import Batch, Episodes, Float32, Float64, Int64, Params

if TYPE_CHECKING:
    from engine.kernels.kernel import MLPTheta

Examples = tuple[Float32, Float32, Float32, Int64]
"""x [M, W], y [M], weight [M], and where each task's end [T + 1]."""


class MLPTraining:
    """An `InTraining` of a multilayer perceptron, its linear model and its tables."""

    def __init__(self, theta: MLPTheta, trained: Trained) -> None:
        self.theta, self.was, self.taken = theta, trained, trained.taken
        self.plan, body = theta.kernel.plan, theta.theta.body
        self.net, self.at = self.plan.whole, Theta(body, body, theta.theta.forward)
        self.split = self.net.linear if self.net.linear >= 0 else self.plan.body.size
        second = {**_moments(SECOND, trained), **trained.squares}
        vectors = _moments(FIRST, trained), second, trained.means
        self.beside = Moving(*(self.plan.body.of(values) for values in vectors))
        self.gradient, self.owned = np.zeros_like(body), self.plan.owned
        self.own = np.zeros(2 * len(body) + len(self.at.forward), np.float32)
        self.names, self.buckets = theta.kernel.front.tables, theta.front.tables
        self.sums = one_after_the_other([trained.squares[name].detach() for name in self.names]).copy()
        self.tables = no_slopes(theta)
        self.most, self.room = 0, np.zeros(0, np.float32)

    def slope(self, labels: Batch, episodes: Episodes | None, share: float) -> Slope:
        """Find the gradient, as `engine.learners.training.InTraining` says."""
        x, y, weight, ends = present(labels)
        weight, judged = weight / max(weight.sum(), np.float32(1)), 0
        phi = np.zeros((0, len(self.plan.own.places)), np.float32)
        if episodes is not None:
            phi, theirs = self._adapted(episodes.support), present(episodes.query)
            judged = int((np.diff(theirs[3]) > 0).sum())
            x, y = np.concatenate([x, theirs[0]]), np.concatenate([y, theirs[1]])
            weight = np.concatenate([weight, theirs[2] * np.float32(share / max(judged, 1))])
            ends = np.concatenate([ends, ends[-1] + theirs[3][1:]])
        losses = np.zeros((len(ends) - 1, 2))
        squares = self._slopes(phi, x, *self.theta.counted(y, weight), ends, losses)
        before, after = losses[1:].sum(0).tolist() if judged else (math.nan, math.nan)
        return Slope(float(losses[0, 0]), before / share, after / share, math.sqrt(squares))

    def move(self, pace: Pace) -> None:
        """Take one step along the gradient that was found."""
        if not self.was.means and self.taken == self.was.taken:
            pace = pace._replace(newest=1.0)
        self.taken += 1
        move(
            self.net, self.at, self.beside, self.gradient, self.split, self.tables, self.buckets, self.sums, pace,
            self.taken,
        )  # fmt: skip

    def pass_over(self) -> None:
        """Take no step."""
        forgotten(self.net.outputs, self.tables)

    def trained(self) -> Trained:
        """Where it ended; tables are those that it moved."""
        if self.taken == self.was.taken:
            return self.was
        body, first, second, mean = map(self._by_name, (self.at.body, *self.beside))
        by_adam = [name for name in body if name not in self.was.squares]
        moments = {
            f"{part}:{name}": of[name] for part, of in ((FIRST, first), (SECOND, second)) for name in by_adam
        }
        linear = {name: value for name, value in second.items() if name in self.was.squares}
        params = {**self.was.params, **body, **self._cut(self.buckets, self.names)}
        return Trained(
            params,
            {**self.was.squares, **linear, **self._cut(self.sums, self.names)},
            mean,
            moments,
            self.taken,
        )

    def _adapted(self, support: Batch) -> Float32:
        """Fast parameters [T, F] of tasks, from theta as it stands."""
        self.theta.theta.own[:] = self.at.body[self.owned]
        return self.theta.adapt(*present(support))

    def _slopes(
        self, phi: Float32, x: Float32, y: Float32, weight: Float32, ends: Int64, losses: Float64
    ) -> float:
        """Write gradient and losses; returns the sum of squares."""
        net, most = self.net, int(np.diff(ends).max())
        if most > self.most:
            self.most = most
            self.room = np.zeros(room_for(net.layers, net.widest, net.outputs, most), np.float32)
        self.tables = room_for_touched(self.tables, len(x))
        turned = len(phi) > 0 and self.plan.network.owns == EVERYTHING
        return float(slopes(
            net, self.at, turned, phi, self.owned[self.plan.own.places], self.theta.read(x), x, y, weight, ends,
            self.most, self.room, self.own, self.gradient, self.tables, losses,
        ))  # fmt: skip

    def _by_name(self, vector: Float32) -> Params:
        """Parameters that lie as the network's, by name."""
        return self._cut(vector[self.plan.body.places], self.plan.body.starts)

    def _cut(self, vector: Float32, names: Iterable[str]) -> Params:
        return named(vector, self.was.params, names)


def _moments(part: str, trained: Trained) -> Params:
    named = {name: value for name, value in trained.moments.items() if name.startswith(f"{part}:")}
    return {name.partition(":")[2]: value for name, value in named.items()}


def no_slopes(theta: MLPTheta) -> Tables:
    """No gradient by any bucket, and no room for those touched."""
    front, params = theta.front, theta.params
    sizes = [len(params[f"0.embeddings.{n}.weight"]) for n in range(len(front.shape.bags))]
    bags = np.zeros((len(sizes), 7), np.int64)
    bags[:, :5] = front.shape.bags
    if not front.shape.wide:
        bags[:, WEIGHTS] = -1
    bags[:, MARKS] = np.cumsum([0, *sizes])[:-1]
    bags[:, DENSE] = front.shape.numbers + np.cumsum([0, *bags[:, NUMBERS]])[:-1]
    slope, marked = np.zeros(len(front.tables), np.float32), np.zeros(sum(sizes), np.bool_)
    return Tables(slope, bags, marked, np.zeros((0, 2), np.int64), np.zeros(1, np.int64))


def room_for_touched(tables: Tables, examples: int) -> Tables:
    """The same, with room for all rows that so many examples name."""
    ids = examples * int(tables.bags[:, IDS].sum())
    return tables._replace(touched=np.zeros((ids, 2), np.int64)) if ids > len(tables.touched) else tables


def named(vector: Float32, params: Params, names: Iterable[str]) -> Params:
    """Values, one after the other, by name; of the shapes that those of theta have."""
    shapes = {name: params[name].shape for name in names}
    parts = torch.from_numpy(vector).split([shape.numel() for shape in shapes.values()])
    return {name: part.view(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}
