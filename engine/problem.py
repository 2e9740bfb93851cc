"""Problem: what all tasks share, of a stream or of episodes, and how one adapts; as one frozen value.

It says how examples become tensors, what the network is, which of its parameters belong to a task, and by what steps
they move. Learners are made of it. What only a stream has is in `engine.stream.spec.StreamSpec`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from threading import RLock
from typing import Literal

import torch
from torch import nn

from engine.features.columns import Category, Numeric
from engine.features.encoder import Features
from engine.features.front_end import FrontEnd
from engine.features.history import History, HistoryColumns
from engine.features.stored import StoredNumbers, stored_numbers
from engine.networks.mlp import mlp
from engine.networks.wide_deep import Linear, WideAndDeep
from engine.targets import Classification, Regression
from engine.types import EngineError

START = 0.1
"""The step size of the inner loop before one was chosen."""


_SEEDING = RLock()

NORMS = (nn.LayerNorm, nn.GroupNorm, nn.BatchNorm1d, nn.BatchNorm2d)


@dataclass(frozen=True)
class InnerLoop:
    """K gradient steps from theta on a task's support set; the gradient of each task is clipped by its norm.

    `lr` "auto" is a number in theta, which whoever trains it chooses; 0.1 until then. `rates` "learned" makes a step
    size of its own for every number that adapts, beginning at `lr`, a part of theta (Meta-SGD). `proximal` is lambda
    of a term lambda/2 |phi - theta|^2 in the inner loss, which `Implicit` needs (iMAML); 0 leaves it out. `compile`
    makes machine code of the steps of a network that has no kernel, once for a machine (`engine.inductor`).
    """

    steps: int = 5
    lr: float | Literal["auto"] = 0.1
    clip: float = 1.0
    rates: Literal["fixed", "learned"] = "fixed"
    proximal: float = 0.0
    compile: bool = False

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
class Problem:
    """What all tasks share, and how one adapts. `network(inputs, outputs)` builds what is behind the encoder."""

    features: Features
    target: Classification | Regression
    network: Callable[[int, int], nn.Module] = mlp
    adapts: str = "head+norms"
    inner: InnerLoop = field(default_factory=InnerLoop)
    support: int = 32
    """Examples that a support set is expected to have at most. Learners that keep the examples themselves have places
    for as many; a stream keeps no more, and episodes may have more."""
    history: History | None = None
    """Which of the task's own past is among the features; none, where it is left out."""
    wide: bool = False
    """Whether a linear model stands beside the network, with a weight for each bucket of a category."""

    def __post_init__(self) -> None:
        if self.support < 1:
            raise EngineError(f"support must be positive, got {self.support}")
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
        with seeded(seed):
            if not self.wide:
                return nn.Sequential(*self.modules(self.target.outputs))
            front = self._front_end(self.target.outputs)
            deep = self.network(front.width, self.target.outputs)
            return nn.Sequential(front, WideAndDeep(deep, front.numbers, front.width, self.target.outputs))

    @cached_property
    def outline(self) -> nn.Sequential:
        """A model to look at, or to call with parameters of one's own: its own are those of seed 0, and stay so."""
        return self.model().requires_grad_(False)

    @cached_property
    def is_tied(self) -> bool:
        """Whether a value of the model has two names: torch would look for them in each call."""
        kinds = self.outline.named_parameters, self.outline.named_buffers
        values = [value for kind in kinds for _, value in kind(remove_duplicate=False)]
        return len({*map(id, values)}) < len(values)

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


BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Let torch draw what a seed decides, and leave its generator, which all threads draw from, as it was."""
    with _SEEDING, torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # of this processor alone, and in a tenth of the time
        yield


def normalises_by_batch(problem: Problem) -> bool:
    """Whether the network normalises by statistics of the examples it is called with."""
    modules = problem.outline.modules()
    return any(isinstance(module, BATCH_NORMS) and not module.track_running_stats for module in modules)
