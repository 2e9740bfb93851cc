"""Running totals of a process, for the eye; what shows them loads no stream."""

from __future__ import annotations

from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING

from engine.types import PREDICTORS, SERVED, THETA

if TYPE_CHECKING:
    from streams.program.step import Step


@dataclass
class Progress:
    """Running totals of one process, for the eye."""

    events: int = 0
    rejected: int = 0
    scored: int = 0
    alarms: int = 0
    adaptations: int = 0
    version: int = 0
    until_s: float = 0.0
    loss_sums: list[float] = field(default_factory=lambda: [0.0] * len(PREDICTORS))
    started: float = field(default_factory=perf_counter)
    seconds: float = 0.0
    """Wall time from the start to the end of the last batch."""

    def add(self, step: Step) -> None:
        """Count one batch."""
        self.events += step.events
        self.rejected += step.rejected
        self.scored += step.scored
        self.alarms += step.alarms
        self.adaptations += step.adaptations
        self.version = step.version
        self.until_s = max(self.until_s, step.until_s)
        self.loss_sums = [a + b for a, b in zip(self.loss_sums, step.loss_sums, strict=True)]
        self.seconds = perf_counter() - self.started

    @property
    def lift(self) -> float:
        """Mean loss of theta minus mean loss as served."""
        return (self.loss_sums[THETA] - self.loss_sums[SERVED]) / max(self.scored, 1)
