"""The events of a batch, and what they must be: the compiled scan indexes memory by what it is given."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from engine.task_spec import TaskSpec
from engine.types import Bool, EngineError, Float32, Float64, Int64, Kind, UInt8, UInt64

DTYPES = {
    "row": np.int64,
    "kind": np.uint8,
    "id": np.uint64,
    "time_s": np.float64,
    "x": np.float32,
    "has_x": np.bool_,
    "y": np.float32,
    "topic": np.int64,
    "offset": np.int64,
    "partition": np.int64,
    "incarnation": np.uint64,
}
"""Of each column; a batch is not converted, since a number may change on the way."""

LAST_OFFSET = np.iinfo(np.int64).max - 1
"""The position behind it is still a number."""


class Requirement(NamedTuple):
    """What is required of one column."""

    column: str
    broken: Bool
    """[N] which events do not meet it."""
    expected: str
    """What would be right, and the way out."""


@dataclass(frozen=True)
class EventBatch:
    """N events of the tasks of one table, in log order."""

    row: Int64
    """[N] which row of the table the event's task is."""
    kind: UInt8
    """[N] `Kind`."""
    id: UInt64
    """[N] hash of the observation's id; a label carries the id of its observation."""
    time_s: Float64
    """[N] event time, seconds since the epoch, negative before 1970."""
    x: Float32
    """[N, own width] features in stored form; undefined where `has_x` is false."""
    has_x: Bool
    """[N] whether the event carries features: every observation does."""
    y: Float32
    """[N] class index or value; undefined for an observation."""
    topic: Int64
    """[N] index of the input topic."""
    offset: Int64
    """[N] offset in the topic's partition; increasing for the events of one topic and partition."""
    partition: Int64
    """[N] of its input topic."""
    incarnation: UInt64
    """[N] of its input topic: another number where the topic was created anew."""
    not_after_s: Float64 | float = math.inf
    """[N], or one for all: an event is taken to have happened then at the latest. What the log's own clock said when
    it took the event, and a little more, keeps an event from the future from moving its task's clock for good."""

    def __len__(self) -> int:
        return len(self.row)

    def validate(self, spec: TaskSpec, tasks: int) -> None:
        """Refuse what cannot be folded into a table of so many tasks; `Engine.fold` asks for it.

        Raises:
            EngineError: a column has another type or length, or an event another value, than is required; one
                sentence names the first such column and event, what was expected, and the way out.

        """
        _check_columns(self, spec)
        for column, broken, expected in _requirements(self, spec, tasks):
            if broken.any():
                n = int(broken.argmax())
                raise EngineError(
                    f"{_place(self, n)}: {column} is {_value(self, spec, column, n)}, expected {expected}"
                )


def _check_columns(events: EventBatch, spec: TaskSpec) -> None:
    """Type and shape of each column."""
    count, width = len(events.row), spec.features.width
    for name, dtype in DTYPES.items():
        column, shape = getattr(events, name), (count, width) if name == "x" else (count,)
        if not isinstance(column, np.ndarray) or column.dtype != dtype:
            found = getattr(column, "dtype", type(column).__name__)
            raise EngineError(
                f"EventBatch.{name} is {found}, expected an array of {np.dtype(dtype)}; "
                f"convert it: np.asarray({name}, np.{np.dtype(dtype).name})"
            )
        if column.shape != shape:
            raise EngineError(
                f"EventBatch.{name} has shape {column.shape}, expected {shape}: {count} events"
                + (
                    f" of {width} stored features, as spec.features.encode returns them"
                    if name == "x"
                    else ""
                )
                + "; give every column one value an event"
            )
    if np.shape(events.not_after_s) not in ((), (count,)):
        raise EngineError(
            f"EventBatch.not_after_s has shape {np.shape(events.not_after_s)}, expected ({count},); "
            "give one time an event, or one for all"
        )


def _requirements(events: EventBatch, spec: TaskSpec, tasks: int) -> Iterator[Requirement]:
    """Of the values; each may rely on those before it."""
    e, observed, target = events, events.kind == Kind.OBSERVATION, spec.target
    yield Requirement(
        "row", _outside(e.row, tasks), f"the place of its task in a table of {tasks}, counted from 0"
    )
    yield Requirement(
        "kind", e.kind > Kind.LABEL, "0 (Kind.OBSERVATION) or 1 (Kind.LABEL); leave other events out"
    )
    yield Requirement(
        "topic", _outside(e.topic, spec.topics), f"one of {spec.topics}, counted from 0; or set spec.topics"
    )
    yield Requirement("offset", _outside(e.offset, LAST_OFFSET), "its place in the log, 0 or more")
    yield Requirement(
        "offset",
        _out_of_order(e),
        "more than the event before it of this partition has; give events in log order, each once",
    )
    yield Requirement(
        "time_s", ~np.isfinite(e.time_s), "seconds since the epoch; leave out events without a time"
    )
    yield Requirement(
        "not_after_s",
        np.broadcast_to(np.isnan(e.not_after_s), len(e)),
        "a time in seconds, or infinity where nothing is known",
    )
    yield Requirement("has_x", observed & ~e.has_x, "true: an observation has features; leave others out")
    yield Requirement(
        "x",
        e.has_x & spec.stored.unsound(e.x).any(axis=1),
        "what spec.features.encode makes of it; leave out rows that it finds a fault in",
    )
    yield Requirement("y", ~observed & ~target.allows(e.y), f"{target.expected}; leave other labels out")


def _outside(index: Int64, size: int) -> Bool:
    return (index < 0) | (index >= size)


def _out_of_order(e: EventBatch) -> Bool:
    """Which events do not lie behind the one before of their topic, incarnation and partition."""
    order = np.lexsort((e.partition, e.incarnation, e.topic))
    ahead, behind = order[:-1], order[1:]
    same = np.ones(len(behind), np.bool_)
    for place in (e.topic, e.incarnation, e.partition):
        same &= place[ahead] == place[behind]
    broken = np.zeros(len(e), np.bool_)
    broken[behind] = same & (e.offset[behind] <= e.offset[ahead])
    return broken


def _place(events: EventBatch, n: int) -> str:
    return f"event {n} (topic {events.topic[n]}, partition {events.partition[n]}, offset {events.offset[n]})"


def _value(events: EventBatch, spec: TaskSpec, column: str, n: int) -> str:
    """What an event has in a column; of its features the first that is unsound."""
    if column == "x":
        place = int(spec.stored.unsound(events.x[n : n + 1])[0].argmax())
        return f"{events.x[n, place]} in field {spec.stored.field[place]!r}"
    return str(np.broadcast_to(getattr(events, column), len(events))[n])
