"""Versions of theta as a worker uses them: loaded once, checked against its problem, kept while adopted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any

import torch
from torch import Tensor

from engine.learners.fingerprint import theta_fingerprint
from engine.learners.gradient import LR
from engine.stream.fold import Engine
from engine.stream.mixture import MIXED, UNIFORM
from engine.types import Meta, Params, is_finite
from streams.errors import CheckpointError
from streams.stores.versions import Checkpoint, MetaStore

KEPT = 8
"""Partitions adopt apart, so a worker may need several versions in turn."""

MOST = 1e30
"""Numbers of a prior and a calibration are far below, and float32, in which they are used, reaches beyond."""

BESIDE = ("latest", "whole", "sums", "sums.average", "best")
"""What a trainer keeps of theta's values, each of the same shape; of the step size it keeps sums of others."""

Kinds = Mapping[str, tuple[torch.Size, torch.dtype]]
"""Shape and type of each of theta's values, by name."""


class ThetaCache:
    """The versions in use, and loading of another one."""

    def __init__(self, engine: Engine, store: MetaStore) -> None:
        self.engine, self.store = engine, store
        self._fingerprint = theta_fingerprint(engine.learner)
        first = engine.learner.init(0)
        self._kinds, self._loaded = kinds_of(first), {0: Meta(0, first)}

    def current(self) -> int:
        """The newest version published."""
        return self.store.current()

    def get(self, version: int) -> Meta:
        """One version, checked.

        Raises:
            CheckpointError: it is damaged, not finite, or of another problem.
        """
        if version not in self._loaded:
            checkpoint = checked(self.store.load(version), self._fingerprint, self._kinds)
            params = {name: checkpoint.params[name].to(self.engine.device) for name in self._kinds}
            prior = numbers_of(checkpoint, "prior", UNIFORM.tolist(), {MIXED})
            calibration = numbers_of(checkpoint, "calibration", (), {0, 1, 1 + self.engine.rules.outputs})
            self._loaded[version] = Meta(version, params, prior, calibration)
            while len(self._loaded) > KEPT + 1:
                del self._loaded[min(self._loaded.keys() - {0, version})]
        return self._loaded[version]


def numbers_of(
    checkpoint: Checkpoint, name: str, without: Sequence[float], lengths: Set[int]
) -> tuple[float, ...]:
    """What a checkpoint keeps beside its tensors: so many finite numbers; `without` where it has none."""
    found = checkpoint.numbers.get(name, without)
    if not (isinstance(found, list | tuple) and len(found) in lengths and all(map(_is_number, found))):
        raise CheckpointError(
            f"version {checkpoint.version} of theta has a {name} that is not {_or(lengths)} finite numbers; "
            "restore its files from a backup, or delete them"
        )
    return tuple(found)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < MOST


def _or(lengths: Set[int]) -> str:
    return " or ".join(map(str, sorted(lengths)))


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
    return checkpoint


def _of_another_kind(checkpoint: Checkpoint, kinds: Kinds) -> Iterator[tuple[str, Tensor | None]]:
    """Theta's values, and those that training keeps beside them, that are not as they have to be."""
    for name, kind in kinds.items():
        beside = [f"{part}.{name}" for part in BESIDE if (part, name) != ("sums", LR)]
        found = {name: checkpoint.params.get(name), **{one: checkpoint.trainer.get(one) for one in beside}}
        for one, value in found.items():
            if one == name if value is None else (value.shape, value.dtype) != kind:
                yield one, value
