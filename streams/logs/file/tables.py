"""What a table in a file is to the log: numbered rows of raw values, and when each takes place."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf, isnan, nan
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from engine.features.columns import Encoded, Numeric
from engine.features.encoder import Features
from engine.types import Bool, Float64, Int64
from streams.errors import InputError
from streams.events.times import epoch_seconds
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


def moments(values: Mapping[str, Any], columns: TableColumns) -> tuple[float, float]:
    """Time of a row's observation, NaN where it cannot be read, and of its label."""
    time_s = epoch_seconds(values.get(columns.time))
    if columns.label is None or values.get(columns.label) is None:
        return time_s, NEVER
    if columns.label_time is None:
        return time_s, time_s
    label_time = values.get(columns.label_time)
    label_time_s = epoch_seconds(label_time)
    return time_s, UNDATED if label_time is None else UNPLACED if isnan(label_time_s) else label_time_s
