"""Some rows of a table, column by column: of a frame, of mappings, or some of either."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from math import nan
from typing import Any

import numpy as np
import polars as pl

from engine.features.columns import Column, Encoded, Numeric
from engine.features.encoder import Features
from engine.types import Float64, Int64
from streams.events.identity import identity_of
from streams.logs.file.tables import Rows


class FrameRows:
    """Rows of a frame, each column gathered when it is asked for."""

    def __init__(self, frame: pl.DataFrame, indexes: Int64) -> None:
        self._frame, self._indexes = frame, indexes
        self._places = pl.Series(indexes, dtype=pl.get_index_type())  # anything else costs ten times as much
        self.whole = np.ones(len(indexes), np.bool_)

    def values(self, name: str) -> Sequence[Any]:
        """One column, as records carry it."""
        if name not in self._frame.columns:  # an optional number need not be there
            return [None] * len(self._indexes)
        values = self._column(name)
        return [*map(exact, values)] if values.dtype == pl.Decimal else values.to_list()

    def encoded(self, features: Features, index: Int64) -> Encoded:
        """The features of some of them."""
        some = FrameRows(self._frame, self._indexes[index])
        return features.encode_columns([some._feature(column) for column in features.columns], len(index))

    def _column(self, name: str) -> pl.Series:
        return self._frame[name][self._places]

    def _feature(self, column: Column) -> Sequence[Any] | Float64:
        """The values of a feature; numbers as an array."""
        if type(column) is not Numeric:
            return self.values(column.name)
        if column.name not in self._frame.columns:
            return np.full(len(self._indexes), nan)
        dtype = self._frame[column.name].dtype
        if dtype.is_integer() or dtype.is_float():
            return self._column(column.name).cast(pl.Float64).to_numpy()
        return self.values(column.name)


class ParsedRows:
    """Rows that were parsed one by one; None where one could not be."""

    def __init__(self, rows: Sequence[Mapping[str, Any] | None]) -> None:
        self._rows = [row or {} for row in rows]
        self.whole = np.array([row is not None for row in rows], np.bool_)

    def values(self, name: str) -> Sequence[Any]:
        """One column; None where a row has none."""
        return [row.get(name) for row in self._rows]

    def encoded(self, features: Features, index: Int64) -> Encoded:
        """The features of some of them."""
        return features.encode([self._rows[n] for n in index.tolist()])


class MixedRows:
    """Rows of two origins; `places` [n] are those that each has among all."""

    def __init__(self, parts: Sequence[tuple[Int64, Rows]]) -> None:
        self._parts = parts
        self._order = np.argsort(np.concatenate([places for places, _ in parts]))
        self.whole = np.concatenate([rows.whole for _, rows in parts])[self._order]

    def values(self, name: str) -> Sequence[Any]:
        """One column."""
        values = [value for _, rows in self._parts for value in rows.values(name)]
        return [values[n] for n in self._order.tolist()]

    def encoded(self, features: Features, index: Int64) -> Encoded:
        """The features of some of them."""
        x, faults = np.zeros((len(index), features.width), np.float32), dict[int, str]()
        for places, rows in self._parts:
            mine = np.flatnonzero(np.isin(index, places))
            encoded = rows.encoded(features, np.searchsorted(places, index[mine]))
            x[mine] = encoded.x
            faults.update({int(mine[i]): reason for i, reason in encoded.faults.items()})
        return Encoded(x, faults)


def exact(value: Decimal | None) -> Any:
    """An id that is a decimal, as a whole number where it is one: a float would lose its last digits."""
    if value is None:
        return None
    whole = identity_of(value)
    return float(value) if whole is None else int(whole)
