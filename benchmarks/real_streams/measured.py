"""One stream, measured: the program with nothing but defaults, the baselines, and what tells them apart."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.real_streams.baselines import CHEAP, Variants, best
from benchmarks.real_streams.judge import (
    Predicted,
    clusters,
    difference,
    few_labels,
    figures,
    judged_labels,
)
from benchmarks.real_streams.ours import Ours, streamed
from benchmarks.real_streams.prepared import Prepared, prepared
from benchmarks.real_streams.sources import Source
from benchmarks.real_streams.speed import speeds
from benchmarks.real_streams.wide_deep import wide_deep_task
from benchmarks.real_streams.with_river import river
from engine.types import Int64

SERVED, THETA, ADAPTED = "served", "theta", "adapted"
POOLED = "pooled_finetuned"
POOLED_LR = (0.1, 0.03, 0.3)
"""Inner step sizes of the fine-tuning; the first alone where there are many rows."""

RULES = ("reptile", "fomaml", "maml", "pooled")
AGAINST = (THETA, *CHEAP, "wide_deep_task", POOLED, "river")
"""What counts as a baseline; another of our own predictors does not."""

FEW_LABELS = (SERVED, THETA, "base_rate", "linear_task")

BASELINES: dict[str, tuple[str, ...]] = {
    "none": (),
    "speed": (),
    "cheap": tuple(CHEAP),
    "all": (*CHEAP, "wide_deep_task", POOLED, "river"),
}

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Choices:
    """What to measure."""

    baselines: tuple[str, ...] = BASELINES["all"]
    rows: int | None = None
    """How many rows of each stream; all where it is not given."""
    quick: bool = False
    """Whether grids have one entry where an entry takes long."""
    are_timed: bool = True
    """Whether river's and deep-river's events a second are measured beside ours."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Settings of ours that are not the defaults."""


def measured(source: Source, folder: Path, choices: Choices, progress: Progress) -> dict[str, Any]:
    """Figures of every predictor of a stream, in a folder that is removed afterwards."""
    stream = _written(source, folder, choices, progress)
    ours = streamed(stream, folder, "ours", choices.changes)
    judged = judged_labels(len(stream.y), ours.scored)
    progress(f"{source.name}: {len(judged):,} labels judged, {ours.events_per_s:,.0f} events/s")
    timed = speeds(stream, ours.events_per_s) if choices.are_timed else {}
    if timed:
        progress(f"{source.name}: {timed['x_river']:.2f} x river")
    said, chosen = dict(ours.predictors), dict[str, str]()
    for name in choices.baselines:
        found = best(stream, judged, _variants(name, folder, choices))
        said[name], chosen[name] = found.said, found.chosen
        progress(f"{source.name}: {name}, {found.seconds:.1f} s, best with {found.chosen}")
    shutil.rmtree(folder)
    return _figures(stream, ours, judged, said) | {"chosen": chosen, **timed}


def rules_compared(source: Source, folder: Path, choices: Choices, progress: Progress) -> dict[str, Any]:
    """Served and theta under each outer rule, all else equal."""
    stream = _written(source, folder, choices, progress)
    found: dict[str, Any] = {}
    for rule in RULES:
        ours = streamed(stream, folder, rule, {"outer.rule": rule})
        judged = judged_labels(len(stream.y), ours.scored)
        found[rule] = {
            name: figures(_at(ours.predictors[name], judged), stream.y[judged], stream.target)
            for name in (SERVED, THETA)
        }
        progress(f"{source.name}: {rule}")
    shutil.rmtree(folder)
    return found


def _written(source: Source, folder: Path, choices: Choices, progress: Progress) -> Prepared:
    stream = prepared(source, source.write(folder, choices.rows))
    progress(f"{source.name}: {len(stream.events.x):,} rows, {len(stream.y):,} labels")
    return stream


def _variants(name: str, folder: Path, choices: Choices) -> Callable[[Prepared], Variants]:
    if name in CHEAP:
        return CHEAP[name]
    if name == POOLED:
        return lambda stream: _pooled(stream, folder, choices)
    return {"wide_deep_task": wide_deep_task, "river": river}[name]


def _pooled(stream: Prepared, folder: Path, choices: Choices) -> Variants:
    """Our program with pooled training, its adapted predictor for each inner step size."""
    for lr in POOLED_LR[:1] if choices.quick or stream.source.heavy else POOLED_LR:
        ours = streamed(stream, folder, f"pooled-{lr:g}", {"outer.rule": "pooled", "inner.lr": lr})
        prediction = ours.predictors[ADAPTED].prediction
        yield f"inner.lr {lr:g}", np.where(ours.scored[:, None], prediction, 1 / stream.target.outputs)


def _figures(stream: Prepared, ours: Ours, judged: Int64, said: Mapping[str, Predicted]) -> dict[str, Any]:
    y, task = stream.y[judged], stream.events.task[stream.row[judged]]
    here = {name: _at(one, judged) for name, one in said.items()}
    cluster = clusters(task)
    gaps = {
        name: difference(here[SERVED].loss, one.loss, cluster) for name, one in here.items() if name != SERVED
    }
    few = {name: here[name].loss for name in FEW_LABELS if name in here}
    return {
        **{name: figures(one, y, stream.target) for name, one in here.items()},
        "differences": gaps,
        "worse_than": [name for name in AGAINST if name in gaps and gaps[name]["low"] > 0],
        "few_labels": few_labels(few, stream.seen[judged]),
        "events_per_s": ours.events_per_s,
        "labels": {"known": len(stream.y), "scored": int(ours.scored.sum()), "judged": len(judged)},
        "tasks": int(stream.events.task.max()) + 1,
    }


def _at(said: Predicted, judged: Int64) -> Predicted:
    return Predicted(said.prediction[judged], said.loss[judged])
