"""What the demonstration is compared with: the running base rate, and the best of river on the same features.

Both see the same events in the same order, and learn from a label only when it is known.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from river import compose, linear_model, optim, preprocessing

from engine.types import Float64, Int64, Kind
from streams.events.record import Record
from streams.logs.base import EventLog

BATCH = 4096
CATEGORIES = ("origin", "carrier", "dest", "weekday")
CYCLES = {"minute_of_day": (1440, 720)}
FLOOR = 1e-6


class Predicted(NamedTuple):
    """A predictor's probability that the flight is late, by the offset of the label that judged it."""

    offset: Int64
    probability: Float64


def running_base_rate(log: EventLog) -> Predicted:
    """The share of late flights among all labels so far."""
    late, labels = 0, 0
    pending: dict[Any, float] = {}
    scored = []
    for record in _records(log):
        if record.kind == Kind.OBSERVATION:
            pending[record.id] = (late + 0.5) / (labels + 1)
        elif record.id in pending:
            scored.append((record.offset, pending.pop(record.id)))
            late, labels = late + int(record.label), labels + 1
    return _predicted(scored)


def river_logistic(log: EventLog, numbers: Sequence[str], rate: float, l2: float = 0.0) -> Predicted:
    """Logistic regression with a running standardisation of `numbers`, and one weight for each category."""
    scaler = compose.Select(*numbers, *_cycle_names()) | preprocessing.StandardScaler()
    categories = compose.Select(*CATEGORIES) | preprocessing.OneHotEncoder()
    model = (scaler + categories) | linear_model.LogisticRegression(optim.SGD(rate), l2=l2)
    pending: dict[Any, tuple[dict[str, Any], float]] = {}
    scored = []
    for record in _records(log):
        if record.kind == Kind.OBSERVATION and record.fields is not None:
            x = _features(record, numbers)
            pending[record.id] = (x, model.predict_proba_one(x).get(True, 0.5))
        elif record.kind == Kind.LABEL and record.id in pending:
            x, probability = pending.pop(record.id)
            scored.append((record.offset, probability))
            model.learn_one(x, bool(record.label))
    return _predicted(scored)


def _records(log: EventLog) -> Iterator[Record]:
    while polled := log.poll(BATCH):
        yield from polled[0].records


def _features(record: Record, numbers: Sequence[str]) -> dict[str, Any]:
    """The fields that our own encoders read; a missing number counts as 0 and raises a flag."""
    fields = record.fields or {}
    x: dict[str, Any] = {name: 0.0 if fields[name] is None else float(fields[name]) for name in numbers}
    for name, periods in CYCLES.items():
        for period in periods:
            turn = 2 * math.pi * fields[name] / period
            x[f"{name}/{period} sin"], x[f"{name}/{period} cos"] = math.sin(turn), math.cos(turn)
    return x | {name: fields[name] for name in CATEGORIES}


def _cycle_names() -> list[str]:
    return [
        f"{name}/{p} {part}" for name, periods in CYCLES.items() for p in periods for part in ("sin", "cos")
    ]


def _predicted(scored: Sequence[tuple[int, float]]) -> Predicted:
    offset, probability = zip(*scored, strict=True)
    return Predicted(np.array(offset, np.int64), np.clip(np.array(probability), FLOOR, 1 - FLOOR))
