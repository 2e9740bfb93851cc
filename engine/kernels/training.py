"""Theta of the default network while it is trained: vectors that compiled code moves in place."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from engine.batches import present
from engine.kernels.descent import Moved, Moving
from engine.kernels.inner_loop import Room, Told
from engine.kernels.latest import Mark, is_same, marks
from engine.kernels.network import EVERYTHING, Theta, room_for
from engine.kernels.plan import named
from engine.kernels.products import rounded_up
from engine.kernels.row_by_row import one_after_the_other
from engine.kernels.slopes import DENSE, IDS, MARKS, NUMBERS, WEIGHTS, Tables
from engine.kernels.teaching import Adapted, Said, take_steps
from engine.learners.training import FIRST, SECOND, Pace, Slope, Trained
from engine.types import Batch, Episodes, Float32, Int64, Params

if TYPE_CHECKING:
    from engine.kernels.kernel import MLPTheta


class MLPTraining:
    """An `InTraining` of a multilayer perceptron, its linear model and its tables."""

    def __init__(self, theta: MLPTheta, trained: Trained) -> None:
        self.theta, self.was, self.taken, self.plan = theta, trained, trained.taken, theta.kernel.plan
        self.ended: list[Mark] | None = None
        body, linear = theta.theta.body, self.plan.whole.linear
        second = {**_moments(SECOND, trained), **trained.squares}
        vectors = _moments(FIRST, trained), second, trained.means
        self.moved = Moved(
            theta=Theta(body, body, theta.theta.forward),
            split=linear if linear >= 0 else self.plan.body.size,
            beside=Moving(*(self.plan.body.of(values) for values in vectors)),
            front=theta.front,
            sums=self._sums(),
            gradient=np.zeros_like(body),
            tables=no_slopes(theta),
        )
        self.owned, self.room = self.plan.owned, self._room(0)
        self.nobody = self._nobody()

    def go_on(self, theta: MLPTheta, trained: Trained) -> None:
        """Begin where it ended, by its own vectors; tables and their sums are others."""
        self.theta, self.was, self.ended = theta, trained, None
        self.moved = self.moved._replace(front=theta.front, sums=self._sums())

    def steps(self, labels: Batch, episodes: Episodes | None, share: float, pace: Pace) -> list[Slope]:
        """Take steps, as `engine.learners.training.InTraining` says."""
        self.ended = None
        each = labels.weight / labels.weight.sum(1, keepdim=True).clamp(min=1)
        taught = self._told(*present(labels._replace(weight=each)))
        judging, adapted = self._judging(episodes, share)
        self._make_room(taught, judging)
        steps, judged = len(taught.ends) - 1, bool(np.diff(judging.ends).any())
        said = Said(np.zeros(steps), np.zeros(steps), np.zeros((len(judging.ends) - 1, 2)))
        self.taken = take_steps(
            self.plan.whole, self.moved, pace, self.taken, not self.was.means and self.taken == self.was.taken,
            taught, judging, adapted, self.room, said,
        )  # fmt: skip
        slopes = [
            Slope(loss, math.nan, norm) for loss, norm in zip(*map(np.ndarray.tolist, said[:2]), strict=True)
        ]
        if episodes is not None:
            before, after = said.judged.sum(0) / share if judged else (math.nan, math.nan)
            slopes[0] = Slope(float(before), float(after), slopes[0].norm)
        return slopes

    def trained(self) -> Trained:
        """Where it ended; tables are those that it moved."""
        if self.taken == self.was.taken:
            return self.was
        body, first, second, mean = map(self.plan.body.named, (self.moved.theta.body, *self.moved.beside))
        by_adam = [name for name in body if name not in self.was.squares]
        moments = {
            f"{part}:{name}": of[name] for part, of in ((FIRST, first), (SECOND, second)) for name in by_adam
        }
        linear = {name: value for name, value in second.items() if name in self.was.squares}
        tables, squares = (
            named(values, self.theta.tables) for values in (self.moved.front.tables, self.moved.sums)
        )
        found = Trained(
            {**self.was.params, **body, **tables},
            {**self.was.squares, **linear, **squares},
            mean,
            moments,
            self.taken,
        )
        self.ended = self._marks(found)
        return found

    def ended_as(self, trained: Trained) -> bool:
        """Whether it is at rest where this is, of which nothing was changed since."""
        is_at_rest = self.ended is not None and self.taken == trained.taken
        return is_at_rest and is_same(self._marks(trained), self.ended or ())

    def _marks(self, trained: Trained) -> list[Mark]:
        """All that is moved."""
        params, squares, means, moments, _ = trained
        beside = (part[name] for part in (squares, means, moments) for name in sorted(part))
        return marks([*map(params.__getitem__, (*self.plan.body.shapes, *self.theta.tables)), *beside])

    def _sums(self) -> Float32:
        return one_after_the_other([self.was.squares[name].detach() for name in self.theta.tables]).copy()

    def _told(self, x: Float32, y: Float32, weight: Float32, ends: Int64) -> Told:
        return Told(x, *self.theta.counted(y, weight), ends)

    def _judging(self, episodes: Episodes | None, share: float) -> tuple[Told, Adapted]:
        """Query sets, which weigh a share in all, and what their tasks adapted, from theta as it stands."""
        if episodes is None:
            return self.nobody
        self.theta.theta.own[:] = self.moved.theta.body[self.owned]
        phi = self.theta.adapt(*present(episodes.support))
        x, y, weight, ends = present(episodes.query)
        share /= max(int((np.diff(ends) > 0).sum()), 1)
        return self._told(x, y, weight * np.float32(share), ends), self.nobody[1]._replace(phi=phi)

    def _nobody(self) -> tuple[Told, Adapted]:
        """No episodes."""
        plan, none = self.plan, np.zeros(0, np.float32)
        places = self.owned[plan.own.places]
        told = Told(none[:, None], none, none, np.zeros(1, np.int64))
        return told, Adapted(none[:, None], places, plan.network.owns == EVERYTHING)

    def _make_room(self, *told: Told) -> None:
        """Make room for the examples of the task that has most, and for the rows of tables that a step names."""
        each = [int(np.diff(one.ends).max(initial=0)) for one in told]
        if max(each) > self.room.most:
            self.room = self._room(max(each))
        tables = room_for_touched(self.moved.tables, each[0] + len(told[1].y))
        self.moved = self.moved._replace(tables=tables)

    def _room(self, most: int) -> Room:
        net, size, forward = self.plan.whole, len(self.moved.gradient), len(self.moved.theta.forward)
        return Room(
            most,
            np.zeros(room_for(net.layers, net.widest, net.outputs, most), np.float32),
            np.zeros(2 * size + forward, np.float32),
            *(
                np.zeros((most, width), np.float32)
                for width in (self.theta.kernel.inputs, rounded_up(net.numbers), net.outputs)
            ),
        )


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
