"""What theta, and a task's own model, put out for the rows of a fold: of each the same bits whatever lies beside it.

Our own networks run row by row in a compiled loop (`engine.kernels.row_by_row`); any other, and any on an
accelerator, in full padded blocks of tensors of one shape.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from engine.batches import blocks
from engine.kernels.row_by_row import RowTheta
from engine.learners.base import unflatten
from engine.types import Float32, Int64, Params

AT_ONCE = 128
"""Rows of one tensor call."""


class Predictor(Protocol):
    """One version of theta, ready to predict."""

    def of_theta(self, x: Float32) -> Float32:
        """Outputs [n, C] of theta, unadapted, for stored rows x [n, W]."""
        ...

    def of_tasks(self, fast: Float32, which: Int64, x: Float32) -> Float32:
        """Outputs [n, C] for stored rows x [n, W], row i by the fast parameters fast[which[i]] of [m, F]."""
        ...


@dataclass(frozen=True)
class Rows:
    """Row by row, in the compiled loop."""

    theta: RowTheta
    unadapted: Float32
    """[1, F] theta's own values."""

    def of_theta(self, x: Float32) -> Float32:
        """Outputs by theta's own values."""
        return self.theta.outputs(self.unadapted, np.zeros(len(x), np.int64), x)

    def of_tasks(self, fast: Float32, which: Int64, x: Float32) -> Float32:
        """Outputs by each row's own."""
        return self.theta.outputs(fast, which, x)


@dataclass(frozen=True)
class Blocks:
    """In blocks of tensors, by a learner's functions, recorded."""

    shared: Callable[..., Tensor]
    predict: Callable[..., Tensor]
    theta: Params
    shapes: Mapping[str, torch.Size]
    device: str

    def of_theta(self, x: Float32) -> Float32:
        """Outputs of the learner's `shared`."""
        return self._joined(
            [self.shared(self.theta, self._block(x[part])) for part in blocks(len(x), AT_ONCE)], x
        )

    def of_tasks(self, fast: Float32, which: Int64, x: Float32) -> Float32:
        """Outputs of the learner's `predict`, each row as a task."""
        outputs = []
        for part in blocks(len(x), AT_ONCE):
            own = unflatten(self.shapes, self._block(fast[which[part]]))
            outputs.append(self.predict(self.theta, own, self._block(x[part]).unsqueeze(1)).squeeze(1))
        return self._joined(outputs, x)

    def _block(self, values: Float32) -> Tensor:
        """Values [n, ...] as a full block on the device, the first repeated."""
        block = np.empty((AT_ONCE, *values.shape[1:]), np.float32)
        block[: len(values)] = values
        block[len(values) :] = values[:1]
        return torch.from_numpy(block).to(self.device)

    def _joined(self, outputs: list[Tensor], x: Float32) -> Float32:
        joined: Float32 = torch.cat(outputs).cpu().numpy()
        return joined[: len(x)]
