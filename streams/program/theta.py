"""Versions of theta as a worker uses them: loaded once, checked against its problem, kept while adopted."""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import Any

from engine.learners.fingerprint import theta_fingerprint
from engine.stream.fold import Engine
from engine.stream.mixture import MIXED, UNIFORM
from engine.types import Meta
from streams.errors import CheckpointError
from streams.program.checked import checked, kinds_of
from streams.stores.versions import Checkpoint, MetaStore

KEPT = 8
"""Partitions adopt apart, so a worker may need several versions in turn."""

MOST = 1e30
"""Numbers of a prior and a calibration are far below, and float32, in which they are used, reaches beyond."""


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
