"""What a version of theta must be before anyone computes with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from engine.learners.gradient import LR
from engine.types import Params, is_finite
from streams.errors import CheckpointError
from streams.stores.versions import Checkpoint

BESIDE = ("latest", "whole", "sums", "sums.average", "best")
"""What a trainer keeps of theta's values, each of the same shape; of the step size it keeps sums of others."""

Kinds = Mapping[str, tuple[torch.Size, torch.dtype]]
"""Shape and type of each of theta's values, by name."""

_SOUND: WeakValueDictionary[int, Checkpoint] = WeakValueDictionary()
"""Versions that were looked at, by identity: what this process published its trainer and its worker read."""


def kinds_of(params: Params) -> Kinds:
    """What each of theta's values has to be."""
    return {name: (value.shape, value.dtype) for name, value in params.items()}


def checked(checkpoint: Checkpoint, fingerprint: str, kinds: Kinds) -> Checkpoint:
    """Refuse a checkpoint of another problem, or one with values that are not finite, or of another shape or type.

    Compiled code goes by the shapes of the problem, not by those of a file.
    """
    if checkpoint.fingerprint != fingerprint:
        raise CheckpointError(
            f"version {checkpoint.version} of theta was trained for problem {checkpoint.fingerprint}, "
            f"this one is {fingerprint}: learner, features, target or network changed; use a new state directory"
        )
    if _SOUND.get(id(checkpoint)) is not checkpoint:
        _check_values(checkpoint, kinds)
        _SOUND[id(checkpoint)] = checkpoint
    return checkpoint


def _check_values(checkpoint: Checkpoint, kinds: Kinds) -> None:
    broken = [name for name, value in checkpoint.params.items() if not is_finite(value)]
    if broken:
        raise CheckpointError(
            f"version {checkpoint.version} of theta has values that are not finite in {broken[0]!r}"
        )
    for name, tensor in _of_another_kind(checkpoint, kinds):
        found = "is missing" if tensor is None else f"is {tensor.dtype} of shape {tuple(tensor.shape)}"
        raise CheckpointError(
            f"version {checkpoint.version} of theta is damaged: {name!r} {found}, which this problem never has; "
            "restore its files from a backup, or delete them"
        )


def _of_another_kind(checkpoint: Checkpoint, kinds: Kinds) -> Iterator[tuple[str, Tensor | None]]:
    """Theta's values, and those that training keeps beside them, that are not as they have to be."""
    for name, kind in kinds.items():
        beside = [f"{part}.{name}" for part in BESIDE if (part, name) != ("sums", LR)]
        found = {name: checkpoint.params.get(name), **{one: checkpoint.trainer.get(one) for one in beside}}
        for one, value in found.items():
            if one == name if value is None else (value.shape, value.dtype) != kind:
                yield one, value
