"""Declarative, vectorised feature encoders: from mappings of raw values to one float32 row of fixed width.

A stored row holds features encoded but not standardised (hashed ids stay ids, NaN marks a missing
number). The `FrontEnd` turns stored rows into what a network reads; its standardisation statistics are
buffers, so they belong to the version of theta they were published with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import accumulate, chain
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from engine.features.columns import (
    MAX_BUCKETS,
    STANDARDISED_LIMIT,
    Category,
    Column,
    Encoded,
    Numeric,
    Text,
    exact_numbers,
    stored_as,
)
from engine.features.history import MOST_CLASSES, HistoryColumns
from engine.types import Bool, EngineError, Float32, Float64

RATE_STRENGTH, VALUE_STRENGTH = 1.0, 0.1
"""How many labels the rate, or the mean, of all tasks counts for in a task's own."""


class _Numbers(NamedTuple):
    """Columns that are numbers as they are: their fields, which may be missing, and their places in a stored row."""

    names: list[str]
    optional: Bool
    places: list[int]


@dataclass(frozen=True)
class Features:
    """The encoder of a problem: its columns side by side.

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
        return _Numbers([column.name for _, column in numeric], optional, [start for start, _ in numeric])

    def schema(self) -> list[dict[str, Any]]:
        """What decides the meaning of a stored row, for the fingerprint."""
        return [{"encoder": type(c).__name__, **asdict(c)} for c in self.columns]  # type: ignore[call-overload]


def _listed(values: Sequence[Any] | Float64) -> Sequence[Any]:
    return values.tolist() if isinstance(values, np.ndarray) else values


def _flattened(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[Any]:
    """The fields `names` of one row after the other; None where there is none."""
    if len(names) > 1:
        try:
            return [*chain.from_iterable(map(itemgetter(*names), rows))]
        except KeyError:
            pass
    return [row.get(name) for row in rows for name in names]


class FrontEnd(nn.Module):
    """Stored rows [..., W] to dense rows [..., D]: numbers first, then embeddings; wide sums, if any, behind them.

    The buffers are statistics that belong to theta's version: `mean` and `std` of the numbers that are standardised,
    and of the labels either `label_rate` [C], or `label_mean` and `label_std`. Counts of labels become what is known
    of the task's rate, drawn towards that of all tasks: log((n_k + s p_k) / (n + s)) - log p_k, which is 0 for a task
    without labels; for two classes the difference of both, log odds. Of a regression (sum - n mean) / (n + s) / std.
    """

    mean: Tensor
    std: Tensor
    label_rate: Tensor
    label_mean: Tensor
    label_std: Tensor

    def __init__(
        self,
        features: Features,
        classes: int | None = 2,
        history: HistoryColumns | None = None,
        wide: int = 0,
    ) -> None:
        """`classes` is C of the target, None for a regression; `wide` the outputs that a bucket has a weight for."""
        super().__init__()
        self.classes, self.history, self.outputs = classes, history, wide
        numeric: list[int] = []
        flagged: list[int] = []
        plain: list[int] = []
        self.categories: list[int] = []
        self.texts: list[slice] = []
        categories, texts = nn.ModuleList(), nn.ModuleList()
        sums: list[nn.Embedding] = []
        start = 0
        for column in features.columns:
            if isinstance(column, Numeric):
                flagged += [len(numeric)] if column.optional else []
                numeric.append(start)
            elif isinstance(column, Category | Text):
                # Beside weights of their own, buckets begin at zero: one never met then says nothing at all.
                values = torch.zeros(column.buckets, column.embedding)
                values = values if wide else nn.init.normal_(values, std=0.1)
                embedding = nn.Embedding(column.buckets, column.embedding, _weight=values)
                if isinstance(column, Category):
                    self.categories.append(start)
                    categories.append(embedding)
                else:
                    self.texts.append(slice(start, start + column.width))
                    texts.append(embedding)
                if wide:
                    sums.append(nn.Embedding(column.buckets, wide, _weight=torch.zeros(column.buckets, wide)))
            else:
                plain += range(start, start + column.width)
            start += column.width
        self.embeddings = nn.ModuleList([*categories, *texts])
        kinds = [
            isinstance(column, Text) for column in features.columns if isinstance(column, Category | Text)
        ]
        self.wide = nn.ModuleList([sums[i] for i in sorted(range(len(sums)), key=lambda i: kinds[i])])
        self.own_numbers = len(numeric)
        numeric = [*numeric, *(history.plain if history else ())]
        self.numeric, self.flagged, self.plain = numeric, flagged, plain
        self.all_numeric = numeric == list(range(start)) and not history
        self.all_plain = plain == list(range(start)) and not history
        self.register_buffer("mean", torch.zeros(len(numeric)))
        self.register_buffer("std", torch.ones(len(numeric)))
        if classes is None:
            self.register_buffer("label_mean", torch.zeros(()))
            self.register_buffer("label_std", torch.ones(()))
        else:
            self.register_buffer("label_rate", torch.full((classes,), 1 / classes))
        self.numbers = len(numeric) + len(flagged) + len(plain) + (self._label_numbers if history else 0)
        embedded = sum(module.embedding_dim for module in self.embeddings if isinstance(module, nn.Embedding))
        self.width = self.numbers + embedded

    @property
    def _label_numbers(self) -> int:
        """How many numbers counts of labels, and the last of them, become."""
        sets = len(self.sets)
        if self.classes is None:
            return sets + 1
        return sets * (1 if self.classes == 2 else self.classes) + self.marks

    @property
    def marks(self) -> int:
        """Numbers that say what the last label was, one of few classes."""
        return self.classes if self.classes is not None and self.classes <= MOST_CLASSES else 0

    @property
    def sets(self) -> list[int]:
        """Where in a stored row each set of counts of labels begins."""
        past, width = self.history, self.history.label_width if self.history else 0
        if past is None or not width:
            return []
        return [*range(past.start, past.last, width), *range(past.by_counts, past.stop, width)]

    def forward(self, x: Tensor) -> Tensor:
        """Dense rows; a missing number sits at the mean, and its flag says so."""
        if self.all_plain and not self.outputs:
            return x
        numbers = x if self.all_numeric else x[..., self.numeric]
        standard = ((numbers - self.mean) / self.std).clamp(-STANDARDISED_LIMIT, STANDARDISED_LIMIT)
        if self.all_numeric and not self.flagged and not self.outputs:
            return standard
        parts = [standard.nan_to_num(nan=0.0)]
        if self.flagged:
            parts.append(numbers[..., self.flagged].isnan().to(x.dtype))
        if self.plain:
            parts.append(x[..., self.plain])
        if self.history is not None:
            parts += self._of_labels(x, self.history)
        at = [x[..., place].long() for place in self.categories]
        of = [x[..., span].long() for span in self.texts]
        known = len(at)
        parts += [embedding(ids) for embedding, ids in zip(self.embeddings, at, strict=False)]
        parts += [_averaged(self.embeddings[known + t], ids) for t, ids in enumerate(of)]
        if self.outputs:
            wide = x.new_zeros(*x.shape[:-1], self.outputs)
            for table, ids in zip(self.wide, at, strict=False):
                wide = wide + table(ids)
            for t, ids in enumerate(of):
                wide = wide + _averaged(self.wide[known + t], ids)
            parts.append(wide)
        return torch.cat(parts, dim=-1)

    def _of_labels(self, x: Tensor, history: HistoryColumns) -> list[Tensor]:
        """What the counts of labels say, and the last label."""
        width = history.label_width
        counts = torch.cat(
            [x[..., history.start : history.last], x[..., history.by_counts : history.stop]], -1
        )
        sets = counts.view(*counts.shape[:-1], counts.shape[-1] // width, width) if width else counts
        parts = [self._rates(sets).flatten(-2)] if width else []
        last = x[..., history.last]
        if self.classes is None:
            value = ((last - self.label_mean) / self.label_std).nan_to_num(nan=0.0)
            parts.append(value.unsqueeze(-1).clamp(-STANDARDISED_LIMIT, STANDARDISED_LIMIT))
        elif self.marks:
            parts.append((last.unsqueeze(-1) == torch.arange(1, self.marks + 1, device=x.device)).to(x.dtype))
        return parts

    def _rates(self, counts: Tensor) -> Tensor:
        """Sets of counts [..., K, L] as [..., K, 1], or [..., K, C] of more than two classes."""
        if self.classes is None:
            count, mean = counts[..., :1], counts[..., 1:]
            drawn = (mean - self.label_mean) * (count / (count + VALUE_STRENGTH)) / self.label_std
            return drawn.clamp(-STANDARDISED_LIMIT, STANDARDISED_LIMIT)
        drawn = counts + RATE_STRENGTH * self.label_rate
        rates = (drawn / drawn.sum(-1, keepdim=True)).log() - self.label_rate.log()
        return rates[..., 1:] - rates[..., :1] if self.classes == 2 else rates


def _averaged(table: nn.Module, ids: Tensor) -> Tensor:
    """Mean of the rows of a bag of ids [..., n]; id 0 pads."""
    present = (ids > 0).unsqueeze(-1)
    total: Tensor = (table(ids) * present).sum(-2)
    return total / present.sum(-2).clamp(min=1)
