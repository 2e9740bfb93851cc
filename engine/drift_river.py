"""Any drift detector of river as a detector of tasks.

River's detectors are objects whose only export is pickle, which a row must never hold. So the row keeps
the losses since the last alarm, at most `window` of them, and the detector is rebuilt from these at every
label: right for any detector and pure, at `window` updates a label. For comparisons, not for speed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from river import drift

from engine.drift import EXTERNAL, Parameters
from engine.types import Bool, EngineError, Float64


@dataclass(frozen=True)
class River:
    """`River("ADWIN", (("delta", 0.001),))`; state is a count and the losses since the last alarm."""

    name: str
    options: tuple[tuple[str, Any], ...] = ()
    window: int = 256

    kind: ClassVar[int] = EXTERNAL
    parameters: ClassVar[Parameters] = (0.0, 0.0, 0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        if not hasattr(drift, self.name) and not hasattr(drift.binary, self.name):
            raise EngineError(f"river.drift has no detector {self.name!r}")

    def make(self) -> Any:
        """A fresh detector of river's."""
        module = drift if hasattr(drift, self.name) else drift.binary
        return getattr(module, self.name)(**dict(self.options))

    @property
    def width(self) -> int:
        """How many float64 numbers of state a task needs."""
        return 1 + self.window

    def update(self, state: Float64, losses: Float64) -> Bool:
        """Feed one loss to each of U tasks; changes state [U, width] in place, returns alarms [U]."""
        alarms = np.zeros(len(losses), np.bool_)
        for u, loss in enumerate(losses):
            alarms[u] = self._update_one(state[u], float(loss))
        return alarms

    def _update_one(self, state: Float64, loss: float) -> bool:
        count = int(state[0])
        if count == self.window:
            state[1:-1] = state[2:].copy()
            count -= 1
        state[1 + count] = loss
        state[0] = count + 1
        detector = self.make()
        for value in state[1 : 2 + count].tolist():
            detector.update(value)
        if detector.drift_detected:
            state[:] = 0.0
            return True
        return False
