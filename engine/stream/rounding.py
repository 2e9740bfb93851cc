"""Numbers that a task remembers in half precision: rounded when they come, to eight significant bits.

That is the upper half of a float32; the lower half is a word of zeros, which a store leaves out as it does any other
(`engine.stream.packed`). A number is rounded before anything is predicted from it, so a row has the same bits
whether it comes from memory, from the store, or again from the log.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from engine.compiled import compiled, compiled_as, vectors
from engine.learners.base import Learner, TakesSteps, fast_size
from engine.stream.spec import StreamSpec
from engine.types import Float32, Int64

UPPER, BELOW_HALF, LAST, BITS = (np.uint32(n) for n in (0xFFFF_0000, 0x7FFF, 1, 16))


def own_places(spec: StreamSpec) -> Int64:
    """Where the numbers among an event's own features lie that are rounded."""
    columns = [
        range(start, start + column.width)
        for start, column in spec.problem.features.starts()
        if spec.is_rounded(column)
    ]
    return np.array([place for places in columns for place in places], np.int64)


def past_places(spec: StreamSpec) -> Int64:
    """And where those of its task's history do."""
    past = spec.problem.history_columns
    rounds = spec.memory.precision == "half" and spec.problem.history is not None
    return np.array(past.scales if rounds else [], np.int64)


def fast_places(spec: StreamSpec, learner: Learner) -> Int64:
    """Which fast parameters are rounded: all of a learner that takes steps; another may keep labels among its own."""
    rounds = spec.memory.precision == "half" and isinstance(learner, TakesSteps)
    return np.arange(fast_size(learner) if rounds else 0)


@compiled
def rounded(value: float) -> Any:
    """The nearest float32 of eight significant bits, of two as near the even one; what is finite stays so."""
    if math.isnan(value):
        return np.float32(np.nan)
    bits = np.float32(value).view(np.uint32)
    up = np.uint32(np.uint32(bits + BELOW_HALF + (bits >> BITS & LAST)) & UPPER).view(np.float32)
    if math.isinf(up) and not math.isinf(value):
        return np.uint32(bits & UPPER).view(np.float32)
    return up


@compiled
def round_at(x: Any, places: Any) -> None:
    """Round the numbers at some places of a row [W]."""
    for i in range(len(places)):
        x[places[i]] = rounded(x[places[i]])


@compiled_as("float32[,]", *vectors(1))
def round_all(x: Float32, places: Int64) -> None:
    """Round the numbers at some places of rows [N, W]."""
    for n in range(len(x)):
        round_at(x[n], places)


def remembered(x: Float32, places: Int64) -> Float32:
    """The same rows [N, W], rounded where they lie."""
    if len(places):
        round_all(x, places)
    return x
