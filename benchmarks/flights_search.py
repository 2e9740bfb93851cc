"""Choose the demonstration's settings on January to March, every contender with the same budget.

Flights from April on are cut off before anything is read. January and February warm up; the log loss on
March's labels decides. Ours, pooled training, pooled training with fine-tuning, and river's logistic
regression each get a full grid of eight configurations. The task key, ours and the fine-tuned model's, is
chosen first.
"""

from __future__ import annotations

import itertools
import json
import tempfile
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from benchmarks.reporting import arguments, show, write
from engine.types import PREDICTORS, Float64
from streams.assembly.embedded import embedded, input_log
from streams.assembly.learners import problem_of
from streams.demo.baselines import river_logistic
from streams.demo.embedded import REPORTED_FROM_S, flight_settings
from streams.demo.table import write_flights
from streams.pages.run.evaluation import scores_of
from streams.program.embedded import run
from streams.settings.tree import Settings

JUDGED_FROM_S = datetime(2013, 3, 1, 5, tzinfo=UTC).timestamp()
PROCESSES = 2

KEYS = (["origin"], ["carrier"], ["origin", "carrier"])
OURS: dict[str, tuple[Any, ...]] = {
    "inner.lr": (0.04, 0.08),
    "outer.lr": (0.0005, 0.001),
    "hedge.share": (0.0, 0.01),
}
FOR_POOLED = {"outer.rule": "pooled", "outer.support_rate": 0.0}
POOLED: dict[str, tuple[Any, ...]] = {
    "outer.lr": (0.0005, 0.001),
    "inner.lr": (0.02, 0.04, 0.06, 0.1),
}
RIVER: dict[str, tuple[Any, ...]] = {"rate": (0.0005, 0.001, 0.002, 0.01), "l2": (0.0, 1e-4)}

Found = dict[str, float]


def grid(axes: dict[str, tuple[Any, ...]]) -> list[dict[str, Any]]:
    """Every combination."""
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def streamed(folder: Path, changes: dict[str, Any]) -> Found:
    """One run of the engine: log loss and AUC of each of its predictors on March's labels."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=folder) as state:
        program = embedded(_settings(folder, {**changes, "run.directory": state, "run.durable": False}))
        run(program, lambda _: None)
        target = program.engine.spec.problem.target
        parts = list(scores_of(program.outputs["scores"], target, JUDGED_FROM_S))
        program.close()
    y = np.concatenate([part.labels.y for part in parts])
    p = np.concatenate([part.labels.prediction[:, :, 1] for part in parts]).astype(np.float64)
    return {
        f"{name}.{key}": value
        for k, name in enumerate(PREDICTORS)
        for key, value in judged(y, p[:, k]).items()
    }


def rivered(folder: Path, changes: dict[str, Any]) -> Found:
    """One run of river's logistic regression."""
    settings = _settings(folder, {})
    numbers = [feature.name for feature in settings.features if feature.encoder == "numeric"]
    log = input_log(settings, problem_of(settings), None)
    predicted = river_logistic(log, numbers, **changes)
    table = pl.read_parquet(folder / "flights.parquet", columns=["id", "late", "landed"])
    labels = _labels_by_offset(settings, table)
    y, known = labels[predicted.offset, 0], labels[predicted.offset, 1]
    judgeable = known >= JUDGED_FROM_S
    return {f"river.{k}": v for k, v in judged(y[judgeable], predicted.probability[judgeable]).items()}


def judged(y: Float64, p: Float64) -> Found:
    """Log loss, and the area under the curve by ranks (ties share their mean rank)."""
    _, inverse, counts = np.unique(p, return_inverse=True, return_counts=True)
    rank = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    late, on_time = float((y == 1).sum()), float((y == 0).sum())
    auc = (rank[y == 1].sum() - late * (late + 1) / 2) / (late * on_time)
    return {"log_loss": float(-np.log(np.where(y == 1, p, 1 - p)).mean()), "auc": float(auc)}


def _labels_by_offset(settings: Settings, table: pl.DataFrame) -> Float64:
    """Label and time of each label event, by offset; NaN at observations."""
    by_id = {name: (late, landed) for name, late, landed in table.iter_rows()}
    log = input_log(settings, problem_of(settings), None)
    labels = np.full((log.end(), 2), np.nan)
    while polled := log.poll(65_536):
        for record in polled[0].records:
            if record.label is not None:
                late, landed = by_id[record.id]
                labels[record.offset] = late, landed.timestamp()
    return labels


def _settings(folder: Path, changes: dict[str, Any]) -> Settings:
    return flight_settings(folder, "unused", changes)


def _first_quarter(folder: Path) -> None:
    write_flights(folder / "year.parquet")
    year = pl.read_parquet(folder / "year.parquet")
    limit = datetime.fromtimestamp(REPORTED_FROM_S, UTC)
    known = pl.col("landed") < limit
    quarter = year.filter(pl.col("departure") < limit).with_columns(
        pl.when(known).then("late").alias("late"), pl.when(known).then("landed").alias("landed")
    )
    quarter.write_parquet(folder / "flights.parquet")
    (folder / "year.parquet").unlink()


def table_of(title: str, tried: list[dict[str, Any]], found: list[Found], by: str) -> dict[str, Any]:
    """Print what was tried, best first; returns the best."""
    order = sorted(range(len(tried)), key=lambda i: found[i][by])
    columns = list(found[0])
    show(
        title,
        ["settings", *columns],
        [[_said(tried[i]), *(f"{found[i][c]:.4f}" for c in columns)] for i in order],
    )
    return tried[order[0]]


def _said(changes: dict[str, Any]) -> str:
    """Settings in a line, each by its last name and section."""
    return " ".join(
        f"{key}={'|'.join(value) if isinstance(value, list) else value}" for key, value in changes.items()
    )


def main() -> None:
    """Search, and print what the demonstration's settings should be."""
    options = arguments(__doc__.splitlines()[0])
    ours, pooled, river = grid(OURS), grid(POOLED), grid(RIVER)
    keys = [{"input.task": key} for key in KEYS]
    if options.quick:
        keys, ours, pooled, river = keys[:1], ours[:1], pooled[:1], river[:1]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _first_quarter(folder)
        with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool:
            stream, logistic = partial(streamed, folder), partial(rivered, folder)
            by_key, by_ours = (pool.map(stream, tried) for tried in (keys, ours))
            by_pooled = pool.map(stream, [FOR_POOLED | one for one in pooled])
            by_river = pool.map(logistic, river)
            best = {
                "key": table_of("task keys", keys, list(by_key), "served.log_loss"),
                "ours": table_of("ours", ours, list(by_ours), "served.log_loss"),
            }
            tried = list(by_pooled)
            best["pooled"] = table_of("pooled", pooled, tried, "theta.log_loss")
            best["pooled_finetuned"] = table_of("pooled, fine-tuned", pooled, tried, "adapted.log_loss")
            best["river_logistic"] = table_of("river", river, list(by_river), "river.log_loss")
    write(options.json, {name: json.dumps(chosen) for name, chosen in best.items()})


if __name__ == "__main__":
    main()
