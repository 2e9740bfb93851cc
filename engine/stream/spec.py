"""StreamSpec: a problem, and what only a stream of its tasks has. Row layouts are derived from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from engine.detectors.detectors import Detector, PageHinkley
from engine.features.columns import Column, Cyclic, Numeric
from engine.problem import Problem
from engine.targets import Regression
from engine.types import EngineError


@dataclass(frozen=True)
class Memory:
    """What one task remembers beside `Problem.support` examples to adapt on, and so what its row costs.

    `balanced` drops from the most frequent class first and weighs the inner loss back to the class counts. At most
    `pending` observations wait for a label, for at most `ttl_s` seconds of event time. In `precision` "half" numbers
    are rounded when they come, to eight significant bits (`engine.stream.rounding`), but for the fields `exact`.
    """

    balanced: bool = True
    pending: int = 16
    ttl_s: float = 86_400.0
    precision: Literal["single", "half"] = "single"
    exact: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.pending < 1 or not self.ttl_s > 0:
            raise EngineError(f"pending and ttl_s must be positive, got {self}")
        if self.precision not in ("single", "half"):
            raise EngineError(f"precision must be 'single' or 'half', got {self.precision!r}")


@dataclass(frozen=True)
class Policy:
    """When a task adapts: at its labels 1, 2, 4 and 8, then at every multiple of `every`; and on an alarm.

    An alarm cuts the support set to the last `recent` labels; then `refractory` labels pass without one.
    """

    every: int = 16
    recent: int = 16
    refractory: int = 32

    def __post_init__(self) -> None:
        if self.every < 1 or self.recent < 0 or self.refractory < 0:
            raise EngineError(f"every must be positive, recent and refractory not negative, got {self}")


@dataclass(frozen=True)
class StreamSpec:
    """The tasks of a stream: the problem that they share, what each remembers, and when it adapts."""

    problem: Problem
    memory: Memory = field(default_factory=Memory)
    policy: Policy = field(default_factory=Policy)
    detector: Detector = field(default_factory=PageHinkley)
    share: float = 0.0
    """Fixed share of the hedge (Herbster and Warmuth 1998); 0 keeps the bound as stated."""
    topics: int = 1
    """Input topics that events come from."""

    def __post_init__(self) -> None:
        if self.share and isinstance(self.problem.target, Regression):
            raise EngineError("share: fixed share is for classes; leave it at 0 for a regression")
        if not 0 <= self.share < 1 or self.topics < 1:
            raise EngineError(
                f"share must be from 0 to below 1 and topics at least 1, got {self.share} and {self.topics}"
            )
        numbers = sorted({column.name for column in self.problem.features.columns if _is_number(column)})
        if unknown := [name for name in self.memory.exact if name not in numbers]:
            raise EngineError(f"memory.exact: {unknown[0]!r} is not one of the numbers {numbers}")

    @property
    def slots(self) -> int:
        """Support slots of a row: enough to read again what the last adaptation read (see `engine.stream.table`)."""
        return self.problem.support + self.policy.every

    def is_rounded(self, column: Column) -> bool:
        """Whether what is remembered of a column is rounded."""
        is_exact = self.memory.precision == "single" or column.name in self.memory.exact
        return _is_number(column) and not is_exact


def _is_number(column: Column) -> bool:
    """Whether a column is numbers, of which a little more or less says the same; another's own may be ids."""
    return isinstance(column, Numeric | Cyclic)
