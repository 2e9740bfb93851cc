"""Declarative, vectorised feature encoders: from mappings of raw values to one float32 row of fixed width.

A stored row holds features encoded but not standardised (hashed ids stay ids, NaN marks a missing
number). The `FrontEnd` turns stored rows into what a network reads; its standardisation statistics are
buffers, so they belong to the version of theta they were published with.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from engine.types import EngineError, Float32

MAX_BUCKETS = 2**24
"""Ids are stored as float32, which is exact up to here."""

MAX_TEXT_IDS = 64
MAX_TEXT_CHARACTERS = 4096
"""Longer text is cut here before its n-grams are taken, so that huge text costs no more than long text."""

PLAIN = {int, float}
PLAIN_OR_MISSING = {int, float, type(None)}

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
    """A finite number, standardised by the model. With `optional`, a missing one is the mean and a flag."""

    name: str
    optional: bool = False

    @property
    def width(self) -> int:
        """How many stored numbers the column takes."""
        return 1

    def encode(self, values: Sequence[Any]) -> Encoded:
        """Encode numbers; None where the column is optional is stored as NaN."""
        return _numbers(self.name, values, optional=self.optional)


@dataclass(frozen=True)
class Category:
    """A value hashed into one of `buckets` ids, embedded by the model; a new value is just another id."""

    name: str
    buckets: int = 256
    embedding: int = 8

    @property
    def width(self) -> int:
        """How many stored numbers the column takes."""
        return 1

    def encode(self, values: Sequence[Any]) -> Encoded:
        """Hash each value's text; a missing value is a category of its own."""
        x = np.empty((len(values), 1), np.float32)
        faults: dict[int, str] = {}
        known: dict[str, int] = {}  # by text: as keys, 1 and 1.0 and True would be one
        for i, value in enumerate(values):
            if isinstance(value, str | int | bool | float | None):
                text = _text(value)
                if text not in known:
                    known[text] = _hash(text, self.buckets)
                x[i, 0] = known[text]
            else:
                x[i, 0] = 0
                faults[i] = f"field {self.name!r}: expected a category, got {type(value).__name__}"
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
    """Text as a bag of hashed character n-grams: at most 64 ids, embedded and averaged by the model."""

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
        for i, value in enumerate(values):
            if not isinstance(value, str):
                faults[i] = f"field {self.name!r}: expected text, got {type(value).__name__}"
                continue
            padded = f" {value[:MAX_TEXT_CHARACTERS].lower()} "
            grams = sorted({padded[j : j + self.n] for j in range(max(1, len(padded) - self.n + 1))})
            if len(grams) > MAX_TEXT_IDS:
                grams = [grams[j * len(grams) // MAX_TEXT_IDS] for j in range(MAX_TEXT_IDS)]
            x[i, : len(grams)] = [1 + _hash(gram, self.buckets - 1) for gram in grams]
        return Encoded(x, faults)


def _text(value: object) -> str:
    """Text of a value; Python refuses to write very long integers in decimal."""
    return hex(value) if isinstance(value, int) and value.bit_length() > 4096 else str(value)


def _hash(text: str, buckets: int) -> int:
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little") % buckets


def _numbers(name: str, values: Sequence[Any], *, optional: bool, dtype: Any = np.float32) -> Encoded:
    """One number a row, [N, 1]; the slow path, value by value, is taken only where something is wrong."""
    limit = float(np.finfo(dtype).max)
    if set(map(type, values)) <= (PLAIN_OR_MISSING if optional else PLAIN):
        missing = np.array([value is None for value in values], np.bool_)
        try:
            exact = np.array([math.nan if value is None else value for value in values], np.float64)
        except OverflowError:
            exact = np.full(len(values), math.inf)
        if (missing | (np.abs(exact) <= limit)).all():
            return Encoded(exact.astype(dtype).reshape(-1, 1), {})
    x = np.zeros((len(values), 1), dtype)
    faults: dict[int, str] = {}
    for i, value in enumerate(values):
        if value is None and optional:
            x[i, 0] = math.nan
        elif isinstance(value, bool) or not isinstance(value, int | float | np.number):
            faults[i] = f"field {name!r}: expected a number, got {type(value).__name__}"
        elif not -limit <= value <= limit:
            faults[i] = f"field {name!r}: {_text(value):.40} is not a finite number"
        else:
            x[i, 0] = value
    return Encoded(x, faults)


@dataclass(frozen=True)
class Features:
    """The encoder of a task spec: its columns side by side.

    >>> features = Features((Numeric("amount"), Category("country", buckets=16)))
    >>> features.encode([{"amount": 9.5, "country": "NL"}, {"amount": "nine", "country": "NL"}]).faults
    {1: "field 'amount': expected a number, got str"}
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

    @property
    def width(self) -> int:
        """Stored width W."""
        return sum(column.width for column in self.columns)

    @property
    def names(self) -> frozenset[str]:
        """Every field that is read."""
        return frozenset(column.name for column in self.columns)

    def encode(self, rows: Sequence[Mapping[str, Any]]) -> Encoded:
        """Encode N rows; total: a row that does not fit is a fault that names the field."""
        x = np.zeros((len(rows), self.width), np.float32)
        faults: dict[int, str] = {}
        start = 0
        for column in self.columns:
            values = [row.get(column.name) for row in rows]
            part, wrong = column.encode(values)
            x[:, start : start + column.width] = part
            start += column.width
            for i, reason in wrong.items():
                absent = column.name not in rows[i]
                faults.setdefault(i, f"field {column.name!r} is missing" if absent else reason)
        if faults:
            x[list(faults)] = 0
        return Encoded(x, faults)

    def front_end(self) -> FrontEnd:
        """The module that reads stored rows."""
        return FrontEnd(self)

    def schema(self) -> list[dict[str, Any]]:
        """What decides the meaning of a stored row, for the fingerprint."""
        return [{"encoder": type(c).__name__, **asdict(c)} for c in self.columns]  # type: ignore[call-overload]


class FrontEnd(nn.Module):
    """Stored rows [..., W] to dense rows [..., D]: standardised numbers, embeddings, cyclic pairs.

    The buffers `mean` and `std` [number of numeric columns] are the standardisation statistics.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, features: Features) -> None:
        super().__init__()
        numeric: list[int] = []
        flagged: list[int] = []
        plain: list[int] = []
        self.categories: list[tuple[int, nn.Embedding]] = []
        self.texts: list[tuple[slice, nn.Embedding]] = []
        self.embeddings = nn.ModuleList()
        start = 0
        for column in features.columns:
            if isinstance(column, Numeric):
                flagged += [len(numeric)] if column.optional else []
                numeric.append(start)
            elif isinstance(column, Category | Text):
                embedding = nn.Embedding(column.buckets, column.embedding)
                nn.init.normal_(embedding.weight, std=0.1)
                self.embeddings.append(embedding)
                if isinstance(column, Category):
                    self.categories.append((start, embedding))
                else:
                    self.texts.append((slice(start, start + column.width), embedding))
            else:
                plain += range(start, start + column.width)
            start += column.width
        self.numeric, self.flagged, self.plain = numeric, flagged, plain
        self.all_numeric = numeric == list(range(features.width))
        self.all_plain = plain == list(range(features.width))
        self.register_buffer("mean", torch.zeros(len(numeric)))
        self.register_buffer("std", torch.ones(len(numeric)))
        embedded = sum(module.embedding_dim for module in self.embeddings if isinstance(module, nn.Embedding))
        self.width = len(numeric) + len(flagged) + len(plain) + embedded

    def forward(self, x: Tensor) -> Tensor:
        """Dense rows; a missing number sits at the mean, and its flag says so."""
        if self.all_plain:
            return x
        numbers = x if self.all_numeric else x[..., self.numeric]
        standard = ((numbers - self.mean) / self.std).clamp(-STANDARDISED_LIMIT, STANDARDISED_LIMIT)
        if self.all_numeric and not self.flagged:
            return standard
        parts = [standard.nan_to_num(nan=0.0)]
        if self.flagged:
            parts.append(numbers[..., self.flagged].isnan().to(x.dtype))
        if self.plain:
            parts.append(x[..., self.plain])
        for at, embedding in self.categories:
            parts.append(embedding(x[..., at].long()))
        for span, embedding in self.texts:
            ids = x[..., span].long()
            present = (ids > 0).to(x.dtype).unsqueeze(-1)
            parts.append((embedding(ids) * present).sum(-2) / present.sum(-2).clamp(min=1))
        return torch.cat(parts, dim=-1)
