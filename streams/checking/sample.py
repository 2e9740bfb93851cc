"""One pass over a log: every event as the stream would take it, in arrays of bounded size."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.features.categories import category_text
from engine.features.columns import Category, Column, Cyclic, Numeric
from engine.problem import Problem
from engine.types import Float32, Float64, Int64, Kind
from streams.events.columns import taken, values_of
from streams.events.decoding import Decoded, Tally, decode, tally
from streams.events.reading import Rejected, readable_identity
from streams.events.record import Record
from streams.logs.base import ReplayLog

MOST_ROWS = 1_000_000
"""At most this many observations are looked at, the first in event time."""

MOST_NUMBERS = 32_000_000
"""Nor are more stored numbers than this: a wide table is looked at in fewer rows."""

EVENTS_AT_ONCE = 16_384
NUMBERS_AT_ONCE = 4_000_000

OUT_OF_RANGE = "out_of_range"
"""The reason for which a number outside of the target's range is refused."""


@dataclass(frozen=True)
class FeatureValues:
    """One feature of N observations."""

    column: Column
    values: Float64
    """[N] the number, the angle of a cyclic one, or the code of a category or text; NaN for a missing number."""
    missing: int
    buckets: Int64
    """[distinct] the bucket of each code; empty for a feature that is no category."""

    @property
    def is_number(self) -> bool:
        """Whether values have an order."""
        return isinstance(self.column, Numeric | Cyclic)


@dataclass(frozen=True)
class Sample:
    """The first E events of a log that were not refused, N observations among them."""

    end: int
    """Events of the whole log."""
    read: int
    """Events looked at, refused ones included."""
    rows: int
    """Observations looked at, refused ones included."""
    tasks: int
    task: Int64
    """[E] number of the task, 0 to tasks - 1."""
    labels: Int64
    """[E] 1 for a label, 0 for an observation."""
    id: Int64
    """[E] hash of the observation's id."""
    time_s: Float64
    """[E]"""
    y: Float64
    """[E] class index or number; undefined for an observation."""
    features: tuple[FeatureValues, ...]
    refused: Mapping[str, Tally]
    unseen: frozenset[tuple[int, int]]
    """Task and id of observations that were refused: their labels have none to meet."""
    refused_labels: int
    outside: Float64
    """Labels that were refused because they lie outside of the target's range."""

    @property
    def whole(self) -> bool:
        """Whether every event was looked at."""
        return self.read == self.end


