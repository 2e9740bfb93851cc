"""A gradient learner's inner loop without tensors, where its network is one that the kernels know.

One task costs what each of ten thousand does, and its bits depend on nothing but theta and its own examples: there
are no blocks to fill, and no graphs to record.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from engine.batches import present
from engine.compiled import IS_PYTHON
from engine.kernels.inner_loop import Room, Steps, adapted, fixed_part
from engine.kernels.judging import Sets, judged
from engine.kernels.latest import Latest
from engine.kernels.moves import moves_apart
from engine.kernels.network import CHUNK, EVERYTHING, HEAD, Rows, Theta, room_for
from engine.kernels.plan import Plan, plan_of
from engine.kernels.products import rounded_up
from engine.kernels.row_by_row import RowByRow, inputs_of, row_by_row
from engine.kernels.training import MLPTraining
from engine.learners.base import LABEL_MEAN, LABEL_STD, L, Learner, TakesSteps, kernel_of
from engine.learners.gradient import LR, GradientLearner
from engine.learners.training import Trained
from engine.problem import Problem
from engine.traced import is_recording
from engine.types import Batch, Bool, EngineError, Float32, Float64, Int64, Params


def gradient_learner(problem: Problem) -> GradientLearner:
    """A learner that takes gradient steps, with a kernel where its network is known."""
    return with_kernel(GradientLearner(problem))


def with_kernel(learner: L) -> L:
    """The same learner with a kernel; as it is where its network is not known, or nothing is compiled."""
    front = row_by_row(learner)
    if IS_PYTHON or front is None or not isinstance(learner, TakesSteps):
        return learner
    plan = plan_of(front, learner.problem, learner.fast_shapes)
    if plan is None:
        return learner
    twin: Any = copy(learner)
    twin.kernel = MLPKernel(learner, plan, front)
    return cast(L, twin)


def rows_of(learner: Learner) -> RowByRow | None:
    """How a learner predicts row by row: as its kernel does, where it has one."""
    kernel = kernel_of(learner)
    return kernel.front if isinstance(kernel, MLPKernel) else row_by_row(learner)


def most_of(ends: Int64) -> int:
    """Of how many examples the largest of the sets is that end there, and 1 at least."""
    if len(ends) == 2:
        return max(int(ends[1] - ends[0]), 1)
    return int(np.diff(ends).max(initial=1))


class MLPKernel:
    """A `Kernel` of a multilayer perceptron, with or without a linear model beside it."""

    def __init__(self, learner: TakesSteps, plan: Plan, front: RowByRow) -> None:
        self.plan, self.front, self.inner, self.sizes = plan, front, learner.problem.inner, learner.sizes
        self.inputs = rounded_up(front.shape.width)
        self.fixed = {EVERYTHING: 0, HEAD: rounded_up(plan.widths[-1])}.get(
            plan.network.owns, rounded_up(plan.widths[0])
        )
        self._latest = Latest(partial(MLPTheta, self))
        self._training: MLPTraining | None = None

    def knows(self, *values: Tensor) -> bool:
        """Whether it can read these: float32, in memory, and not being recorded."""
        return not is_recording() and all(
            value.dtype == torch.float32 and value.device.type == "cpu" for value in values
        )

    def of(self, params: Params) -> MLPTheta:
        """One version of theta; the latest is kept, as long as nothing of it is changed."""
        return self._latest.of(params)

    def in_training(self, trained: Trained) -> MLPTraining | None:
        """Theta, to be trained in place; None where not all of it is what compiled code moves."""
        values = (*trained.params.values(), *trained.moments.values(), *trained.means.values())
        if self.inner.rates == "learned" or not self.knows(*values, *trained.squares.values()):
            return None
        last = self._training
        if last is not None and not last.ended_as(trained):
            last = None
        theta = MLPTheta(self, trained.params, None if last is None else last.theta.theta)
        theta.front = theta.front._replace(tables=theta.front.tables.copy())  # and are moved there
        if last is None:
            last = self._training = MLPTraining(theta, trained)
        else:
            last.go_on(theta, trained)
        return last

    def room(self, rows: int) -> Float32:
        """Room for passes over so many rows."""
        net = self.plan.network
        return np.zeros(room_for(net.layers, net.widest, net.outputs, rows), np.float32)


class MLPTheta:
    """One version of theta, as `ThetaRows`."""

    def __init__(self, kernel: MLPKernel, params: Params, theta: Theta | None = None) -> None:
        """`theta` is how the network's parameters lie, where somebody has them so."""
        self.kernel, self.params, plan = kernel, params, kernel.plan
        self.front = kernel.front.of(params)
        self.theta = theta or Theta(plan.own.of(params), plan.body.of(params), plan.forward(params))
        self.steps = self._steps(params)
        self.unit = None
        if not plan.network.named:
            self.unit = tuple(np.float32(params[name].item()) for name in (LABEL_MEAN, LABEL_STD))

    @property
    def tables(self) -> dict[str, torch.Size]:
        """Names and shapes of tables of buckets, in the order in which they lie."""
        return {name: self.params[name].shape for name in self.kernel.front.tables}

    def adapt(self, x: Float32, y: Float32, weight: Float32, ends: Int64) -> Float32:
        """Fast parameters [T, F]; task t's examples are ends[t] to ends[t + 1] of x [M, W], y [M], weight [M] > 0."""
        plan = self.kernel.plan
        out = np.empty((len(ends) - 1, len(plan.own.places)), np.float32)
        adapted(
            plan.network, self.theta, self.front, x, *self.counted(y, weight), ends, self.steps, plan.own.places,
            self.room(most_of(ends)), out,
        )  # fmt: skip
        return out

    def room(self, most: int) -> Room:
        """Room for passes over the examples of one task, at most so many."""
        net, kernel = self.kernel.plan.network, self.kernel
        rows = (
            np.zeros((most, width), np.float32)
            for width in (kernel.inputs, rounded_up(net.numbers), net.outputs)
        )
        return Room(most, kernel.room(most), self._own(), *rows)

    def losses(self, support: Batch, query: Batch, sizes: Sequence[float] | None = None) -> Float64:
        """What the query sets of U tasks cost after adaptation [S, U], by steps of each size, or of theta's own."""
        sets = self._sets(support), self._sets(query)
        most = max(most_of(one.ends) for one in sets)
        room, own, plan = self.kernel.room(most), self._own(), self.kernel.plan
        found = np.empty((1 if sizes is None else len(sizes), len(query.y)))
        for n, out in enumerate(found):
            steps = self.steps if sizes is None else self._steps({**self.params, LR: torch.tensor(sizes[n])})
            judged(plan.network, self.theta, *sets, steps, most, room, own, out)
        return found

    def moves_apart(self, batches: Sequence[Batch], tasks: Bool, steps: int) -> Params:
        """How far tasks move that train all of theta, as `engine.learners.base.ThetaRows` says."""
        return moves_apart(self, batches, tasks, steps)

    def counted(self, y: Float32, weight: Float32) -> tuple[Float32, Float32]:
        """Labels y [M] as the network has them, and what they weigh.

        Raises:
            EngineError: a label is none.

        """
        named = self.kernel.plan.network.named
        if self.unit:
            return (y - self.unit[0]) / self.unit[1], weight
        if np.count_nonzero((y >= 0) & (y < named)) == len(y):
            return y, weight
        if not (y >= 0).all():
            raise EngineError(
                f"labels of classes are 0 or more, got {y[~(y >= 0)][0]}; leave other examples out"
            )
        # A class that another process has named counts for nothing here.
        return np.minimum(y, named - 1), weight * (y < named)

    def _own(self) -> Float32:
        """Room for what a task owns, and its gradient; and for the hidden layers' weights."""
        return np.zeros(2 * self.kernel.plan.own.size + len(self.theta.forward), np.float32)

    def _steps(self, params: Params) -> Steps:
        """How a task takes its steps; of size 0 it takes none."""
        own, inner = self.kernel.plan.own, self.kernel.inner
        each = torch.as_tensor(self.kernel.sizes(params), dtype=torch.float32).detach()
        sizes = own.padded(each.expand(1, len(own.places))[0].numpy())
        return Steps(inner.steps if sizes.any() else 0, sizes, float(inner.clip), float(inner.proximal))

    def _sets(self, batch: Batch) -> Sets:
        x, y, weight, ends = present(batch)
        return Sets(self._read(x), *self.counted(y, weight), ends)

    def _read(self, x: Float32) -> Rows:
        """What the network reads of examples x [M, W], and what of its activations no step changes."""
        net, plan = self.kernel.plan.network, self.kernel
        rows, fixed = self.read(x), np.zeros(len(x) * plan.fixed, np.float32)
        if net.owns != EVERYTHING:
            fixed_part(net, self.theta, rows.x, len(x), self.kernel.room(CHUNK), fixed)
        return rows._replace(fixed=fixed)

    def read(self, x: Float32) -> Rows:
        """What the network reads of examples x [M, W]."""
        net, width = self.kernel.plan.network, self.kernel.inputs
        dense, wide = inputs_of(self.front, x, width)
        numbers = np.zeros((len(x), rounded_up(net.numbers)), np.float32)
        numbers[:, : net.numbers] = dense[:, : net.numbers]
        return Rows(dense.ravel(), numbers.ravel(), wide.ravel(), np.zeros(0, np.float32))
