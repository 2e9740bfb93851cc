"""Parquet files as tables: the columns that are used, columnar in memory."""

from __future__ import annotations

from collections.abc import Sequence
from math import nan
from pathlib import Path

import numpy as np
import polars as pl

from engine.features import Features
from engine.types import Float64
from streams.errors import InputError
from streams.logs.tables import NEVER, UNPLACED, Clock, Row, TableColumns, placed, require, required
from streams.wire import FIRST_S, LAST_S, epoch_seconds

UNITS_PER_S = {"ms": 1e3, "us": 1e6, "ns": 1e9}


class ParquetTable:
    """A Parquet file, columnar in memory; dates and times as seconds since the epoch."""

    unit = "row"

    def __init__(self, path: Path, columns: TableColumns, features: Features) -> None:
        try:
            schema = pl.read_parquet_schema(path)
            require(path, required(columns, features), schema)
            used = [name for name in schema if name in features.names or name in columns.names()]
            self._frame = pl.read_parquet(path, columns=used).select(_plain(n, schema[n]) for n in used)
        except (pl.exceptions.PolarsError, OSError) as error:
            raise InputError(f"{path}: cannot be read as Parquet: {error}") from error
        self._columns = columns

    def clock(self) -> Clock:
        """When each row's events take place."""
        c = self._columns
        times = _seconds(self._frame[c.time])
        if c.label is None:
            return placed(times, np.full(len(times), NEVER))
        arrives = self._frame[c.label].is_not_null()
        label_times = times.copy()
        if c.label_time is not None:
            label_times = np.nan_to_num(_seconds(self._frame[c.label_time]), nan=UNPLACED)
            arrives &= self._frame[c.label_time].is_not_null()
        return placed(times, np.where(arrives.to_numpy(), label_times, NEVER))

    def read(self, indexes: Sequence[int]) -> list[Row]:
        """Gather rows."""
        rows = self._frame[indexes].to_dicts()
        return [Row(index + 1, index + 1, row) for index, row in zip(indexes, rows, strict=True)]


def _plain(name: str, dtype: pl.DataType) -> pl.Expr:
    """Turn a column into the values that records carry."""
    column = pl.col(name)
    if isinstance(dtype, pl.Datetime | pl.Duration):
        return column.to_physical() / UNITS_PER_S[dtype.time_unit]
    if isinstance(dtype, pl.Date):
        return column.to_physical() * 86_400.0
    if isinstance(dtype, pl.Time):
        return column.to_physical() / UNITS_PER_S["ns"]
    return column.cast(pl.Float64) if isinstance(dtype, pl.Decimal) else column


def _seconds(times: pl.Series) -> Float64:
    """Read the times of a column, NaN where there is none."""
    if not times.dtype.is_numeric():
        return np.array([epoch_seconds(value) for value in times], np.float64)
    seconds = times.cast(pl.Float64).fill_null(nan).to_numpy()
    return np.where((seconds >= FIRST_S) & (seconds <= LAST_S), seconds, nan)
