"""What a learner is: how a task adapts, and how it predicts once it has.

A learner is pure and knows nothing of streams: the same object serves the fold and the outer loop. What only some
can do has a protocol of its own (`TakesSteps`, `Embeds`, `PredictsByModel`), and nobody asks for a class. Ours are
derived from `engine.learners.embedding.EmbeddingLearner`, which leaves two methods to write, or take gradient steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from typing import Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from engine.learners.training import InTraining, Trained
from engine.problem import Problem
from engine.targets import Classification
from engine.types import Batch, Bool, Fast, Float32, Float64, Int64, Params

LABEL_MEAN, LABEL_STD = "0.label_mean", "0.label_std"
"""Theta's buffers that hold what the labels of a regression are standardised by."""


class Learner(Protocol):
    """Pure; leading axis U = tasks. The support set may be empty: such a task predicts with theta."""

    @property
    def problem(self) -> Problem:
        """What the tasks share that it is for."""
        ...

    @property
    def fast_shapes(self) -> Mapping[str, torch.Size]:
        """Shape of each of one task's fast parameters; fixes how they are laid out in a row."""
        ...

    @property
    def learned(self) -> tuple[str, ...]:
        """Names of what an outer loop may move: every parameter of theta, no buffer."""
        ...

    def init(self, seed: int) -> Params:
        """Theta freshly initialised: every parameter and buffer of the model."""
        ...

    def adapt(self, meta: Params, support: Batch) -> Fast:
        """Fast parameters of U tasks from their support sets; no gradient is kept."""
        ...

    def adapt_differentiably(self, meta: Params, support: Batch, *, second_order: bool) -> Fast:
        """The same as a function of `meta`, for an outer rule; without its second derivatives if not wanted.

        A learner that takes no gradient steps has no second derivatives to leave out.
        """
        ...

    def predict(self, meta: Params, fast: Fast, x: Tensor) -> Tensor:
        """Outputs [U, N, C] of U tasks for x [U, N, W], before softmax or clipping."""
        ...

    def shared(self, meta: Params, x: Tensor) -> Tensor:
        """Outputs [N, C] of theta itself, unadapted, for x [N, W]."""
        ...


@runtime_checkable
class TakesSteps(Learner, Protocol):
    """A learner that adapts by the gradient steps of `problem.inner`, which some outer rules are made of."""

    def step(self, meta: Params, fast: Fast, batch: Batch) -> Fast:
        """Take one step of U tasks, on whichever parameters are in `fast`."""
        ...

    def sizes(self, meta: Params) -> float | Tensor:
        """Step sizes of what adapts: one for all, or [1, F]."""
        ...


@runtime_checkable
class Embeds(Learner, Protocol):
    """A learner that embeds examples by theta alone, and adapts and predicts by nothing else of them."""

    def embed(self, meta: Params, x: Tensor) -> Tensor:
        """Embed stored rows [U, N, W] as [U, N, width]."""
        ...

    def of_embeddings(self) -> Learner:
        """The same learner for x that is embedded already."""
        ...


@runtime_checkable
class PredictsByModel(Learner, Protocol):
    """A learner that may predict by `problem.model()` alone, with fast parameters in the place of theta's."""

    @property
    def predicts_by_model(self) -> bool:
        """Whether it does, so that the model may be run in another way."""
        ...


class ThetaRows(Protocol):
    """One version of theta, as a kernel computes with it: arrays in, arrays out, one task after the other.

    The bits of a task do not depend on how many others are beside it, so nothing is padded.
    """

    def adapt(self, x: Float32, y: Float32, weight: Float32, ends: Int64) -> Float32:
        """Fast parameters [T, F]; task t's examples are ends[t] to ends[t + 1] of x [M, W], y [M], weight [M] > 0."""
        ...

    def losses(self, support: Batch, query: Batch, sizes: Sequence[float] | None = None) -> Float64:
        """What the query sets of U tasks cost after adaptation [S, U], by steps of each size, or of theta's own."""
        ...

    def moves_apart(self, batches: Sequence[Batch], tasks: Bool, steps: int) -> Params:
        """Sum over tasks [U], those that are true, of theta minus where it ends; of every learned parameter, by name.

        Each takes that many clipped steps on all of theta, step k on batch k mod P. Step sizes are not learned.
        """
        ...


class Kernel(Protocol):
    """What computes for a learner without tensors."""

    def knows(self, *values: Tensor) -> bool:
        """Whether it can read these: float32, in memory, and not being recorded."""
        ...

    def of(self, params: Params) -> ThetaRows:
        """One version of theta, whose values must not be changed as long as it is used."""
        ...

    def in_training(self, trained: Trained) -> InTraining | None:
        """Theta, to be trained in place; None where not all of it is what compiled code moves."""
        ...


L = TypeVar("L", bound=Learner)


def kernel_of(learner: Learner) -> Kernel | None:
    """The kernel of a learner that has one."""
    found: Kernel | None = getattr(learner, "kernel", None)
    return found


def theta_rows(learner: Learner, params: Params) -> ThetaRows | None:
    """A version of theta, as the kernel of a learner computes with it; None where there is none that knows it."""
    kernel = kernel_of(learner)
    return kernel.of(params) if kernel is not None and kernel.knows(*params.values()) else None


def without_kernel(learner: L) -> L:
    """The same learner by tensors alone, as it would adapt with any network."""
    if kernel_of(learner) is None:
        return learner
    twin = copy(learner)
    twin.kernel = None  # type: ignore[attr-defined]
    return twin


def losses(learner: Learner, meta: Params, fast: Fast, batch: Batch) -> Tensor:
    """Weighted loss [U] of U tasks on the examples of a batch."""
    outputs = learner.predict(meta, fast, batch.x)
    return (example_losses(learner.problem, meta, outputs, batch.y) * batch.weight).sum(1)


def example_losses(problem: Problem, meta: Params, outputs: Tensor, y: Tensor) -> Tensor:
    """What training descends, of each example: the loss, in theta's unit of it."""
    return problem.target.loss(outputs, y) / unit_of(problem, meta)


def unit_of(problem: Problem, meta: Params) -> Tensor | float:
    """The loss that training counts as 1: of a regression theta's variance of labels, of each version its own."""
    return 1.0 if isinstance(problem.target, Classification) else meta[LABEL_STD].square()


def below(prefix: str, params: Params) -> Params:
    """The parameters of one submodule, by their names inside it."""
    return {name.removeprefix(prefix): value for name, value in params.items() if name.startswith(prefix)}


def fast_size(learner: Learner) -> int:
    """How many numbers one task's fast parameters are."""
    return sum(shape.numel() for shape in learner.fast_shapes.values())


def flatten(fast: Fast) -> Tensor:
    """Fast parameters of U tasks as one matrix [U, F]."""
    return torch.cat([value.flatten(1) for value in fast.values()], dim=1)


def unflatten(shapes: Mapping[str, torch.Size], flat: Tensor) -> Fast:
    """The inverse of `flatten`."""
    parts = torch.split(flat, [shape.numel() for shape in shapes.values()], dim=1)
    return {name: part.reshape(-1, *shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}
