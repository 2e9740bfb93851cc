"""The events of a batch, column by column; what they must be, `engine.stream.requirements` says."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.types import Bool, Float32, Float64, Int64, UInt8, UInt64

DTYPES: dict[str, np.dtype[Any]] = {
    "row": np.dtype(np.int64),
    "kind": np.dtype(np.uint8),
    "id": np.dtype(np.uint64),
    "time_s": np.dtype(np.float64),
    "x": np.dtype(np.float32),
    "has_x": np.dtype(np.bool_),
    "y": np.dtype(np.float32),
    "topic": np.dtype(np.int64),
    "offset": np.dtype(np.int64),
    "partition": np.dtype(np.int64),
    "incarnation": np.dtype(np.uint64),
}
"""Of each column; a batch is not converted, since a number may change on the way."""


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
