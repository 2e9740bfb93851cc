"""What a learner is: how a task adapts, and how it predicts once it has.

A learner is pure and knows nothing of streams: the same object serves the fold and the outer loop.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from engine.types import Batch, Fast, Params


class Learner(Protocol):
    """Pure; leading axis U = tasks. The support set may be empty: such a task predicts with theta."""

    def init(self, seed: int) -> Params:
        """Theta freshly initialised: every parameter and buffer of the model."""
        ...

    def adapt(self, meta: Params, support: Batch) -> Fast:
        """Fast parameters of U tasks from their support sets."""
        ...

    def predict(self, meta: Params, fast: Fast, x: Tensor) -> Tensor:
        """Outputs [U, N, C] of U tasks for x [U, N, W], before softmax or clipping."""
        ...

    def shared(self, meta: Params, x: Tensor) -> Tensor:
        """Outputs [N, C] of theta itself, unadapted, for x [N, W]."""
        ...

    @property
    def fast_shapes(self) -> Mapping[str, torch.Size]:
        """Shape of each of one task's fast parameters; fixes how they are laid out in a row."""
        ...


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
