"""Versions of theta as a worker uses them: loaded once, checked against its task spec, kept while adopted."""

from __future__ import annotations

import torch

from engine.fold import Engine
from engine.types import Meta
from streams.errors import CheckpointError
from streams.stores.base import Checkpoint, MetaStore


class ThetaCache:
    """The version in use, and loading of another one."""

    def __init__(self, engine: Engine, store: MetaStore) -> None:
        self.engine, self.store = engine, store
        self._fingerprint = engine.spec.theta_fingerprint()
        self._blank = engine.learner.init(0)
        self._meta = Meta(0, self._blank)

    def current(self) -> int:
        """The newest version published."""
        return self.store.current()

    def get(self, version: int) -> Meta:
        """One version, checked.

        Raises:
            CheckpointError: it is damaged, not finite, or of another task spec.
        """
        if self._meta.version != version:
            params = checked(self.store.load(version), self._fingerprint).params
            self._meta = Meta(version, {name: params[name].to(self.engine.device) for name in self._blank})
        return self._meta


def checked(checkpoint: Checkpoint, fingerprint: str) -> Checkpoint:
    """Refuse a checkpoint of another task spec, or one with values that are not finite."""
    if checkpoint.fingerprint != fingerprint:
        raise CheckpointError(
            f"version {checkpoint.version} of theta was trained for task spec {checkpoint.fingerprint}, "
            f"this one is {fingerprint}: features, target or network changed; use a new state directory"
        )
    broken = [name for name, value in checkpoint.params.items() if not bool(torch.isfinite(value).all())]
    if broken:
        raise CheckpointError(
            f"version {checkpoint.version} of theta has values that are not finite in {broken[0]!r}"
        )
    return checkpoint
