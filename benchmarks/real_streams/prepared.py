"""The rows of a stream as arrays, in the order in which the program sees them, for whoever learns from them.

Categories are hashed into so many buckets that hardly two values share one, whatever the program's own default is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.real_streams.sources import Source
from engine.evaluation.prequential.linear_model import Stream
from engine.features.columns import Category, Column, Cyclic, Numeric
from engine.features.encoder import Features
from engine.targets import Classification, Regression
from engine.types import Float64, Int64
from streams.assembly.embedded import input_log
from streams.assembly.learners import problem_of
from streams.settings.tree import load_settings

BUCKETS = 2**16
ROWS_AT_ONCE = 100_000


@dataclass(frozen=True)
class Prepared:
    """R rows and L labels of a stream."""

    source: Source
    target: Classification | Regression
    columns: Features
    events: Stream
    """Over the rows; `task` [R] numbers the tasks by their first row."""
    fields: pl.DataFrame
    """[R] the columns as they came, and `task`."""
    row: Int64
    """[L] of each label, in the order in which labels become known."""
    y: Float64
    """[L]"""
    offset: Int64
    """[L] in the log."""
    seen: Int64
    """[L] labels of the task that were known when the observation came."""


def prepared(source: Source, settings: Path) -> Prepared:
    """The rows that settings stream."""
    loaded = load_settings(settings, {})
    problem = problem_of(loaded)
    log = input_log(loaded, problem, None)
    table = pl.read_parquet(settings.parent / "table.parquet")
    columns = Features(tuple(_column(feature) for feature in source.features))
    parts = [columns.encode(part.to_dicts()) for part in table.iter_slices(ROWS_AT_ONCE)]
    x = np.ascontiguousarray(np.concatenate([part.x for part in parts]))
    faults = next((fault for part in parts for fault in part.faults.values()), None)
    if faults:
        raise SystemExit(f"{source.name}: {faults}")
    names = table.select(pl.concat_str(pl.col(n).cast(pl.String) for n in source.input["task"])).to_series()
    task = names.rank("dense").to_numpy().astype(np.int64) - 1
    y = _values(table[source.input["label"]], problem.target)
    order = log.order()
    is_label = order < 0
    row = ~order[is_label]
    events = Stream(x, task, order, np.where(is_label, y[np.where(is_label, ~order, order)], 0.0))
    seen = _seen(task, order)[row]
    return Prepared(
        source, problem.target, columns, events, table, row, y[row], np.flatnonzero(is_label), seen
    )


def _column(feature: Mapping[str, Any]) -> Column:
    name = feature["name"]
    if feature["encoder"] == "category":
        return Category(name, BUCKETS)
    if feature["encoder"] == "cyclic":
        return Cyclic(name, feature["period"])
    return Numeric(name, feature.get("optional", False))


def _values(labels: pl.Series, target: Classification | Regression) -> Float64:
    """[R] class index or value; NaN where there is no label."""
    if isinstance(target, Regression):
        return labels.cast(pl.Float64).to_numpy()
    index = {name: k for k, name in enumerate(target.classes)}
    return np.array([np.nan if label is None else index[label] for label in labels.to_list()])


def _seen(task: Int64, order: Int64) -> Int64:
    """[R] labels of its task that were known at each observation."""
    is_label = order < 0
    row = np.where(is_label, ~order, order)
    together = np.argsort(task[row], kind="stable")
    row, is_label = row[together], is_label[together]
    known = np.cumsum(is_label)
    first = np.searchsorted(task[row], np.arange(task.max() + 1))
    before = np.concatenate([[0], known])[first]
    seen = np.zeros(len(task), np.int64)
    observed = ~is_label
    seen[row[observed]] = (known - before[task[row]])[observed]
    return seen
