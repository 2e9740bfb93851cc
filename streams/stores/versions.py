"""Versions of theta: what one holds, and where they are kept. Apart from rows, since episodes have none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor


@dataclass(frozen=True)
class Checkpoint:
    """One version of theta: what a worker needs to use it, and what a trainer needs to go on from it."""

    version: int
    fingerprint: str
    """Of the problem whose theta this is."""
    params: Mapping[str, Tensor]
    """Parameters and buffers."""
    trainer: Mapping[str, Tensor]
    """Tensors of the outer loop: optimizer state, running statistics."""
    numbers: Mapping[str, Any] = field(default_factory=dict)
    """Everything else of the outer loop, as JSON holds it: step count, consumed positions."""


class MetaStore(Protocol):
    """Versions of theta, each written once."""

    def current(self) -> int:
        """The newest version; 0 while there is none."""
        ...

    def load(self, version: int) -> Checkpoint:
        """One version.

        Raises:
            CheckpointError: it is missing, damaged or cut short.
        """
        ...

    def missing(self, versions: Iterable[int]) -> set[int]:
        """Those of versions that are not kept; 0, the first theta, always is."""
        ...

    def sizes(self) -> Mapping[int, int]:
        """Bytes of each version that is kept."""
        ...

    def drop(self, versions: Set[int]) -> None:
        """Delete versions."""
        ...

    def publish(self, checkpoint: Checkpoint) -> bool:
        """Write a version if its predecessor is the newest; false if another trainer came first."""
        ...
