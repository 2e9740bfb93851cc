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

from engine.kernels.row_by_row import RowByRow
from engine.learners.base import unflatten
from engine.types import Float32, Params

AT_ONCE = 128
"""Rows of one tensor call."""


class Predictor(Protocol):
    """One version of theta, ready to predict."""

    def of_theta(self, x: Float32) -> Float32:
        """Outputs [n, C] of theta, unadapted, for stored rows x [n, W]."""
        ...

    def of_tasks(self, fast: Float32, x: Float32) -> Float32:
        """Outputs [n, C] for stored rows x [n, W], each by fast parameters of its own [n, F]."""
        ...


@dataclass(frozen=True)
class Rows:
    """Row by row, in the compiled loop."""

    network: RowByRow
    numbers: Float32
    unadapted: Float32
    """[1, F] theta's own values."""

    def of_theta(self, x: Float32) -> Float32:
        """Outputs by theta's own values."""
        return self.network.outputs(self.numbers, self.unadapted, np.zeros(len(x), np.int64), x)

    def of_tasks(self, fast: Float32, x: Float32) -> Float32:
        """Outputs by each row's own."""
        return self.network.outputs(self.numbers, fast, np.arange(len(x)), x)


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
        return self._joined([self.shared(self.theta, self._block(x[part])) for part in _parts(len(x))], x)

    def of_tasks(self, fast: Float32, x: Float32) -> Float32:
        """Outputs of the learner's `predict`, each row as a task."""
        blocks = []
        for part in _parts(len(x)):
            own = unflatten(self.shapes, self._block(fast[part]))
            blocks.append(self.predict(self.theta, own, self._block(x[part]).unsqueeze(1)).squeeze(1))
        return self._joined(blocks, x)

    def _block(self, values: Float32) -> Tensor:
        """Values [n, ...] as a full block on the device, the first repeated."""
        block = np.empty((AT_ONCE, *values.shape[1:]), np.float32)
        block[: len(values)] = values
        block[len(values) :] = values[:1]
        return torch.from_numpy(block).to(self.device)

    def _joined(self, blocks: list[Tensor], x: Float32) -> Float32:
        outputs: Float32 = torch.cat(blocks).cpu().numpy()
        return outputs[: len(x)]


def _parts(count: int) -> list[slice]:
    return [slice(start, min(start + AT_ONCE, count)) for start in range(0, count, AT_ONCE)]
