"""What became of labels: of one, and of all so far."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Learned(NamedTuple):
    """What became of a label."""

    outcome: str
    """"scored"; or "example" (learned from, but there was no prediction to score), "corrected", "repeated_label",
    "late" or "orphan"."""
    loss: float
    """As served: log loss in nats, or squared error; NaN where it was not scored."""
    alarm: bool
    """Whether it raised the drift alarm."""
    adapted: bool
    """Whether the task's own model was adapted anew."""


@dataclass
class Report:
    """What was served, scored on every label that met its prediction."""

    tasks: int
    version: int
    """Of theta."""
    outcomes: dict[str, int]
    """How many events came to what."""
    loss: dict[str, float]
    """Mean loss of each expert and as served: log loss in nats, or squared error."""

    def __str__(self) -> str:
        said = [f"{self.tasks:,} tasks, theta {self.version}"]
        said += [f"{name:>21} {count:,}" for name, count in self.outcomes.items() if count]
        said += [
            f"{f'mean loss of {name}' if name != 'served' else 'as served':>21} {loss:.4f}"
            for name, loss in self.loss.items()
        ]
        return "\n".join(said)
