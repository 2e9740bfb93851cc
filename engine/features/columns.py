"""Columns of an event: how raw values become numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from engine.features.categories import CategoryValue, bucket_of_text, category_text, number_text
from engine.types import Bool, Float32, Float64

MAX_BUCKETS = 2**24
"""Ids are stored as float32, which is exact up to here."""


MAX_TEXT_IDS = 64


MAX_TEXT_CHARACTERS = 4096
"""Longer text is cut here before its n-grams are taken, so that huge text costs no more than long text."""


PLAIN_OR_MISSING = {int, float, type(None)}


PLAIN_CATEGORIES = {str, *PLAIN_OR_MISSING}
"""Of these types, values that are equal have one text; a boolean equals a number, and has another."""


LARGEST = {kind: float(np.finfo(kind).max) for kind in (np.float32, np.float64)}


REAL = int | float | np.integer | np.floating


STANDARDISED_LIMIT = 10.0
"""Standardised numbers are clipped here: one absurd value must not own a gradient."""


class Encoded(NamedTuple):
    """Stored rows, and for each row that could not be encoded the reason why."""

    x: Float32
    """[N, W]; a row with a fault is zero."""
    faults: dict[int, str]


class Column(Protocol):
    """One input field and how it is stored."""

    @property
    def name(self) -> str:
        """The field it reads."""
        ...

    @property
    def width(self) -> int:
        """How many stored numbers the column takes."""
        ...

    def encode(self, values: Sequence[Any]) -> Encoded:
        """Encode one value a row; a value that does not fit becomes a fault, never an exception."""
        ...


@dataclass(frozen=True)
class Numeric:
    """A finite number, standardised by the model. With `optional`, a missing one or NaN is the mean and a flag."""

    name: str
    optional: bool = False

    @property
    def width(self) -> int:
        """How many stored numbers the column takes."""
        return 1

    def encode(self, values: Sequence[Any]) -> Encoded:
        """Encode numbers; None or NaN where the column is optional is stored as NaN."""
        return _numbers(self.name, values, optional=self.optional)


@dataclass(frozen=True)
class Category:
    """A value hashed into one of `buckets` ids, embedded by the model; a new value is just another id."""

    name: str
    buckets: int = 65_536
    embedding: int = 8

    @property
    def width(self) -> int:
        """How many stored numbers the column takes."""
        return 1

    def encode(self, values: Sequence[Any]) -> Encoded:
        """Hash the one text of each value (`engine.features.categories`); a missing one is a category of its own."""
        if PLAIN_CATEGORIES.issuperset(map(type, values)):
            buckets = {value: bucket_of_text(category_text(value), self.buckets) for value in set(values)}
            return Encoded(np.array([buckets[v] for v in values], np.float32).reshape(-1, 1), {})
        x = np.zeros((len(values), 1), np.float32)
        faults: dict[int, str] = {}
        known: dict[str | None, int] = {}
        for i, value in enumerate(values):
            if not isinstance(value, CategoryValue):
                faults[i] = f"field {self.name!r}: expected a category, got {type(value).__name__}"
                continue
            text = category_text(value)
            if text not in known:
                known[text] = bucket_of_text(text, self.buckets)
            x[i, 0] = known[text]
        return Encoded(x, faults)


@dataclass(frozen=True)
class Cyclic:
    """A number on a circle of `period` (24 for hours, 7 for weekdays), stored as sine and cosine."""

    name: str
    period: float

    @property
    def width(self) -> int:
        """How many stored numbers the column takes."""
        return 2

    def encode(self, values: Sequence[Any]) -> Encoded:
        """Encode positions on the circle."""
        phases, faults = _numbers(self.name, values, optional=False, dtype=np.float64)
        turn = np.remainder(phases[:, 0], self.period) * (2 * math.pi / self.period)
        return Encoded(np.stack([np.sin(turn), np.cos(turn)], axis=1).astype(np.float32), faults)


@dataclass(frozen=True)
class Text:
    """Text as a bag of hashed character n-grams: at most 64 ids, embedded and averaged by the model.

    A missing text is an empty one, since a CSV file does not tell them apart.
    """

    name: str
    buckets: int = 4096
    embedding: int = 32
    n: int = 3

    @property
    def width(self) -> int:
        """How many stored numbers the column takes."""
        return MAX_TEXT_IDS

    def encode(self, values: Sequence[Any]) -> Encoded:
        """Encode texts; id 0 pads, so n-grams hash to 1 and up. Ids beyond the limit are thinned evenly."""
        x = np.zeros((len(values), MAX_TEXT_IDS), np.float32)
        faults: dict[int, str] = {}
        ids = _GramIds(self.buckets - 1)
        for i, given in enumerate(values):
            value = "" if given is None else given
            if not isinstance(value, str):
                faults[i] = f"field {self.name!r}: expected text, got {_text(value):.40}"
                continue
            padded = f" {value[:MAX_TEXT_CHARACTERS].lower()} "
            grams = sorted({padded[j : j + self.n] for j in range(max(1, len(padded) - self.n + 1))})
            if len(grams) > MAX_TEXT_IDS:
                grams = [grams[j * len(grams) // MAX_TEXT_IDS] for j in range(MAX_TEXT_IDS)]
            x[i, : len(grams)] = [ids[gram] for gram in grams]
        return Encoded(x, faults)


class _GramIds(dict[str, int]):
    """The id of each n-gram of a batch; each is hashed once."""

    def __init__(self, buckets: int) -> None:
        super().__init__()
        self._buckets = buckets

    def __missing__(self, gram: str) -> int:
        self[gram] = 1 + bucket_of_text(gram, self._buckets)
        return self[gram]


def _text(value: object) -> str:
    """Text of a value; Python refuses to write very long integers in decimal."""
    return number_text(value) if isinstance(value, int) else str(value)


def exact_numbers(values: Sequence[Any]) -> Float64 | None:
    """Numbers as they are, NaN for None; None where one has to be looked at by itself."""
    if not PLAIN_OR_MISSING.issuperset(map(type, values)):
        return None
    try:
        return np.array(values, np.float64)
    except OverflowError:
        return None


def stored_as(numbers: Float64, optional: Bool | bool, dtype: Any = np.float32) -> Any:
    """Numbers as they are stored; None where one is too large, or missing where `optional` does not say it may be."""
    finite = np.abs(numbers) <= LARGEST[dtype]
    if np.count_nonzero(finite) == finite.size:  # in a quarter of the time that `all` takes of a few
        return numbers.astype(dtype)
    missing = np.isnan(numbers)
    return np.where(missing, math.nan, numbers).astype(dtype) if (finite | missing & optional).all() else None


def _numbers(name: str, values: Sequence[Any], *, optional: bool, dtype: Any = np.float32) -> Encoded:
    """One number a row, [N, 1]; the slow path, value by value, is taken only where something is wrong."""
    exact = exact_numbers(values)
    if exact is not None and (stored := stored_as(exact, optional, dtype)) is not None:
        return Encoded(stored.reshape(-1, 1), {})
    limit = LARGEST[dtype]
    x = np.zeros((len(values), 1), dtype)
    faults: dict[int, str] = {}
    for i, value in enumerate(values):
        if optional and (value is None or (isinstance(value, float | np.floating) and math.isnan(value))):
            x[i, 0] = math.nan
        elif isinstance(value, bool) or not isinstance(value, REAL):
            faults[i] = f"field {name!r}: expected a number, got {_cut(value)}"
        elif not -limit <= (value if isinstance(value, int) else float(value)) <= limit:
            faults[i] = f"field {name!r}: {_text(value):.40} is not a finite number"
        else:
            x[i, 0] = value
    return Encoded(x, faults)


def _cut(value: object) -> str:
    """A value in a message: a text cut short, of anything else its type."""
    return f"{value[:40]!r}" if isinstance(value, str) else type(value).__name__
