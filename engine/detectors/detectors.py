"""Drift detectors as a few numbers a task, so that they live in the task's row and run over arrays.

A detector is fed the adapted model's loss at each label and answers with an alarm. State that is all
zero is a fresh detector. `PageHinkley` (Page 1954, Biometrika 41) equals river's bit for bit.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np

from engine.compiled import compiled, fill
from engine.types import Bool, EngineError, Float64

NEVER, PERIODIC, PAGE_HINKLEY, EXTERNAL = 0, 1, 2, 3
UP, DOWN, BOTH = 0, 1, 2
Parameters = tuple[float, float, float, float, float]

MODES = {"up": UP, "down": DOWN, "both": BOTH}


@runtime_checkable
class Detector(Protocol):
    """What a stream spec may name: any class with these two. It keeps nothing: all that it knows is in the state."""

    @property
    def width(self) -> int:
        """How many float64 numbers of state a task needs, at least 1; zeros are a fresh detector."""
        ...

    def update(self, state: Float64, losses: Float64) -> Bool:
        """Feed one loss [U] to each of U tasks; changes state [U, width] in place, returns alarms [U]."""
        ...


class InScan(NamedTuple):
    """How `step` runs a detector."""

    kind: int
    parameters: Parameters = (0.0, 0.0, 0.0, 0.0, 0.0)


CALLED = InScan(EXTERNAL)
"""Not at all: its `update` is called, once a label."""


@compiled
def step(kind: int, parameters: Parameters, state: Float64, loss: float) -> bool:
    """Feed one loss to one task's state [width]; true on an alarm, after which the state is fresh again."""
    if kind == PERIODIC:
        state[0] += 1.0
        if state[0] >= parameters[0]:
            state[0] = 0.0
            return True
        return False
    if kind != PAGE_HINKLEY:
        return False
    min_instances, delta, threshold, alpha, mode = parameters
    n = state[0] + 1.0
    fresh = n == 1.0
    mean = state[1] + (1.0 / n) * (loss - state[1])
    deviation = loss - mean
    increase = alpha * state[2] + deviation - delta
    decrease = alpha * state[3] + deviation + delta
    lowest = increase if fresh or increase < state[4] else state[4]
    highest = max(decrease, -1.0) if fresh else max(decrease, state[5])
    state[0], state[1], state[2], state[3], state[4], state[5] = n, mean, increase, decrease, lowest, highest
    up = mode != DOWN and increase - lowest > threshold
    down = mode != UP and highest - decrease > threshold
    if n >= min_instances and (up or down):
        fill(state, 0.0)
        return True
    return False


@compiled
def step_many(
    kind: int,
    parameters: Parameters,
    state: Float64,
    losses: Float64,
    alarms: Bool,
) -> None:
    """`step` for each of U tasks."""
    for u in range(len(losses)):
        alarms[u] = step(kind, parameters, state[u], losses[u])


class Compiled(ABC):
    """A detector of ours, which the compiled scan runs itself, with no call of `update`."""

    width: ClassVar[int]

    @property
    @abstractmethod
    def in_scan(self) -> InScan:
        """What `step` is given."""

    def update(self, state: Float64, losses: Float64) -> Bool:
        """Feed one loss to each of U tasks; changes state [U, width] in place, returns alarms [U]."""
        alarms = np.zeros(len(losses), np.bool_)
        step_many(*self.in_scan, state, losses, alarms)
        return alarms


def in_scan(detector: Detector) -> InScan:
    """How the scan runs a detector."""
    return detector.in_scan if isinstance(detector, Compiled) else CALLED


@dataclass(frozen=True)
class PageHinkley(Compiled):
    """Page-Hinkley on the loss; only `up` makes sense for a task that learns, whose loss is meant to fall.

    A score that exceeds `threshold` after `min_instances` labels raises the alarm; `delta` is the
    tolerated change, `alpha` the forgetting of the score.
    """

    min_instances: int = 30
    delta: float = 0.005
    threshold: float = 50.0
    alpha: float = 0.9999
    mode: Literal["up", "down", "both"] = "up"

    width: ClassVar[int] = 6

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise EngineError(f"mode must be one of {sorted(MODES)}, got {self.mode!r}")

    @property
    def in_scan(self) -> InScan:
        """What `step` is given."""
        mode = float(MODES[self.mode])
        return InScan(PAGE_HINKLEY, (float(self.min_instances), self.delta, self.threshold, self.alpha, mode))


@dataclass(frozen=True)
class Periodic(Compiled):
    """An alarm at every `every`-th label: the baseline a detector has to beat."""

    every: int = 500

    width: ClassVar[int] = 1

    @property
    def in_scan(self) -> InScan:
        """What `step` is given."""
        return InScan(PERIODIC, (float(self.every), 0.0, 0.0, 0.0, 0.0))


@dataclass(frozen=True)
class Never(Compiled):
    """No alarm, ever: the other baseline."""

    width: ClassVar[int] = 1

    @property
    def in_scan(self) -> InScan:
        """What `step` is given."""
        return InScan(NEVER)
