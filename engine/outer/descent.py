"""How a pseudo-gradient becomes a step of theta: an optimizer of torch, whose state is kept as tensors by name."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from inspect import Parameter, signature
from typing import Any, Literal

import torch

from engine.types import EngineError, Params


@dataclass(frozen=True)
class FitSettings:
    """How pseudo-gradients become steps of theta.

    `optimizer` names a class of `torch.optim` that takes dense gradients and no closure; `betas` (of Adam and its
    like) and `momentum` (of SGD and RMSprop) are torch's own where not given. `clip` bounds the
    global norm of a pseudo-gradient. The rate rises linearly for `warmup` rounds; then it stays, or falls to
    0 at round `steps`. A round takes `accumulate` batches of episodes and steps along their mean, for batches that
    do not fit in memory at once.
    """

    optimizer: str = "Adam"
    lr: float = 1e-3
    weight_decay: float = 0.0
    clip: float = 10.0
    warmup: int = 0
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    steps: int = 0
    accumulate: int = 1
    betas: tuple[float, float] | None = None
    momentum: float | None = None

    def __post_init__(self) -> None:
        _accepted(self)
        if not all(0 <= share < 1 for share in (*(self.betas or ()), self.momentum or 0.0)):
            raise EngineError(f"betas and momentum must be from 0 to below 1, got {self}")
        if not 0 < self.lr < math.inf or not 0 <= self.weight_decay < math.inf:
            raise EngineError(f"lr must be positive and weight_decay not negative, both finite, got {self}")
        if not 1 <= self.clip <= 10:
            raise EngineError(f"clip must be from 1 to 10, got {self.clip}")
        if self.accumulate < 1:
            raise EngineError(f"accumulate must be at least 1, got {self.accumulate}")
        if self.schedule not in ("constant", "linear", "cosine"):
            raise EngineError(f"schedule must be 'constant', 'linear' or 'cosine', got {self.schedule!r}")
        if self.warmup < 0 or (self.schedule != "constant" and self.steps <= self.warmup):
            raise EngineError(
                f"schedule {self.schedule!r} needs steps above warmup, and warmup at least 0: {self}"
            )

    def rate(self, step: int) -> float:
        """Return the learning rate of a round, counted from 0."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        if self.schedule == "constant":
            return self.lr
        left = max(0.0, (self.steps - step) / (self.steps - self.warmup))
        return self.lr * (left if self.schedule == "linear" else (1 - math.cos(math.pi * left)) / 2)


def global_norm(gradient: Params) -> float:
    """Take the Euclidean norm over all tensors, in float64 so that no finite gradient overflows."""
    norms = [torch.linalg.vector_norm(value, dtype=torch.float64) for value in gradient.values()]
    return float(torch.linalg.vector_norm(torch.stack(norms)))


def descend(
    optimizer: torch.optim.Optimizer, theta: Params, gradient: Params, rate: float, scale: float
) -> None:
    """Step along a pseudo-gradient, scaled; a parameter that it does not name stays."""
    for name, value in theta.items():
        value.grad = gradient[name] * scale if name in gradient else None
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    optimizer.zero_grad()


def _accepted(settings: FitSettings) -> type[torch.optim.Optimizer]:
    """Find the optimizer class that is named, or say why it will not do."""
    name = settings.optimizer
    kind = getattr(torch.optim, name, None)
    if (
        not (isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer))
        or kind is torch.optim.Optimizer
    ):
        raise EngineError(f"optimizer {name!r} is not in torch.optim; 'Adam', 'AdamW' and 'SGD' are")
    needs_closure = signature(kind.step).parameters["closure"].default is Parameter.empty
    if needs_closure or kind is torch.optim.SparseAdam:
        raise EngineError(
            f"optimizer {name!r} cannot follow a dense pseudo-gradient alone; use 'Adam' or 'SGD'"
        )
    takes = signature(kind).parameters
    if settings.weight_decay and "weight_decay" not in takes:
        raise EngineError(f"optimizer {name!r} has no weight decay; set weight_decay = 0")
    for option, other in (("betas", "Adam"), ("momentum", "SGD")):
        if getattr(settings, option) is not None and option not in takes:
            raise EngineError(f"optimizer {name!r} takes no {option}; leave {option} out, or use {other!r}")
    return kind


def _options(settings: FitSettings) -> dict[str, Any]:
    """What the optimizer is built with: what it takes of the settings that are given."""
    takes = signature(_accepted(settings)).parameters
    given = {name: getattr(settings, name) for name in ("lr", "weight_decay", "betas", "momentum")}
    given["fused"] = True  # all parameters in one call
    return {name: value for name, value in given.items() if name in takes and value is not None}


def resumed(settings: FitSettings, theta: Params, saved: Params) -> torch.optim.Optimizer:
    """Build an optimizer over theta that goes on from what was saved."""
    kind: Callable[..., torch.optim.Optimizer] = _accepted(settings)
    optimizer = kind(list(theta.values()), **_options(settings))
    if settings.momentum and saved and not any(key.endswith(":momentum_buffer") for key in saved):
        raise EngineError(
            f"saved optimizer state is of {settings.optimizer!r} without momentum; take momentum out, or start from "
            "TrainState(..., optimizer={})"
        )
    for key, value in saved.items():
        owner, name, field = key.split(":")
        if owner != settings.optimizer or name not in theta:
            raise EngineError(
                f"saved optimizer state {key!r} does not fit optimizer {settings.optimizer!r} and this model;"
                " resume with the settings it was saved under, or start from TrainState(..., optimizer={})"
            )
        optimizer.state[theta[name]][field] = value.clone()
    return optimizer


def state_of(optimizer: torch.optim.Optimizer, settings: FitSettings, theta: Params) -> Params:
    """The optimizer's tensors, as a `TrainState` keeps them."""
    return {
        f"{settings.optimizer}:{name}:{field}": value
        for name, parameter in theta.items()
        for field, value in optimizer.state[parameter].items()
    }
