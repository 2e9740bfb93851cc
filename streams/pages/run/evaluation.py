"""Evaluation of a run from what it said: the `scores` and `drifts` it produced, each line counted once.

Lines may come twice after a crash. They carry the place of the event that caused them, and offsets only
rise in one partition of one incarnation of a topic, so a repeat is a line at or below the last offset read of it.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
import orjson

from engine.evaluation.prequential.accumulators import ScoredLabels
from engine.evaluation.prequential.evaluate import Prequential, TaskScores
from engine.evaluation.prequential.report import ReportDict
from engine.targets import Classification, Regression
from engine.types import PREDICTORS, SERVED, THETA, Bool, Float32, Float64, Int64, Outcome
from streams.errors import InputError
from streams.events.record import told_incarnation
from streams.logs.output import OutputLog
from streams.system.files import writing

LINES_AT_ONCE = 16_384

EXPIRED = Outcome.EXPIRED.name.lower()


@dataclass(frozen=True)
class Scores:
    """A batch of scored labels of one run, as it said them."""

    offset: Int64
    """[N] of the label."""
    task: list[str]
    labels: ScoredLabels
    """Predictors: `PREDICTORS`."""


def lines_once(log: OutputLog, *members: str) -> Iterator[list[dict[str, Any]]]:
    """The lines of an output in batches, without repeats; each holds the members.

    Raises:
        InputError: a line is damaged.

    """
    position, last = 0, dict[tuple[int, int], int]()
    while True:
        raw, after = log.read(position, LINES_AT_ONCE)
        if not raw:
            return
        fresh = []
        for n, content in enumerate(raw):
            try:
                line, source, offset = _placed(content, members)
            except (ValueError, TypeError, KeyError) as error:
                raise _damaged(log, log.read(position, n)[1], error) from error
            if offset > last.get(source, -1):
                last[source] = offset
                fresh.append(line)
        position = after
        yield fresh


def _placed(content: bytes, members: tuple[str, ...]) -> tuple[dict[str, Any], tuple[int, int], int]:
    """A line, whose log's it is, and its offset there."""
    line = orjson.loads(content)
    if not isinstance(line, dict) or type(line.get("offset")) is not int:
        raise ValueError("no object with an offset")
    if missing := [name for name in members if name not in line]:
        raise ValueError(f"no {missing[0]!r}")
    return line, (told_incarnation(line), int(line.get("partition", 0))), line["offset"]


def _damaged(log: OutputLog, position: int, error: Exception) -> InputError:
    return InputError(
        f"{log.place(position)} is damaged ({error}); rows and theta do not hang on it: delete the line, or move the "
        "file away, and the page is of what is left, since `reptide rebuild` makes rows anew and no line of an output"
    )


def scores_of(
    log: OutputLog, target: Classification | Regression, since_s: float = -np.inf
) -> Iterator[Scores]:
    """The scored labels of a run whose event time is `since_s` or later."""
    scored = Outcome.SCORED.name.lower()
    index = {c: k for k, c in enumerate(target.classes)} if isinstance(target, Classification) else None
    for lines in lines_once(log, "outcome", "time"):
        kept = [line for line in lines if line["outcome"] == scored and line["time"] >= since_s]
        if kept:
            yield Scores(
                offset=np.array([line["offset"] for line in kept], np.int64),
                task=[line["task"] for line in kept],
                labels=ScoredLabels(
                    y=np.array(
                        [index[line["label"]] if index else line["label"] for line in kept], np.float32
                    ),
                    prediction=np.array(
                        [[_of_all(line[p], target) for p in PREDICTORS] for line in kept], np.float32
                    ),
                    loss=np.array([[line["loss"][p] for p in PREDICTORS] for line in kept], np.float64),
                    seen=np.array([line["seen"] for line in kept], np.int64),
                    time_s=np.array([line["time"] for line in kept], np.float64),
                ),
            )


def _of_all(prediction: list[float], target: Classification | Regression) -> list[float]:
    """A prediction, with the floor for classes that were appended after it was made."""
    if isinstance(target, Regression):
        return prediction
    return prediction + [target.floor] * (len(target.classes) - len(prediction))


@dataclass(frozen=True)
class Extra:
    """Further predictors for the same labels, by the offset of the label."""

    names: tuple[str, ...]
    offset: Int64
    """[M] sorted."""
    prediction: Float32
    """[M, k, C]"""
    loss: Float64
    """[M, k]"""


def extra_of(names: tuple[str, ...], which: tuple[int, ...], scores: Iterator[Scores]) -> Extra:
    """Some of another run's predictors, under other names."""
    parts = list(scores)
    chosen = list(which)
    return Extra(
        names,
        np.concatenate([part.offset for part in parts]),
        np.concatenate([part.labels.prediction[:, chosen] for part in parts]),
        np.concatenate([part.labels.loss[:, chosen] for part in parts]),
    )