def read_sample(log: ReplayLog, problem: Problem, most_rows: int = MOST_ROWS) -> Sample:
    """Poll a log from its start until its end, or until enough was seen."""
    log.seek(0)
    most_rows = min(most_rows, max(1, MOST_NUMBERS // max(problem.features.width, 1)))
    at_once = max(1, min(EVENTS_AT_ONCE, NUMBERS_AT_ONCE // max(problem.features.width, 1)))
    gathered = _Gathered(problem)
    while gathered.rows < most_rows and (polled := log.poll(min(at_once, most_rows - gathered.rows))):
        gathered.add(decode(polled, problem), log)
    return gathered.sample(log)


class _Gathered:
    """What a pass has seen so far."""

    def __init__(self, problem: Problem) -> None:
        self.rows = 0
        self.tasks: dict[str, int] = {}
        self.refused: dict[str, Tally] = {}
        self.outside = array("d")
        self.unseen: set[tuple[str, int]] = set()
        self.refused_labels = 0
        self.events: list[tuple[Int64, Int64, Int64, Float64, Float64]] = []
        self.features = [_Feature(column, part) for column, part in _parts(problem)]

    def add(self, decoded: Decoded, log: ReplayLog) -> None:
        """Take a poll."""
        events = decoded.events
        numbers = np.array([self.tasks.setdefault(task, len(self.tasks)) for task in decoded.tasks], np.int64)
        self.events.append((
            numbers[events.row] if len(events) else np.zeros(0, np.int64),
            events.kind.astype(np.int64),
            events.id.view(np.int64),
            events.time_s,
            events.y.astype(np.float64),
        ))  # fmt: skip
        observed = np.flatnonzero(events.kind == Kind.OBSERVATION)
        records = taken(decoded.records, observed)
        self.rows += len(observed)
        for feature in self.features:
            feature.add(records, events.x[observed])
        self._refuse(decoded.rejected, log)

    def _refuse(self, rejected: Sequence[Rejected], log: ReplayLog) -> None:
        self.refused = tally(self.refused, ((r.record, r.reason, r.detail) for r in rejected), log.origin)
        self.outside.extend(float(r.record.label) for r in rejected if r.reason == OUT_OF_RANGE)
        observed = [r.record for r in rejected if r.record.kind == Kind.OBSERVATION]
        self.rows += len(observed)
        self.unseen.update(filter(None, map(readable_identity, observed)))
        self.refused_labels += len(rejected) - len(observed)

    def sample(self, log: ReplayLog) -> Sample:
        """Everything in arrays."""
        task, labels, identity, time_s, y = (
            np.concatenate(column) if column else np.zeros(0)
            for column in (zip(*self.events, strict=True) if self.events else [()] * 5)
        )
        return Sample(
            log.end(), log.position(), self.rows, len(self.tasks),
            task.astype(np.int64), labels.astype(np.int64), identity.astype(np.int64), time_s, y,
            tuple(feature.values() for feature in self.features), self.refused, self._unseen(),
            self.refused_labels, np.array(self.outside),
        )  # fmt: skip

    def _unseen(self) -> frozenset[tuple[int, int]]:
        """By number of the task, and id as the arrays hold it; a task without a sound event has no labels either."""
        ids = np.array([identity for _, identity in self.unseen], np.uint64).view(np.int64).tolist()
        known = zip((self.tasks.get(task) for task, _ in self.unseen), ids, strict=True)
        return frozenset((task, identity) for task, identity in known if task is not None)


def _parts(problem: Problem) -> Iterator[tuple[Column, slice]]:
    """Each feature, and where its stored numbers lie."""
    start = 0
    for column in problem.features.columns:
        yield column, slice(start, start + column.width)
        start += column.width


class _Feature:
    """The values of one feature, seen so far."""

    def __init__(self, column: Column, part: slice) -> None:
        self._column, self._part = column, part
        self._chunks: list[Float64] = []
        self._missing = 0
        self._codes: dict[Any, int] = {}
        self._buckets = array("q")

    def add(self, records: Sequence[Record], x: Float32) -> None:
        """Take the observations of a poll, and what is stored of them."""
        stored = x[:, self._part]
        if isinstance(self._column, Numeric):
            self._missing += int(np.isnan(stored).sum())
            self._chunks.append(stored[:, 0].astype(np.float64))
        elif isinstance(self._column, Cyclic):
            self._chunks.append(np.arctan2(stored[:, 0], stored[:, 1]).astype(np.float64))
        else:
            self._chunks.append(self._coded(records, stored[:, 0]))

    def _coded(self, records: Sequence[Record], stored: Float32) -> Float64:
        """Number values by their text, which is what the encoder hashes."""
        values = values_of(records, self._column.name)
        written = category_text if isinstance(self._column, Category) else str
        raw = [None if value is None else written(value) for value in values]
        self._missing += sum(value is None for value in raw)
        codes = np.empty(len(raw), np.float64)
        for n, value in enumerate(raw):
            # Of a long text its hash is enough; text is hashed and then written down once, by whichever comes first.
            code = self._codes.setdefault(hash(value), len(self._codes))
            if code == len(self._buckets):
                self._buckets.append(int(stored[n]))
            codes[n] = code
        return codes

    def values(self) -> FeatureValues:
        """Everything in arrays."""
        values = np.concatenate(self._chunks) if self._chunks else np.zeros(0)
        buckets = np.array(self._buckets if isinstance(self._column, Category) else [], np.int64)
        return FeatureValues(self._column, values, self._missing, buckets)
