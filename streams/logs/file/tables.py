"""What a table in a file is to the log: numbered rows of raw values, and when each takes place."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf, nan
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from engine.features.columns import Encoded, Numeric
from engine.features.encoder import Features
from engine.types import Bool, Float64, Int64
from streams.errors import InputError
from streams.events.columns import seconds_of
from streams.logs.file.content import Content

NEVER = nan
"""Time of a label that does not arrive."""

UNPLACED = -inf
"""Time of a label whose own time cannot be read: it takes that of its observation."""

UNDATED = inf
"""Time of a label whose own time is missing: it never arrives."""


@dataclass(frozen=True, kw_only=True)
class TableColumns:
    """Which columns of a table hold what.

    The values of several task columns are joined by "|" (`streams.events.identity`). Without `id`, the number of
    the row is the event id. Without `label_time`, a label is known immediately after its observation.
    """

    task: tuple[str, ...]
    time: str
    id: str | None = None
    label: str | None = None
    label_time: str | None = None

    def names(self) -> list[str]:
        """Every column that is named."""
        optional = (self.id, self.label, self.label_time)
        return [*self.task, self.time, *(name for name in optional if name is not None)]


Parse = Callable[[bytes], Mapping[str, Any]]
"""The values of a record by column; raises ValueError."""


def or_none(parse: Parse, record: bytes) -> Mapping[str, Any] | None:
    """Parse a record; None where it cannot be."""
    try:
        return parse(record)
    except ValueError:
        return None


class Row(NamedTuple):
    """One row of a table."""

    line: int
    """Where it lies in the file, from 1."""
    number: int
    """Which row of the table it is, from 1; a header and blank lines do not count."""
    values: Mapping[str, Any]
    """Raw values by column; empty where the row could not be parsed."""
    raw: bytes | None = None
    fault: str | None = None


class Clock(NamedTuple):
    """When the events of R rows take place, as the table has it."""

    times: Float64
    """[R] of the observation; NaN where it cannot be read."""
    label_times: Float64
    """[R] of the label; NEVER, UNPLACED or UNDATED where it has none."""


class Rows(Protocol):
    """n rows of a table, column by column."""

    whole: Bool
    """[n] whether each could be parsed."""

    def values(self, name: str) -> Sequence[Any]:
        """[n] one column, as `Row.values` has it; None where there is none."""
        ...

    def encoded(self, features: Features, index: Int64) -> Encoded:
        """The features of some of them, in the order of `index`, to the bits that `Features.encode` makes of them."""
        ...


class Table(Protocol):
    """R rows, numbered from 0."""

    unit: str
    """What `Row.line` counts: lines or rows."""

    def clock(self) -> Clock:
        """When each row's events take place; found out in one pass over the file."""
        ...

    def read(self, indexes: Sequence[int]) -> list[Row]:
        """Rows by index; one that cannot be parsed has a fault."""
        ...

    def rows(self, indexes: Int64) -> Rows:
        """Rows by index, in columns."""
        ...

    def remarks(self) -> Iterator[str]:
        """What a user should know of how it was read, in sentences."""
        ...

    def content(self, known: int) -> tuple[Content | None, Content]:
        """What the table holds up to an extent that it once had, None where it cannot have had it; and all of it."""
        ...


def require(path: Path, required: Iterable[str], present: Collection[str]) -> None:
    """Refuse a table that cannot be the one meant."""
    missing = [name for name in required if name not in present]
    if missing:
        wanted, there = ", ".join(map(repr, missing)), ", ".join(map(repr, present)) or "none"
        raise InputError(f"{path}: no column {wanted}; the columns are {there}")


def required(columns: TableColumns, features: Features) -> list[str]:
    """List the columns that must be there; one of optional numbers may be absent."""
    optional = {c.name for c in features.columns if isinstance(c, Numeric) and c.optional}
    return list(dict.fromkeys([*columns.names(), *sorted(features.names - optional)]))


def clock_of(rows: Rows, columns: TableColumns) -> Clock:
    """When the events of rows take place."""
    times = seconds_of(rows.values(columns.time))
    if columns.label is None:
        return Clock(times, np.full(len(times), NEVER))
    arrives = np.array([label is not None for label in rows.values(columns.label)], np.bool_)
    label_times = times
    if columns.label_time is not None:
        own = rows.values(columns.label_time)
        seconds = seconds_of(own)
        unreadable = np.where([time is None for time in own], UNDATED, UNPLACED)
        label_times = np.where(np.isnan(seconds), unreadable, seconds)
    return Clock(times, np.where(arrives, label_times, NEVER))
