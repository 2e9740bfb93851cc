"""What was made of the latest version of theta: one is asked for again and again, and then another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Generic, TypeVar

from torch import Tensor

from engine.types import Params

T = TypeVar("T")

Mark = tuple[Tensor, int]
"""A value, and how often it was changed in place."""


class Latest(Generic[T]):
    """Makes something of parameters; the latest is kept, as long as nothing of them is changed in place."""

    def __init__(self, make: Callable[[Params], T]) -> None:
        self._make = make
        self._kept: tuple[list[Mark], T] | None = None

    def of(self, params: Params) -> T:
        """What is made of these."""
        now = marks(params.values())
        kept = self._kept  # read once: another thread may ask for other parameters meanwhile
        if kept is None or not is_same(now, kept[0]):
            kept = self._kept = now, self._make(params)
        return kept[1]


def marks(values: Iterable[Tensor]) -> list[Mark]:
    """By which they are known again."""
    return [(value, value._version) for value in values]  # noqa: SLF001 - how often it was changed


def is_same(now: Sequence[Mark], before: Sequence[Mark]) -> bool:
    """Whether values are those that they were, and unchanged."""
    pairs = zip(now, before, strict=False)
    return len(now) == len(before) and all(a is b and i == j for (a, i), (b, j) in pairs)
