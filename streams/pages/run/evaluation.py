"""Evaluation of a run from what it said: the `scores` and `predictions` it produced, each line counted once."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
import orjson
import polars as pl

from engine.evaluation.prequential.accumulators import ScoredLabels
from engine.evaluation.prequential.evaluate import Prequential, TaskScores
from engine.evaluation.prequential.report import ReportDict
from engine.targets import Classification, Regression
from engine.types import PREDICTORS, SERVED, THETA, Bool, Float32, Float64, Int64, Outcome
from streams.errors import InputError
from streams.logs.output import OutputLog
from streams.pages.run.lines import Kind, Members, lines_once
from streams.system.files import writing

EXPIRED, SCORED = Outcome.EXPIRED.name.lower(), Outcome.SCORED.name.lower()

MET: Members = {
    "outcome": pl.String, "task": pl.String, "id": pl.String, "time": pl.Float64, "expired": pl.Int64,
}  # fmt: skip
"""Of each line, to count outcomes."""

SCORE: Members = {
    "outcome": pl.String, "task": pl.String, "time": pl.Float64, "seen": pl.Int64,
    **{name: pl.List(pl.Float32) for name in PREDICTORS}, "loss": pl.Struct(dict.fromkeys(PREDICTORS, pl.Float64)),
}  # fmt: skip
"""Of a scored label, beside the label."""

KINDS: dict[type, Kind] = {str: pl.String, bool: pl.Boolean, int: pl.Int64, float: pl.Float64}
"""Of a class."""


@dataclass(frozen=True)
class Scores:
    """A batch of scored labels of one run, as it said them."""

    offset: Int64
    """[N] of the label."""
    task: list[str]
    labels: ScoredLabels
    """Predictors: `PREDICTORS`."""


def scores_of(
    log: OutputLog, target: Classification | Regression, since_s: float = -np.inf
) -> Iterator[Scores]:
    """The scored labels of a run whose event time is `since_s` or later.

    Raises:
        InputError: a line is damaged.

    """
    is_scored = pl.col("outcome") == SCORED
    sound = pl.all_horizontal(pl.col("offset", "outcome", "time").is_not_null()) & (
        ~is_scored
        | pl.all_horizontal(
            pl.col("task", "label", "seen", "loss").is_not_null(), _is_label(target), *_predicted(target)
        )
    )
    for lines in lines_once(log, {**SCORE, "label": label_kind(target)}, sound):
        kept = lines.filter(is_scored & (pl.col("time") >= since_s))
        if len(kept):
            yield Scores(
                offset=kept["offset"].to_numpy(),
                task=kept["task"].to_list(),
                labels=ScoredLabels(
                    y=_labels(kept, target),
                    prediction=np.stack([_of_all(kept[name], target) for name in PREDICTORS], axis=1),
                    loss=kept["loss"].struct.unnest().to_numpy(),
                    seen=kept["seen"].to_numpy(),
                    time_s=kept["time"].to_numpy(),
                ),
            )


def label_kind(target: Classification | Regression) -> Kind:
    """How labels are read: as the classes are, or as text where these are of several kinds."""
    if isinstance(target, Regression):
        return pl.Float64
    kinds = {*map(type, target.classes)}
    return KINDS[kinds.pop()] if len(kinds) == 1 else pl.String


def _labels(scored: pl.DataFrame, target: Classification | Regression) -> Float32:
    """Labels [N]: the index of their class, or their value."""
    if isinstance(target, Regression):
        return scored["label"].to_numpy().astype(np.float32)
    read = {name: k for k, name in enumerate(_as_read(target))}
    if len({*map(type, target.classes)}) == 1:
        return np.array([read[label] for label in scored["label"]], np.float32)
    index = {name: k for k, name in enumerate(target.classes)}
    labels = [orjson.loads(line)["label"] for line in scored["line"]]
    each = [index.get(label, read[text]) for label, text in zip(labels, scored["label"], strict=True)]
    return np.array(each, np.float32)


def _is_label(target: Classification | Regression) -> pl.Expr:
    """Whether a label is one of the classes."""
    return pl.lit(value=True) if isinstance(target, Regression) else pl.col("label").is_in(_as_read(target))


def _as_read(target: Classification) -> list[Any]:
    """The classes [C] as they are read of lines."""
    lines = b"\n".join(orjson.dumps({"label": name}) for name in target.classes)
    return pl.read_ndjson(lines, schema={"label": label_kind(target)})["label"].to_list()


def _predicted(target: Classification | Regression) -> Iterator[pl.Expr]:
    """Whether each prediction is there, with no more numbers than the target has."""
    most = len(target.classes) if isinstance(target, Classification) else 1
    return (pl.col(name).list.len().is_between(1, most) for name in PREDICTORS)


def _of_all(predictions: pl.Series, target: Classification | Regression) -> Float32:
    """Predictions [N, C], with the floor for classes that were appended after one was made."""
    if isinstance(target, Regression):
        return predictions.explode().to_numpy().reshape(-1, 1)
    found = np.full((len(predictions), len(target.classes)), target.floor, np.float32)
    found[np.arange(found.shape[1]) < predictions.list.len().to_numpy()[:, None]] = predictions.explode()
    return found


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
    losses = part.labels.loss[shared]
    for n, theta, served in zip(
        shared.tolist(), losses[:, THETA].tolist(), losses[:, SERVED].tolist(), strict=True
    ):
        total = sums.setdefault(part.task[n], [0, 0.0, 0.0])
        total[0] += 1
        total[1] += theta
        total[2] += served


def _task_scores(sums: dict[str, list[float]]) -> TaskScores:
    columns = np.array(list(sums.values()), np.float64).reshape(-1, 3)
    return TaskScores(list(sums), columns[:, 0].astype(np.int64), columns[:, 1], columns[:, 2])


class Met(NamedTuple):
    """Events that came to one outcome: how many, and the line of the first."""

    events: int
    first: Mapping[str, Any]


def outcomes_met(predictions: OutputLog, scores: OutputLog) -> dict[str, Met]:
    """What events came to, by outcome; and how many observations had `EXPIRED`, which is told beside other events.

    Raises:
        InputError: a line is damaged.

    """
    met: dict[str, Met] = {}
    sound = pl.all_horizontal(pl.col("offset", "outcome", "task", "id", "time").is_not_null())
    for log in (predictions, scores):
        for lines in lines_once(log, MET, sound):
            expired = lines.filter(pl.col("expired") > 0).with_columns(outcome=pl.lit(EXPIRED))
            for found, count in ((lines, pl.len()), (expired, pl.col("expired").sum())):
                by_outcome = found.group_by("outcome", maintain_order=True).agg(count, pl.col("line").first())
                for outcome, events, line in by_outcome.rows():
                    known = met.get(outcome) or Met(0, orjson.loads(line))
                    met[outcome] = known._replace(events=known.events + events)
    return met
