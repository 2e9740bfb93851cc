"""Declarative, vectorised feature encoders: from mappings of raw values to one float32 row of fixed width.

A stored row holds features encoded but not standardised (hashed ids stay ids, NaN marks a missing
number). The `FrontEnd` turns stored rows into what a network reads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import accumulate, chain
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np

from engine.features.columns import (
    MAX_BUCKETS,
    Column,
    Encoded,
    Numeric,
    exact_numbers,
    stored_as,
)
from engine.features.front_end import FrontEnd
from engine.features.history import HistoryColumns
from engine.types import Bool, EngineError, Float32, Float64


class _Numbers(NamedTuple):
    """Columns that are numbers as they are: their fields, which may be missing, and their places in a stored row."""

    names: list[str]
    optional: Bool
    places: list[int] | slice


@dataclass(frozen=True)
class Features:
    """The encoder of a problem: its columns side by side.

    >>> from engine.features.columns import Category
    >>> features = Features((Numeric("amount"), Category("country", buckets=16)))
    >>> features.encode([{"amount": 9.5, "country": "NL"}, {"amount": "nine", "country": "NL"}]).faults
    {1: "field 'amount': expected a number, got 'nine'"}
    """

    columns: tuple[Column, ...]

    def __post_init__(self) -> None:
        for column in self.columns:
            buckets: int = getattr(column, "buckets", 2)
            period: float = getattr(column, "period", 1.0)
            if buckets not in range(2, MAX_BUCKETS + 1):
                raise EngineError(f"field {column.name!r}: buckets must be from 2 to {MAX_BUCKETS}")
            if getattr(column, "n", 1) < 1:
                raise EngineError(f"field {column.name!r}: n must be positive")
            if period <= 0:
                raise EngineError(f"field {column.name!r}: period must be positive")

    @cached_property
    def width(self) -> int:
        """Stored width W."""
        return sum(column.width for column in self.columns)

    @property
    def names(self) -> frozenset[str]:
        """Every field that is read."""
        return frozenset(column.name for column in self.columns)

    def encode(self, rows: Sequence[Mapping[str, Any]]) -> Encoded:
        """Encode N rows; total: a row that does not fit is a fault that names the field."""
        if not rows:
            return Encoded(np.zeros((0, self.width), np.float32), {})
        names, optional, _ = self._numeric
        exact = exact_numbers(_flattened(rows, names))
        numbers = None if exact is None else stored_as(exact.reshape(len(rows), len(names)), optional)
        x, wrong = self._encoded(
            len(rows), numbers, lambda n: [row.get(self.columns[n].name) for row in rows]
        )
        return Encoded(
            x,
            {
                i: reason if column.name in rows[i] else f"field {column.name!r} is missing"
                for i, (column, reason) in wrong.items()
            },
        )

    def encode_columns(self, values: Sequence[Sequence[Any] | Float64], count: int) -> Encoded:
        """Encode `count` rows, given the values of each column, to the bits that `encode` makes of the rows.

        Where a column is `Numeric` itself, its values may be an array of numbers, NaN for one that is missing.
        """
        given = [v for v, column in zip(values, self.columns, strict=True) if type(column) is Numeric]
        arrays = [one for one in given if isinstance(one, np.ndarray)]
        numbers = None
        if arrays and len(arrays) == len(given):
            stored = stored_as(np.stack(arrays), self._numeric.optional[:, None])
            numbers = None if stored is None else stored.T
        x, wrong = self._encoded(count, numbers, lambda n: _listed(values[n]))
        return Encoded(x, {i: reason for i, (_, reason) in wrong.items()})

    def _encoded(
        self, count: int, numbers: Float32 | None, values: Callable[[int], Sequence[Any]]
    ) -> tuple[Float32, dict[int, tuple[Column, str]]]:
        """Stored rows, and the first column of each that does not fit; `numbers` of those that are as they are."""
        x = np.zeros((count, self.width), np.float32)
        faults: dict[int, tuple[Column, str]] = {}
        if numbers is not None:
            x[:, self._numeric.places] = numbers
        for n, (start, column) in enumerate(self._starts):
            if numbers is not None and type(column) is Numeric:
                continue
            part, wrong = column.encode(values(n))
            x[:, start : start + column.width] = part
            for i, reason in wrong.items():
                faults.setdefault(i, (column, reason))
        if faults:
            x[list(faults)] = 0
        return x, faults

    def front_end(
        self, classes: int | None = 2, history: HistoryColumns | None = None, wide: int = 0
    ) -> FrontEnd:
        """The module that reads stored rows, for a target of so many classes (None: a regression)."""
        return FrontEnd(self, classes, history, wide)

    def places(self, kind: type[Column]) -> list[int]:
        """Where in a stored row the columns of a kind begin, in order."""
        return [start for start, column in self.starts() if isinstance(column, kind)]

    def place(self, name: str, kind: type[Column]) -> int:
        """Where the first column of a field and kind begins."""
        return next(
            start for start, column in self.starts() if column.name == name and isinstance(column, kind)
        )

    def starts(self) -> list[tuple[int, Column]]:
        """Where in a stored row each column begins."""
        return list(self._starts)

    @cached_property
    def _starts(self) -> tuple[tuple[int, Column], ...]:
        widths = [column.width for column in self.columns]
        return tuple(zip(accumulate(widths, initial=0), self.columns, strict=False))

    @cached_property
    def _numeric(self) -> _Numbers:
        """The columns that are numbers as they are."""
        numeric = [(start, column) for start, column in self._starts if type(column) is Numeric]
        optional = np.array([column.optional for _, column in numeric], np.bool_)
        return _Numbers(
            [column.name for _, column in numeric], optional, _run([start for start, _ in numeric])
        )

    def schema(self) -> list[dict[str, Any]]:
        """What decides the meaning of a stored row, for the fingerprint."""
        return [{"encoder": type(c).__name__, **asdict(c)} for c in self.columns]  # type: ignore[call-overload]


def _run(places: list[int]) -> list[int] | slice:
    """Places as a slice where each follows the one before: numpy writes to these in a fifth of the time."""
    first = places[0] if places else 0
    follows = places == list(range(first, first + len(places)))
    return slice(first, first + len(places)) if follows else places


def _listed(values: Sequence[Any] | Float64) -> Sequence[Any]:
    return values.tolist() if isinstance(values, np.ndarray) else values


def _flattened(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[Any]:
    """The fields `names` of one row after the other; None where there is none."""
    # Of one name a getter gives no tuple; asked by one, a defaultdict would make up a value and keep it.
    if len(names) > 1 and {dict}.issuperset(map(type, rows)):
        with suppress(KeyError):
            return [*chain.from_iterable(map(itemgetter(*names), rows))]
    return [row.get(name) for row in rows for name in names]
