"""What the events of a batch must be before they are folded: compiled loops index memory by what they are given."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from engine.compiled import compiled, compiled_as, scalars
from engine.stream.events import DTYPES, EventBatch
from engine.stream.rounding import own_places, remembered
from engine.stream.scan_arrays import EVENTS_LAYOUT, LABEL, OBSERVATION, Events
from engine.stream.spec import StreamSpec
from engine.targets import Regression
from engine.types import EngineError, Float32, Float64, Int64

LAST_OFFSET = int(np.iinfo(np.int64).max) - 1
"""The position behind it is still a number."""

ROW, KIND, TOPIC, OFFSET, ORDER, TIME, LATEST, HAS_X, X, Y = range(10)
"""What is required, in order: each may rely on those before it."""

COLUMN = ("row", "kind", "topic", "offset", "offset", "time_s", "not_after_s", "has_x", "x", "y")
"""Of which column."""

MET = -1

UNKNOWN = np.uint64(0xFFFF_FFFF_FFFF_FFFF)
"""An id that no event has: what is looked up by it is never found."""

EVER = np.empty(0)
"""In place of when events happened at the latest, where nothing is known of that."""


class Limits(NamedTuple):
    """The numbers of a stream spec that events are held against."""

    topics: int
    low: Any
    """[own width] least of each stored number,"""
    high: Any
    """and most."""
    optional: Any
    """Whether NaN stands for a missing one."""
    whole: Any
    """Whether it is a bucket."""
    regression: bool
    least: float
    """Label of a regression."""
    most: float
    named: int
    """Classes."""


LIMITS = scalars(
    Limits,
    ["int64", "float32[]", "float32[]", "boolean[]", "boolean[]", "boolean", "float64", "float64", "int64"],
)


@compiled
def is_stored(limits: Any, value: float, place: int) -> bool:
    """Whether a stored number is one that the encoder makes."""
    if math.isnan(value):
        return bool(limits.optional[place])
    inside = limits.low[place] <= value <= limits.high[place]
    return bool(inside and (not limits.whole[place] or value == math.floor(value)))


@compiled
def are_stored(limits: Any, x: Any) -> bool:
    """Whether own features, at the front of x, are those of an encoded row."""
    sound = True
    for place in range(len(limits.low)):
        sound = sound and is_stored(limits, x[place], place)
    return sound


@compiled
def is_label(limits: Any, y: float) -> bool:
    """Whether a label is one of the target's."""
    if limits.regression:
        return bool(limits.least <= y <= limits.most)
    return bool(0.0 <= y < limits.named and y == math.floor(y))


@compiled
def is_met(e: Any, not_after_s: Any, limits: Any, tasks: int, what: int, n: int) -> bool:
    """Whether event n is what is required of it alone."""
    if what == ROW:
        return bool(0 <= e.row[n] < tasks)
    if what == KIND:
        return bool(e.kind[n] <= LABEL)
    if what == TOPIC:
        return bool(0 <= e.topic[n] < limits.topics)
    if what == OFFSET:
        return bool(0 <= e.offset[n] < LAST_OFFSET)
    if what == TIME:
        return math.isfinite(e.time_s[n])
    if what == LATEST:
        return bool(len(not_after_s) == 0 or not math.isnan(not_after_s[n]))
    if what == HAS_X:
        return bool(e.has_x[n] or e.kind[n] != OBSERVATION)
    if what == X:
        return bool(not e.has_x[n] or are_stored(limits, e.x[n]))
    return bool(e.kind[n] == OBSERVATION or is_label(limits, e.y[n]))


@compiled
def out_of_order(e: Any, latest: Any) -> int:
    """The first event that does not lie behind the one before of its topic, partition and incarnation; or MET.

    `latest` [N] is room for the latest event of each.
    """
    places, at = 0, 0
    for n in range(len(e.row)):
        if places == 0 or not same_place(e, n, latest[at]):
            at = 0
            while at < places and not same_place(e, n, latest[at]):
                at += 1
        if at == places:
            places += 1
        elif e.offset[n] <= e.offset[latest[at]]:
            return n
        latest[at] = n
    return MET


@compiled
def same_place(e: Any, n: int, m: int) -> bool:
    """Whether two events lie in one partition of one topic."""
    same_topic = e.topic[n] == e.topic[m] and e.incarnation[n] == e.incarnation[m]
    return bool(same_topic and e.partition[n] == e.partition[m])


@compiled_as(EVENTS_LAYOUT, "float64[]", LIMITS, "int64", "int64[]")
def first_unmet(
    e: Events, not_after_s: Float64, limits: Limits, tasks: int, latest: Int64
) -> tuple[int, int]:
    """The first requirement that an event does not meet, and the first event; MET where all meet all."""
    for what in range(Y + 1):
        if what == ORDER:
            n = out_of_order(e, latest)
            if n != MET:
                return what, n
            continue
        for n in range(len(e.row)):
            if not is_met(e, not_after_s, limits, tasks, what, n):
                return what, n
    return MET, MET


