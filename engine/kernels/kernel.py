"""A gradient learner's inner loop without tensors, where its network is one that the kernels know.

One task costs what each of ten thousand does, and its bits depend on nothing but theta and its own examples: there
are no blocks to fill, and no graphs to record.
"""

from __future__ import annotations

from copy import copy
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from engine.compiled import IS_PYTHON
from engine.kernels.inner_loop import Steps, adapted, fixed_part
from engine.kernels.latest import Latest
from engine.kernels.network import CHUNK, EVERYTHING, HEAD, Rows, Theta, room_for
from engine.kernels.plan import Plan, plan_of
from engine.kernels.products import rounded_up
from engine.kernels.row_by_row import RowByRow, row_by_row
from engine.learners.base import LABEL_MEAN, LABEL_STD, L, Learner, TakesSteps, kernel_of
from engine.learners.gradient import GradientLearner
from engine.problem import Problem
from engine.traced import is_recording
from engine.types import EngineError, Float32, Int64, Params


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


class MLPKernel:
    """A `Kernel` of a multilayer perceptron, with or without a linear model beside it."""

    def __init__(self, learner: TakesSteps, plan: Plan, front: RowByRow) -> None:
        self.plan, self.front, self.inner, self.sizes = plan, front, learner.problem.inner, learner.sizes
        self.inputs = rounded_up(front.shape.width)
        self.fixed = {EVERYTHING: 0, HEAD: rounded_up(plan.widths[-1])}.get(
            plan.network.owns, rounded_up(plan.widths[0])
        )
        self._latest = Latest(partial(MLPTheta, self))

    def knows(self, *values: Tensor) -> bool:
        """Whether it can read these: float32, in memory, and not being recorded."""
        return not is_recording() and all(
            value.dtype == torch.float32 and value.device.type == "cpu" for value in values
        )

    def of(self, params: Params) -> MLPTheta:
        """One version of theta; the latest is kept, as long as nothing of it is changed."""
        return self._latest.of(params)

    def room(self, rows: int) -> Float32:
        """Room for passes over so many rows."""
        net = self.plan.network
        return np.zeros(room_for(net.layers, net.widest, net.outputs, rows), np.float32)


class MLPTheta:
    """One version of theta, as `ThetaRows`."""

    def __init__(self, kernel: MLPKernel, params: Params) -> None:
        self.kernel = kernel
        plan, inner, sizes = kernel.plan, kernel.inner, kernel.sizes(params)
        self.front = kernel.front.of(params)
        self.theta = Theta(plan.own.of(params), plan.body.of(params), plan.forward(params))
        each = torch.as_tensor(sizes, dtype=torch.float32).detach().expand(1, len(plan.own.places))
        self.steps = Steps(
            inner.steps, plan.own.padded(each[0].numpy()), float(inner.clip), float(inner.proximal)
        )
        self.unit = None
        if not plan.network.named:
            self.unit = tuple(np.float32(params[name].item()) for name in (LABEL_MEAN, LABEL_STD))

    def adapt(self, x: Float32, y: Float32, weight: Float32, ends: Int64) -> Float32:
        """Fast parameters [T, F]; task t's examples are ends[t] to ends[t + 1] of x [M, W], y [M], weight [M] > 0."""
        plan = self.kernel.plan
        out = np.empty((len(ends) - 1, len(plan.own.places)), np.float32)
        net, most = plan.network, int(np.diff(ends).max(initial=1))
        if self.unit:
            y = (y - self.unit[0]) / self.unit[1]
        elif not ((y >= 0) & (y < net.named)).all():
            if not (y >= 0).all():
                raise EngineError(
                    f"labels of classes are 0 or more, got {y[~(y >= 0)][0]}; leave other examples out"
                )
            # A class that another process has named counts for nothing here.
            y, weight = np.minimum(y, net.named - 1), weight * (y < net.named)
        own = np.zeros(2 * plan.own.size + len(self.theta.forward), np.float32)
        adapted(
            net, self.theta, self._read(x), y, weight, ends, self.steps, plan.own.places, most,
            self.kernel.room(most), own, out,
        )  # fmt: skip
        return out

    def _read(self, x: Float32) -> Rows:
        """What the network reads of examples x [M, W], and what of its activations no step changes."""
        net, width = self.kernel.plan.network, self.kernel.inputs
        dense, wide = self.front.inputs(x, width)
        numbers = np.zeros((len(x), rounded_up(net.numbers)), np.float32)
        numbers[:, : net.numbers] = dense[:, : net.numbers]
        fixed = np.zeros(len(x) * self.kernel.fixed, np.float32)
        if net.owns != EVERYTHING:
            fixed_part(net, self.theta, dense.ravel(), len(x), self.kernel.room(CHUNK), fixed)
        return Rows(dense.ravel(), numbers.ravel(), wide.ravel(), fixed)
