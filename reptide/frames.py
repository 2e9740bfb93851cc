"""Rows of frames: polars, pandas, or a sequence of dicts, each as dicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from engine.types import EngineError


def rows_of(table: Any) -> Sequence[Mapping[str, Any]]:
    """The rows of a table, in order.

    Raises:
        EngineError: it is none.

    """
    if hasattr(table, "to_dicts"):  # polars
        return list(table.to_dicts())
    if hasattr(table, "to_dict"):  # pandas
        return list(table.to_dict("records"))
    rows = list(table)
    if not all(isinstance(row, Mapping) for row in rows):
        raise EngineError("expected a frame of polars or pandas, or dicts")
    return rows


class Names(NamedTuple):
    """Which fields of a row say whose it is, its id, and its time."""

    task: str
    id: str | None
    at: str | None

    def of(self, row: Mapping[str, Any]) -> tuple[Any, Any, Any]:
        """Task, id and time of a row; None for what no field says."""
        id, at = (None if name is None else field(row, name) for name in (self.id, self.at))
        return field(row, self.task), id, at


def field(row: Mapping[str, Any], name: str) -> Any:
    """A field of a row, by name."""
    if name not in row:
        raise EngineError(f"there is no field {name!r}; there are {', '.join(map(repr, row))}")
    return row[name]
