"""What theta, and a task's own model, put out for the rows of a fold: of each the same bits whatever lies beside it.

Our own networks run row by row in a compiled loop (`engine.kernels.row_loop`); any other, and any on an
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
from engine.kernels.row_loop import ROOM
from engine.learners.base import unflatten
from engine.stream.predictions import Answers, Asked, predict, write_histories, write_predictions
from engine.stream.scan_arrays import OBSERVATION, Events, Rules
from engine.stream.support import ROW
from engine.stream.table import TaskTable
from engine.types import ADAPTED, THETA, EngineError, Float32, Int64, Params

AT_ONCE = 128
"""Rows of one tensor call."""


class Predictor(Protocol):
    """One version of theta, ready to predict."""

    def predict(
        self, states: TaskTable, events: Events, rules: Rules, asked: Asked, prediction: Float32
    ) -> int:
        """Write what theta and adapted models say of observations into `prediction` [N, 5, C], and histories first.

        Returns how many of them were not finite, and were replaced.

        Raises:
            EngineError: the learner's outputs are of another type or shape than one for each class.
        """
        ...


@dataclass(frozen=True)
class Rows:
    """Row by row, in the compiled loop."""

    answers: Answers

    def predict(
        self, states: TaskTable, events: Events, rules: Rules, asked: Asked, prediction: Float32
    ) -> int:
        """All in one call."""
        room = np.empty((ROOM + 1, self.answers.theta.shape.widest), np.float32)
        return predict(states.located, events, rules, asked, self.answers, room, prediction)


@dataclass(frozen=True)
class Blocks:
    """In blocks of tensors, by a learner's functions, recorded."""

    shared: Callable[..., Tensor]
    own: Callable[..., Tensor]
    theta: Params
    shapes: Mapping[str, torch.Size]
    device: str
    calibration: Float32
    moves: bool
    """Whether adapted models are others than theta."""

    def predict(
        self, states: TaskTable, events: Events, rules: Rules, asked: Asked, prediction: Float32
    ) -> int:
        """Histories, then both models' outputs, each row as a task."""
        write_histories(states.located, events, rules, asked)
        index = asked.index[events.kind[asked.index] == OBSERVATION]
        broken = 0
        if len(index) and not asked.again:
            broken += self._take(self._of_theta(events.x[index]), rules, index, THETA, prediction)
        if not self.moves:
            prediction[index, ADAPTED] = prediction[index, THETA]
        elif len(index):
            fast = states.rows["fast"][events.row[index]]
            if len(asked.serves):
                ahead = asked.serves[index] != ROW
                fast[ahead] = asked.found[asked.serves[index][ahead]]
            broken += self._take(self._of_tasks(fast, events.x[index]), rules, index, ADAPTED, prediction)
        return broken

    def _take(self, outputs: Float32, rules: Rules, index: Int64, expert: int, prediction: Float32) -> int:
        """Take outputs [n, C] as an expert's predictions of events; what is not finite is replaced and counted."""
        if outputs.shape != (len(index), rules.outputs) or outputs.dtype != np.float32:
            raise EngineError(
                f"the learner predicts {outputs.dtype} of shape {outputs.shape} for {len(index)} observations, "
                f"expected float32 of shape {(len(index), rules.outputs)}: return an output a class for each"
            )
        return write_predictions(outputs, self.calibration, rules, index, expert, prediction)

    def _of_theta(self, x: Float32) -> Float32:
        """Outputs [n, C] of theta, unadapted, for stored rows x [n, W]."""
        return self._joined(
            [self.shared(self.theta, self._block(x[part])) for part in blocks(len(x), AT_ONCE)], x
        )

    def _of_tasks(self, fast: Float32, x: Float32) -> Float32:
        """Outputs [n, C] for stored rows x [n, W], each by fast parameters [n, F]."""
        outputs = []
        for part in blocks(len(x), AT_ONCE):
            own = unflatten(self.shapes, self._block(fast[part]))
            outputs.append(self.own(self.theta, own, self._block(x[part]).unsqueeze(1)).squeeze(1))
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
