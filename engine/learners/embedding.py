"""Learners that adapt in one pass, without gradient steps: examples are embedded, and compared or remembered.

Theta is the encoder and network of the problem, which embed an example in `width` numbers (names `0.` and `1.`),
and modules of the learner's own (`2.`). What a task leaves behind, its fast parameters, is made of embeddings,
so an example is embedded once, when the task adapts. A learner of your own is derived from `EmbeddingLearner` and
writes `fast_of` and `outputs_of`; docs/your-model.md has one.

Labels of a regression are standardised by theta's buffers on the way in, and outputs are put back in the unit of
the labels on the way out, both here: what is between knows values about 0 that differ by about 1.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import replace
from functools import cached_property
from typing import Self

import torch
from torch import Tensor, nn
from torch.func import functional_call

from engine.learners.base import LABEL_MEAN, LABEL_STD, below
from engine.problem import Problem, seeded
from engine.targets import Classification, Regression
from engine.traced import Recorded
from engine.types import Batch, EngineError, Fast, Params

STANDARD = Regression(-1.0, 1.0)
"""What a regression is to these learners inside: code and answer of a value are the value."""


class EmbeddingLearner(ABC):
    """What these learners share. A task without examples predicts with theta, by construction."""

    target: Classification | Regression
    """The classes, or `STANDARD`; `standard` is the problem with it."""

    def __init__(self, problem: Problem, width: int = 64) -> None:
        if width < 1:
            raise EngineError(
                f"width, the numbers that an example is embedded in, must be positive, got {width}"
            )
        self.problem, self.width = problem, width
        self.target = problem.target if isinstance(problem.target, Classification) else STANDARD
        self.standard = replace(problem, target=self.target)
        self._model = self._built(0).requires_grad_(False)
        self._recorded: Callable[..., Fast] = Recorded(self._adapted)

    def own_modules(self) -> nn.Module:
        """Build what theta holds beside encoder and network, freshly initialised: here nothing."""
        return nn.Module()

    @abstractmethod
    def fast_of(self, meta: Params, support: Batch) -> Fast:
        """Compute fast parameters of U tasks, each [U, ...] float32, from support x [U, S, W]; S may be 0.

        An example of weight 0 is padding and must leave no trace. Differentiable, without a branch on the values of
        tensors. Labels of a regression are standardised.
        """

    @abstractmethod
    def outputs_of(self, meta: Params, fast: Fast, x: Tensor) -> Tensor:
        """Compute outputs [U, N, C] of U tasks for x [U, N, W], before softmax; of a regression standardised."""

    @cached_property
    def fast_shapes(self) -> Mapping[str, torch.Size]:
        """Shape of each of one task's fast parameters: of those of a task without examples."""
        nothing = torch.zeros(1, 0)
        rows = Batch(torch.zeros(1, 0, self.problem.width), nothing, nothing)
        fast = self._adapted(self._model.state_dict(), rows)
        return {name: value.shape[1:] for name, value in fast.items()}

    def predict(self, meta: Params, fast: Fast, x: Tensor) -> Tensor:
        """Compute outputs [U, N, C] of U tasks for x [U, N, W], before softmax or clipping."""
        outputs = self.outputs_of(meta, fast, x)
        if isinstance(self.problem.target, Classification):
            return outputs
        return outputs * meta[LABEL_STD] + meta[LABEL_MEAN]

    def _adapted(self, meta: Params, support: Batch) -> Fast:
        if isinstance(self.problem.target, Regression):
            support = support._replace(y=(support.y - meta[LABEL_MEAN]) / meta[LABEL_STD])
        return self.fast_of(meta, support)

    @property
    def learned(self) -> tuple[str, ...]:
        """Names of what an outer loop may move: every parameter, no buffer."""
        return tuple(name for name, _ in self._model.named_parameters())

    def init(self, seed: int) -> Params:
        """Theta freshly initialised: every parameter and buffer of the model."""
        return {name: value.detach().clone() for name, value in self._built(seed).state_dict().items()}

    def unrecorded(self) -> Self:
        """The same learner for a few calls, which recording would cost more than it saves."""
        twin = copy(self)
        twin._recorded = torch.no_grad()(twin._adapted)  # noqa: SLF001
        return twin

    def adapt(self, meta: Params, support: Batch) -> Fast:
        """Fast parameters of U tasks; support x [U, S, W]. The first call of each shape is recorded."""
        return self._recorded(meta, support)

    def adapt_differentiably(self, meta: Params, support: Batch, *, second_order: bool) -> Fast:
        """The same as a function of `meta`; there are no inner steps, so no second derivatives to leave out."""
        del second_order
        return self._adapted(meta, support)

    def shared(self, meta: Params, x: Tensor) -> Tensor:
        """Compute outputs [N, C] of theta itself: of a task without examples."""
        nothing = x.new_zeros(1, 0)
        fast = self._adapted(meta, Batch(x[:0].unsqueeze(0), nothing, nothing))
        return self.predict(meta, fast, x.unsqueeze(0)).squeeze(0)

    def embed(self, meta: Params, x: Tensor) -> Tensor:
        """Embed stored rows [U, N, W] as [U, N, width], in one call for all tasks: they share the network."""
        flat = x.flatten(0, 1)
        for part in ("0.", "1."):
            flat = functional_call(self._model[int(part[0])], below(part, meta), (flat,))
        return flat.view(*x.shape[:2], self.width)

    def of_embeddings(self) -> Self:
        """The same learner for x that is embedded already [U, N, width], once for many uses."""
        twin = copy(self)
        twin.fast_shapes = self.fast_shapes  # which the twin, whose rows are embeddings, would not find
        twin.embed = lambda meta, x: x  # type: ignore[method-assign]  # noqa: ARG005
        twin._recorded = Recorded(twin._adapted)  # noqa: SLF001
        return twin

    def _built(self, seed: int) -> nn.Sequential:
        with seeded(seed):
            return nn.Sequential(*self.problem.modules(self.width), self.own_modules())
