"""One version of theta as folds take it, prepared once: a fold may be of a single event."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch

from engine.compiled import checked_for
from engine.learners.base import ThetaRows, flatten, theta_rows
from engine.learners.gradient import unmoved
from engine.stream import scan_arrays
from engine.stream.predictions import ANSWERS, Answers
from engine.stream.predictors import Blocks, Predictor, Rows
from engine.stream.rules import version_of
from engine.types import Batch, EngineError, Float32, Meta

if TYPE_CHECKING:
    from engine.stream.fold import Engine


class Prepared:
    """What a fold needs of a version of theta; its parameters must stay as they are."""

    def __init__(self, engine: Engine, meta: Meta) -> None:
        self.engine, self.meta = engine, meta
        self.version: scan_arrays.Version = version_of(engine.rules, meta)
        self.calibration = np.array(meta.calibration, np.float32)
        if len(self.calibration) not in (0, 1, 1 + engine.rules.outputs):
            raise EngineError(
                f"theta {meta.version} has a calibration of {len(self.calibration)} numbers, expected none, a scale, "
                f"or a scale and {engine.rules.outputs} biases; use a theta that was made for this problem"
            )
        self.unmoved = unmoved(meta.params)
        """Whether what is adapted is theta."""

    @cached_property
    def unadapted(self) -> Float32:
        """Theta's own values as the fast parameters [1, F] of a task."""
        if self.inner_loop is not None:
            x = np.empty((0, self.engine.spec.problem.width), np.float32)
            return self.inner_loop.adapt(x, x[:, 0], x[:, 0], np.zeros(2, np.int64))
        y = torch.zeros(1, 0, device=self.engine.device)
        none = Batch(y.new_zeros(1, 0, self.engine.spec.problem.width), y, y)
        values: Float32 = flatten(self.engine.learner.adapt(self.meta.params, none)).cpu().numpy()
        return values

    @cached_property
    def nothing_found(self) -> Float32:
        """Fast parameters [0, F] of adaptations found ahead, where there were none."""
        return np.empty((0, self.unadapted.shape[1]), np.float32)

    @cached_property
    def inner_loop(self) -> ThetaRows | None:
        """What adapts by it task by task; None where blocks of tensors do."""
        return theta_rows(self.engine.learner, self.meta.params)

    @cached_property
    def predictor(self) -> Predictor:
        """What predicts by it."""
        engine, params = self.engine, self.meta.params
        if engine.network is not None:
            theta = engine.network.of(params)
            return Rows(
                checked_for(ANSWERS, Answers(theta, self.unadapted[0], not self.unmoved, self.calibration))
            )
        return Blocks(
            engine.predict_shared, engine.predict_adapted, params, engine.learner.fast_shapes, engine.device,
            self.calibration, not self.unmoved,
        )  # fmt: skip
