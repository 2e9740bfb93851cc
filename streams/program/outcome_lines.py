"""What became of each event as a JSON line, and each alarm: formatted from columns, with members in one order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from engine.problem import Problem
from engine.stream.events import EventBatch
from engine.targets import Classification, Regression
from engine.types import PREDICTORS, Bool, Float32, Float64, Int64, Kind, Outcome, Outcomes
from streams.events.column_text import (
    NONE,
    JoinedLines,
    Texts,
    filled,
    incarnations_text,
    lines_text,
    numbers_text,
    texts_of,
    values_text,
)

PLACE = b'{"task":%b,"id":%b,"incarnation":"%b","partition":%b,"offset":%b,"time":%b'
OUTCOMES = texts_of([b',"outcome":"%b"' % outcome.name.lower().encode() for outcome in Outcome])
LABEL = b',"label":%b'
PREDICTION = b',"version":%b' + b"".join(b',"%b":[%%b]' % name.encode() for name in PREDICTORS)
LOSSES = b",".join(b'"%b":%%b' % name.encode() for name in PREDICTORS)
SCORE = b',"seen":%b,"waited_s":%b,"alarm":%b,"loss":{' + LOSSES + b"}"
EXPIRED = b',"expired":%b'
LINE = PLACE + b"%b" * 5 + b"}"
ALARM = PLACE + b',"seen":%b}'

DIGITS = 6
"""Predictions and losses are written to this many decimals, and below .1 to this many significant digits."""

SCALES: Float64 = np.array([float(f"1e{DIGITS + zeros}") for zeros in range(201)])
"""What numbers are multiplied by to be rounded, by how many zeros follow the point; exact, whatever the processor."""


class Lines(NamedTuple):
    """Lines of one output, and the row of each one's task."""

    rows: Int64
    lines: JoinedLines


def outcome_lines(
    problem: Problem, events: EventBatch, ids: Sequence[Any], tasks: Sequence[str], out: Outcomes
) -> dict[str, Lines]:
    """One line for each event that was folded now, in log order, and one for each alarm.

    `ids` [N] are those of the observations, as the records have them; `tasks` [U] belong to the rows.
    """
    is_new, is_label = out.code != Outcome.DUPLICATE, events.kind == Kind.LABEL
    is_scored = out.code == Outcome.SCORED
    is_predicted = is_scored | (out.code == Outcome.PREDICTED)
    places = _places(events, values_text(ids), values_text(tasks))
    columns = [
        *places,
        OUTCOMES.take(out.code.astype(np.int64)),
        _of_some(is_label, lambda at: filled(LABEL, _labels(problem.target, events.y[at]))),
        _of_some(is_predicted, lambda at: _predictions(problem.target, out, at)),
        _of_some(is_scored, lambda at: _scores(out, at)),
        _of_some(out.expired != 0, lambda at: filled(EXPIRED, numbers_text(out.expired[at]))),
    ]
    seen = numbers_text(out.seen)
    return {
        "predictions": _lines(events, is_new & ~is_label, LINE, columns),
        "scores": _lines(events, is_new & is_label, LINE, columns),
        "drifts": _lines(events, is_new & out.alarm, ALARM, [*places, seen]),
    }


def _lines(events: EventBatch, said: Bool, template: bytes, columns: Sequence[Texts]) -> Lines:
    """Lines of some events."""
    index = np.flatnonzero(said)
    return Lines(events.row[index], lines_text(template, *(column.take(index) for column in columns)))


def rounded(values: Float64) -> Float64:
    """Numbers as they are written.

    >>> rounded(np.array([12.3456789, 1.23456789e-9, 0.0])).tolist()
    [12.345679, 1.23457e-09, 0.0]
    """
    size = np.abs(values)
    small = (size < 0.1) & (size > 0)
    near: Float64 = np.rint(values * SCALES[0]) / SCALES[0]
    if not small.any():
        return near
    zeros = -1 - np.floor(np.log10(size[small])).astype(np.int64)
    scale = SCALES[np.minimum(zeros, len(SCALES) - 1)]
    near[small] = np.rint(values[small] * scale) / scale
    return near


def _places(events: EventBatch, ids: Texts, tasks: Texts) -> list[Texts]:
    """The columns of `PLACE`: whose event it is, and where and when it was."""
    return [
        tasks.take(events.row),
        ids,
        incarnations_text(events.incarnation),
        numbers_text(events.partition),
        numbers_text(events.offset),
        numbers_text(events.time_s),
    ]


def _labels(target: Classification | Regression, y: Float32) -> Texts:
    """Labels by the names of their classes, or as they are."""
    if isinstance(target, Regression):
        return numbers_text(y.astype(np.float64))
    return values_text(target.classes).take(y.astype(np.int64))


def _predictions(target: Classification | Regression, out: Outcomes, index: Int64) -> Texts:
    """Predictions of events, of the classes that are named and not the room for more; and theta's version."""
    named = len(target.classes) if isinstance(target, Classification) else None
    each = rounded(out.prediction[index, :, :named].astype(np.float64))
    texts = numbers_text(each.reshape(-1, each.shape[-1]))
    by_predictor = (texts[k :: len(PREDICTORS)] for k in range(len(PREDICTORS)))
    return filled(PREDICTION, numbers_text(out.version[index]), *by_predictor)


def _scores(out: Outcomes, index: Int64) -> Texts:
    """What was lost by each prediction of events, and what is said beside it."""
    losses = numbers_text(rounded(out.loss[index]).reshape(-1))
    beside = map(numbers_text, (out.seen[index], out.waited_s[index], out.alarm[index]))
    return filled(SCORE, *beside, *(losses[k :: len(PREDICTORS)] for k in range(len(PREDICTORS))))


def _of_some(there: Bool, texts_at: Callable[[Int64], Texts]) -> Texts:
    """The texts of those of N events that have one, among empty ones."""
    index = np.flatnonzero(there)
    return (texts_at(index) if len(index) else NONE).among(index, len(there))