class Requirements:
    """What a stream spec requires of events."""

    def __init__(self, spec: StreamSpec) -> None:
        problem, target = spec.problem, spec.problem.target
        stored, regression = problem.stored, isinstance(target, Regression)
        self.spec, self.width, self.own_width = spec, problem.width, problem.features.width
        self.rounded = own_places(spec)
        self.limits = Limits(
            topics=spec.topics,
            low=stored.low,
            high=stored.high,
            optional=stored.optional,
            whole=np.isin(np.arange(self.own_width), stored.buckets),
            regression=regression,
            least=float(np.float32(target.low)) if isinstance(target, Regression) else 0.0,
            most=float(np.float32(target.high)) if isinstance(target, Regression) else 0.0,
            named=0 if isinstance(target, Regression) else len(target.classes),
        )

    def checked(self, events: EventBatch, tasks: int) -> Events:
        """The columns of events that can be folded into a table of so many tasks, as compiled loops read them.

        None of them happens after its `not_after_s`, and their numbers are those that rows remember.

        Raises:
            EngineError: a column has another type or length, or an event another value, than is required; one
                sentence names the first such column and event, what was expected, and the way out.

        """
        count = len(events.row)
        for name, dtype in DTYPES.items():
            self._check_column(name, getattr(events, name), dtype, count)
        columns = Events(
            kind=_plain(events.kind), id=_plain(events.id), time_s=_plain(events.time_s), x=self._widened(events.x),
            has_x=_plain(events.has_x), y=_plain(events.y), topic=_plain(events.topic), offset=_plain(events.offset),
            row=_plain(events.row), partition=_plain(events.partition), incarnation=_plain(events.incarnation),
        )  # fmt: skip
        if type(events.not_after_s) is float and events.not_after_s == math.inf:
            return self._sound(columns, EVER, tasks)
        if np.shape(events.not_after_s) not in ((), (count,)):
            raise EngineError(
                f"EventBatch.not_after_s has shape {np.shape(events.not_after_s)}, expected ({count},); "
                "give one time an event, or one for all"
            )
        not_after_s = np.empty(count)
        not_after_s[:] = events.not_after_s
        sound = self._sound(columns, not_after_s, tasks)
        return sound._replace(time_s=np.minimum(sound.time_s, not_after_s))

    def asked(self, x: Float32, time_s: Float64, tasks: int) -> Events:
        """An observation of each of so many tasks, as `checked` returns events; its id is one that no event has.

        Raises:
            EngineError: x or a time is none that an observation may have.

        """
        self._check_column("x", x, DTYPES["x"], tasks)
        self._check_column("time_s", time_s, DTYPES["time_s"], tasks)
        row, zero = np.arange(tasks), np.zeros(tasks, np.int64)
        id, has_x = np.empty(tasks, np.uint64), np.empty(tasks, np.bool_)
        id.fill(UNKNOWN)
        has_x.fill(True)
        observations = Events(
            kind=np.zeros(tasks, np.uint8), id=id, time_s=_plain(time_s), x=self._widened(x), has_x=has_x,
            y=np.zeros(tasks, np.float32), topic=zero, offset=row, row=row, partition=zero,
            incarnation=np.zeros(tasks, np.uint64),
        )  # fmt: skip
        return self._sound(observations, EVER, tasks)

    def _widened(self, x: Float32) -> Float32:
        """Own features with room for the history."""
        wide = np.zeros((len(x), self.width), np.float32)
        wide[:, : self.own_width] = x
        return wide

    def _sound(self, events: Events, not_after_s: Float64, tasks: int) -> Events:
        """The same events, all of whose values are as required, with their numbers as rows remember them."""
        latest = np.empty(len(events.row), np.int64)
        what, n = first_unmet(events, not_after_s, self.limits, tasks, latest)
        if what != MET:
            place = f"event {n} (topic {events.topic[n]}, partition {events.partition[n]}, offset {events.offset[n]})"
            column = not_after_s if what == LATEST else getattr(events, COLUMN[what])
            value, expected = self._value(column, COLUMN[what], n), self._expected(what, tasks)
            raise EngineError(f"{place}: {COLUMN[what]} is {value}, expected {expected}")
        remembered(events.x, self.rounded)
        return events

    def _check_column(self, name: str, column: Any, dtype: np.dtype[Any], count: int) -> None:
        """Type and shape of a column."""
        if not isinstance(column, np.ndarray) or (column.dtype is not dtype and column.dtype != dtype):
            found = getattr(column, "dtype", type(column).__name__)
            raise EngineError(
                f"EventBatch.{name} is {found}, expected an array of {dtype}; "
                f"convert it: np.asarray({name}, np.{dtype.name})"
            )
        shape = (count, self.own_width) if name == "x" else (count,)
        if column.shape != shape:
            of = f" of {self.own_width} stored features, as features.encode returns them" * (name == "x")
            raise EngineError(
                f"EventBatch.{name} has shape {column.shape}, expected {shape}: {count} events{of}; "
                "give every column one value an event"
            )

    def _value(self, column: Any, name: str, n: int) -> str:
        """What event n has in a column; of its features the first that is unsound."""
        if name == "x":
            stored, x = self.spec.problem.stored, column[:, : self.own_width]
            place = int(stored.unsound(x[n : n + 1])[0].argmax())
            return f"{x[n, place]} in field {stored.field[place]!r}"
        return str(column[n])

    def _expected(self, what: int, tasks: int) -> str:
        """What would be right, and the way out."""
        return {
            ROW: f"the place of its task in a table of {tasks}, counted from 0",
            KIND: "0 (Kind.OBSERVATION) or 1 (Kind.LABEL); leave other events out",
            TOPIC: f"one of {self.spec.topics}, counted from 0; or set spec.topics",
            OFFSET: "its place in the log, 0 or more",
            ORDER: "more than the event before it of this partition has; give events in log order, each once",
            TIME: "seconds since the epoch; leave out events without a time",
            LATEST: "a time in seconds, or infinity where nothing is known",
            HAS_X: "true: an observation has features; leave others out",
            X: "what features.encode makes of it; leave out rows that it finds a fault in",
            Y: f"{self.spec.problem.target.expected}; leave other labels out",
        }[what]


def _plain(column: Any) -> Any:
    """A column as compiled loops take it, whether it is strided, read-only or mapped from a file."""
    if type(column) is np.ndarray and column.flags.carray:
        return column
    return np.require(column, requirements=["C", "A", "W", "E"])
