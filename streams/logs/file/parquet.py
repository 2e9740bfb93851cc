"""Parquet files as tables: the columns that are used, columnar in memory. A folder of parts is one table."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from engine.features.encoder import Features
from engine.types import Float64, Int64
from streams.errors import InputError
from streams.events.times import FIRST_S, LAST_S, epoch_seconds
from streams.logs.file.content import Content, table_content
from streams.logs.file.gathered import FrameRows, exact
from streams.logs.file.tables import NEVER, UNDATED, UNPLACED, Clock, Row, TableColumns, require, required

UNITS_PER_S = {"ms": 1e3, "us": 1e6, "ns": 1e9}


class ParquetTable:
    """A Parquet file or the parts of a folder, columnar in memory; dates and times as seconds since the epoch."""

    unit = "row"

    def __init__(self, path: Path, columns: TableColumns, features: Features) -> None:
        parts = parts_of(path)
        self._columns = columns
        try:
            schema = _schema_of(parts)
            require(path, required(columns, features), schema)
            used = [name for name in schema if name in features.names or name in columns.names()]
            # A path is a path: polars would take [1] or * in it for a pattern, and a=1 for a column.
            self._frame = pl.concat(
                pl.read_parquet(part, columns=used, glob=False, hive_partitioning=False) for part in parts
            )
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
            raise InputError(f"{path}: cannot be read as Parquet: {error}") from error
        names = {*columns.task, *([columns.id] if columns.id else [])}
        self._decimal_ids = [n for n in used if n in names and isinstance(schema[n], pl.Decimal)]
        self._frame = self._frame.select(_plain(n, schema[n], self._decimal_ids) for n in used)

    def clock(self) -> Clock:
        """When each row's events take place."""
        c = self._columns
        times = _seconds(self._frame[c.time])
        if c.label is None:
            return Clock(times, np.full(len(times), NEVER))
        arrives = _is_there(self._frame[c.label])
        label_times = times
        if c.label_time is not None:
            moments = self._frame[c.label_time]
            label_times = np.nan_to_num(_seconds(moments), nan=UNPLACED)
            label_times = np.where(_is_there(moments), label_times, UNDATED)
        return Clock(times, np.where(arrives, label_times, NEVER))

    def read(self, indexes: Sequence[int]) -> list[Row]:
        """Gather rows."""
        rows = self._frame[indexes].to_dicts()
        for name in self._decimal_ids:
            for row in rows:
                row[name] = exact(row[name])
        return [Row(index + 1, index + 1, row) for index, row in zip(indexes, rows, strict=True)]

    def rows(self, indexes: Int64) -> FrameRows:
        """Gather rows, in columns."""
        return FrameRows(self._frame, indexes)

    def remarks(self) -> Iterator[str]:
        """Nothing: rows are whole."""
        return iter(())

    def content(self, known: int) -> tuple[Content | None, Content]:
        """The first `known` rows of the columns that are used, None where there are not so many; and all rows."""
        return table_content(self._frame, known)


def parts_of(path: Path) -> list[Path]:
    """The files of a table: the path itself, or the Parquet files in a folder, in the order of their names.

    Names that begin with "_" or "." are what Spark and others write beside the parts.

    Raises:
        InputError: a folder without parts, or with folders in it.

    """
    if not path.is_dir():
        return [path]
    found = sorted(part for part in path.iterdir() if part.name[0] not in "._")
    nested = [part.name for part in found if part.is_dir()]
    if nested:
        raise InputError(f"{path}: holds the folder {nested[0]!r}; name a folder of Parquet files alone")
    parts = [part for part in found if part.suffix.lower() == ".parquet"]
    if not parts or len(parts) < len(found):
        other = next((part.name for part in found if part not in parts), "nothing")
        raise InputError(f"{path}: a folder has to hold Parquet files alone, and this one holds {other!r}")
    return parts


def _schema_of(parts: Sequence[Path]) -> Mapping[str, pl.DataType]:
    first, *others = ((part, pl.scan_parquet(part, glob=False).collect_schema()) for part in parts)
    for part, schema in others:
        if schema != first[1]:
            differ = [n for n in [*first[1], *schema] if first[1].get(n) != schema.get(n)]
            raise InputError(
                f"{part}: its columns are not those of {first[0].name}: they differ in "
                f"{', '.join(map(repr, dict.fromkeys(differ))) or 'their order'}; write all parts with one schema"
            )
    return first[1]


def _plain(name: str, dtype: pl.DataType, exact: Collection[str]) -> pl.Expr:
    """Turn a column into the values that records carry."""
    column = pl.col(name)
    if isinstance(dtype, pl.Datetime | pl.Duration):
        return column.to_physical() / UNITS_PER_S[dtype.time_unit]
    if isinstance(dtype, pl.Date):
        return column.to_physical() * 86_400.0
    if isinstance(dtype, pl.Time):
        return column.to_physical() / UNITS_PER_S["ns"]
    return column.cast(pl.Float64) if isinstance(dtype, pl.Decimal) and name not in exact else column


def _is_there(values: pl.Series) -> Any:
    """[R] whether each value is neither null nor NaN."""
    there = values.is_not_null()
    return (
        (there & values.is_not_nan() if values.dtype.is_float() else there).fill_null(value=False).to_numpy()
    )


def _seconds(times: pl.Series) -> Float64:
    """Read the times of a column, NaN where there is none."""
    if not times.dtype.is_numeric():
        return np.array([epoch_seconds(value) for value in times], np.float64)
    seconds = times.cast(pl.Float64).fill_null(nan).to_numpy()
    return np.where((seconds >= FIRST_S) & (seconds <= LAST_S), seconds, nan)
