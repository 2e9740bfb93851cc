"""Any drift detector of river as a detector of tasks.

River's detectors are objects whose only export is pickle, which a row must never hold. So the row keeps
the losses since the last alarm, at most `window` of them, and the detector is rebuilt from these at every
label: right for any detector and pure, at `window` updates a label. For comparisons, not for speed.
"""

from __future__ import annotations

from dataclasses import dataclass
from inspect import signature
from typing import Any

import numpy as np
from river import base, drift

from engine.types import Bool, EngineError, Float64

KNOWN = ("ADWIN", "KSWIN", "PageHinkley")
"""Those that are worth a comparison."""


@dataclass(frozen=True)
class River:
    """`River("ADWIN", (("delta", 0.001),))`; state is a count and the losses since the last alarm.

    Raises:
        EngineError: no such detector is fed losses, it does not take these options, or it draws random numbers
            without a seed.

    """

    name: str
    options: tuple[tuple[str, Any], ...] = ()
    window: int = 256

    def __post_init__(self) -> None:
        kind = getattr(drift, self.name, None)
        if not isinstance(kind, type) or not issubclass(kind, base.DriftDetector):
            binary = self.name in drift.binary.__all__
            why = "is fed whether a prediction was right, and here losses are" if binary else "is none"
            raise EngineError(f"detector {self.name!r} of river {why}; name one of {', '.join(KNOWN)}")
        if self.window < 1:
            raise EngineError(f"window must be at least 1 loss, got {self.window}")
        if "seed" in signature(kind).parameters and dict(self.options).get("seed") is None:
            raise EngineError(
                f"detector {self.name!r} of river draws random numbers, and a replay would draw others; "
                "give it a seed among its options: seed, 1"
            )
        try:
            self.make()
        except (TypeError, ValueError) as error:
            raise EngineError(
                f"detector {self.name!r} of river does not take {dict(self.options)} ({error}); "
                f"it takes {', '.join(signature(kind).parameters)}"
            ) from None

    def make(self) -> Any:
        """A fresh detector of river's."""
        return getattr(drift, self.name)(**dict(self.options))

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
        if not 0 <= state[0] <= self.window:
            raise EngineError(
                f"a detector's state counts {state[0]:g} losses of at most {self.window}; run `reptide rebuild`"
            )
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
