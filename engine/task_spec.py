"""TaskSpec: everything that is the same for all tasks of a stream, as one frozen value.

It says how events become tensors, what the network is, which of its parameters belong to a task, how
much each task remembers, and when it adapts. Row layouts and fingerprints are derived from it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import torch
from torch import nn

from engine.detectors.detectors import Detector, PageHinkley
from engine.features.columns import Category, Numeric
from engine.features.encoder import Features, FrontEnd
from engine.features.history import History, HistoryColumns
from engine.features.stored import StoredNumbers, stored_numbers
from engine.networks.mlp import mlp
from engine.networks.wide_deep import Linear, WideAndDeep
from engine.targets import Classification, Regression
from engine.types import EngineError

START = 0.1
"""The step size of the inner loop before one was chosen."""


NORMS = (nn.LayerNorm, nn.GroupNorm, nn.BatchNorm1d, nn.BatchNorm2d)


@dataclass(frozen=True)
class InnerLoop:
    """K gradient steps from theta on a task's support set; the gradient of each task is clipped by its norm.

    `lr` "auto" is a number in theta, which whoever trains it chooses; 0.1 until then. `rates` "learned" makes a step
    size of its own for every number that adapts, beginning at `lr`, a part of theta (Meta-SGD). `proximal` is lambda
    of a term lambda/2 |phi - theta|^2 in the inner loss, which `Implicit` needs (iMAML); 0 leaves it out.
    """

    steps: int = 5
    lr: float | Literal["auto"] = 0.1
    clip: float = 1.0
    rates: Literal["fixed", "learned"] = "fixed"
    proximal: float = 0.0

    def __post_init__(self) -> None:
        if self.steps < 0 or not 0 < self.start < math.inf or not 0 < self.clip < math.inf:
            raise EngineError(
                f"steps must not be negative, lr and clip must be positive and finite, got {self}"
            )
        if self.rates not in ("fixed", "learned") or not 0 <= self.proximal < math.inf:
            raise EngineError(
                f"rates must be 'fixed' or 'learned', proximal at least 0 and finite, got {self}"
            )
        if self.rates == "learned" and self.proximal:
            raise EngineError(
                f"where the inner loop ends does not depend on its rates if proximal holds it; use one: {self}"
            )

    @property
    def start(self) -> float:
        """The step size of a theta that was not trained."""
        return START if self.lr == "auto" else self.lr


@dataclass(frozen=True)
class Memory:
    """What one task remembers, and so what its row costs.

    `support` examples are adapted on; `balanced` drops from the most frequent class first and weighs the
    inner loss back to the class counts. At most `pending` observations wait for a label, for at most
    `ttl_s` seconds of event time.
    """

    support: int = 32
    balanced: bool = True
    pending: int = 16
    ttl_s: float = 86_400.0

    def __post_init__(self) -> None:
        if self.support < 1 or self.pending < 1 or not self.ttl_s > 0:
            raise EngineError(f"support, pending and ttl_s must be positive, got {self}")


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
class TaskSpec:
    """A stream's tasks, in one value. `network(inputs, outputs)` builds the torch module behind the encoder."""

    features: Features
    target: Classification | Regression
    network: Callable[[int, int], nn.Module] = mlp
    adapts: str = "head+norms"
    inner: InnerLoop = field(default_factory=InnerLoop)
    memory: Memory = field(default_factory=Memory)
    policy: Policy = field(default_factory=Policy)
    detector: Detector = field(default_factory=PageHinkley)
    share: float = 0.0
    """Fixed share of the hedge (Herbster and Warmuth 1998); 0 keeps the bound as stated."""
    topics: int = 1
    history: History | None = None
    """Which of the task's own past is among the features; none, where it is left out."""
    wide: bool = False
    """Whether a linear model stands beside the network, with a weight for each bucket of a category."""

    def __post_init__(self) -> None:
        if self.share and isinstance(self.target, Regression):
            raise EngineError("share: fixed share is for classes; leave it at 0 for a regression")
        if not 0 <= self.share < 1 or self.topics < 1:
            raise EngineError(
                f"share must be from 0 to below 1 and topics at least 1, got {self.share} and {self.topics}"
            )
        if self.history is not None:
            by = {c.name for c in self.features.columns if isinstance(c, Category)}
            numbers = {c.name for c in self.features.columns if isinstance(c, Numeric)}
            for names, fields, kind in (
                (self.history.by, by, "by"),
                (self.history.numbers, numbers, "numbers"),
            ):
                if unknown := [name for name in names if name not in fields]:
                    raise EngineError(f"history.{kind}: {unknown[0]!r} is not one of {sorted(fields)}")

    @property
    def history_columns(self) -> HistoryColumns:
        """Where the history lies in a stored row, if there is one."""
        kept = self.history or History()
        return HistoryColumns(
            start=self.features.width,
            outputs=self.target.outputs,
            regression=isinstance(self.target, Regression),
            by=tuple(self.features.place(name, Category) for name in kept.by),
            numbers=tuple(self.features.place(name, Numeric) for name in kept.numbers),
        )

    @cached_property
    def stored(self) -> StoredNumbers:
        """What the own features of a stored row may be."""
        return stored_numbers(self.features)

    @property
    def width(self) -> int:
        """Stored width W of an event, with its history."""
        return self.features.width if self.history is None else self.history_columns.stop

    def model(self, seed: int = 0) -> nn.Sequential:
        """Front end and network, freshly initialised from the seed."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # of this processor alone, and in a tenth of the time
            if not self.wide:
                return nn.Sequential(*self.modules(self.target.outputs))
            front = self._front_end(self.target.outputs)
            deep = self.network(front.width, self.target.outputs)
            return nn.Sequential(front, WideAndDeep(deep, front.numbers, front.width, self.target.outputs))

    def modules(self, outputs: int) -> tuple[nn.Module, nn.Module]:
        """Front end, and the network behind it with so many outputs, initialised from torch's global state."""
        front = self._front_end(0)
        return front, self.network(front.width, outputs)

    def _front_end(self, wide: int) -> FrontEnd:
        target = self.target
        labels = None if isinstance(target, Regression) else target.outputs
        return self.features.front_end(labels, self.history_columns if self.history else None, wide)

    def adapted_names(self, model: nn.Module) -> tuple[str, ...]:
        """Names of the parameters that belong to a task: the head, the head and norms, or all behind the encoder."""
        network = [name for name, _ in model.named_parameters() if not name.startswith("0.")]
        linears = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
        beside = [name for name, module in model.named_modules() if isinstance(module, Linear)]
        norms = [name for name, module in model.named_modules() if isinstance(module, NORMS)]
        head = [*linears[-1:], *beside]
        owners = {"head": head, "head+norms": [*head, *norms]}
        if self.adapts == "all":
            return tuple(network)
        if self.adapts not in owners:
            raise EngineError(f"adapts must be 'head', 'head+norms' or 'all', got {self.adapts!r}")
        names = tuple(name for name in network if name.rpartition(".")[0] in owners[self.adapts])
        if not names:
            raise EngineError(f"adapts = {self.adapts!r} matches no parameter; end the network with a Linear")
        return names

    @property
    def slots(self) -> int:
        """Support slots of a row: enough to read again what the last adaptation read (see `engine.stream.table`)."""
        return self.memory.support + self.policy.every


BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


def normalises_by_batch(spec: TaskSpec) -> bool:
    """Whether the network normalises by statistics of the examples it is called with."""
    modules = spec.model().modules()
    return any(isinstance(module, BATCH_NORMS) and not module.track_running_stats for module in modules)