def write_extras(path: Path, extras: Sequence[Extra]) -> None:
    """Keep predictors in a file."""
    arrays = {f"{n}.{name}": value for n, extra in enumerate(extras) for name, value in vars(extra).items()}
    with writing(path):
        np.savez(path, **arrays)


def read_extras(path: Path) -> tuple[Extra, ...]:
    """The predictors that `write_extras` kept.

    Raises:
        InputError: the file is damaged.

    """
    try:
        with path.open("rb") as file, np.load(file) as arrays:
            names = [key for key in arrays.files if key.endswith(".names")]
            return tuple(
                Extra(
                    tuple(arrays[key].tolist()),
                    *(arrays[f"{n}.{name}"] for name in ("offset", "prediction", "loss")),
                )
                for n, key in enumerate(names)
            )
    except (ValueError, KeyError, EOFError, AttributeError, BadZipFile, zlib.error) as error:
        raise InputError(
            f"{path} is damaged ({error}): delete it, and have the run that made it make it anew"
        ) from error


def binary_extra(name: str, offset: Int64, probability: Float64, y: Float32) -> Extra:
    """One predictor of the second of two classes, scored by the labels y [M]."""
    both = np.stack([1 - probability, probability], axis=1)
    loss = -np.log(np.where(y == 1, probability, 1 - probability))
    return Extra((name,), offset, both[:, None].astype(np.float32), loss[:, None])


def evaluate(
    target: Classification | Regression, scores: Iterator[Scores], extras: tuple[Extra, ...] = ()
) -> ReportDict:
    """One report over all predictors, on the labels that every one of them has scored."""
    if isinstance(target, Classification):
        target = replace(target, reserve=0)  # outputs speak of classes that are named alone
    evaluation = Prequential(target, [*PREDICTORS, *(name for extra in extras for name in extra.names)])
    sums: dict[str, list[float]] = {}
    for part in scores:
        shared = np.flatnonzero(
            np.all([_among(part.offset, extra.offset) for extra in extras] or [part.offset >= 0], axis=0)
        )
        places = [np.searchsorted(extra.offset, part.offset[shared]) for extra in extras]
        labels = part.labels
        evaluation.add(
            ScoredLabels(
                y=labels.y[shared],
                prediction=_beside(
                    labels.prediction[shared], [e.prediction[p] for e, p in zip(extras, places, strict=True)]
                ),
                loss=_beside(labels.loss[shared], [e.loss[p] for e, p in zip(extras, places, strict=True)]),
                seen=labels.seen[shared],
                time_s=labels.time_s[shared],
            )
        )
        _add_task_sums(sums, part, shared)
    return evaluation.report(_task_scores(sums)).as_dict()


def _among(offset: Int64, ordered: Int64) -> Bool:
    """Whether each offset is one of others, which are sorted."""
    if not len(ordered):
        return np.zeros(len(offset), np.bool_)
    nearest = np.minimum(np.searchsorted(ordered, offset), len(ordered) - 1)
    return np.equal(ordered[nearest], offset)


def _beside(own: Any, others: list[Any]) -> Any:
    return np.concatenate([own, *others], axis=1)


def _add_task_sums(sums: dict[str, list[float]], part: Scores, shared: Int64) -> None:
    for n in shared.tolist():
        total = sums.setdefault(part.task[n], [0, 0.0, 0.0])
        total[0] += 1
        total[1] += part.labels.loss[n, THETA]
        total[2] += part.labels.loss[n, SERVED]


def _task_scores(sums: dict[str, list[float]]) -> TaskScores:
    columns = np.array(list(sums.values()), np.float64).reshape(-1, 3)
    return TaskScores(list(sums), columns[:, 0].astype(np.int64), columns[:, 1], columns[:, 2])


class Met(NamedTuple):
    """Events that came to one outcome: how many, and the line of the first."""

    events: int
    first: Mapping[str, Any]


def outcomes_met(predictions: OutputLog, scores: OutputLog) -> dict[str, Met]:
    """What events came to, by outcome; and how many observations had `EXPIRED`, which is told beside other events."""
    met: dict[str, Met] = {}
    for log in (predictions, scores):
        for line in (line for lines in lines_once(log, "outcome", "task", "id", "time") for line in lines):
            for outcome, events in ((line["outcome"], 1), (EXPIRED, line.get("expired", 0))):
                if events:
                    known = met.get(outcome, Met(0, line))
                    met[outcome] = known._replace(events=known.events + events)
    return met
