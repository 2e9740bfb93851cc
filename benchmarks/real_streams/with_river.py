"""River's models on the same events: whichever of those that can be afforded fits best.

One model for all tasks, with the task's id among its features. Where there are many rows that is logistic regression
behind a running scaler alone; else a Hoeffding tree that adapts as well and, below `FOREST_ROWS` rows, an adaptive
random forest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from river import compose, forest, linear_model, optim, preprocessing, tree

from benchmarks.real_streams.baselines import Variants
from benchmarks.real_streams.prepared import Prepared
from engine.features.columns import Category, Cyclic
from engine.targets import Classification
from engine.types import Float32

RATES = (0.003, 0.03)
FOREST_ROWS = 50_000
TREES = 10
SEED = 0

Fields = dict[str, Any]


def river(stream: Prepared) -> Variants:
    """Each model that can be afforded."""
    tasks = stream.events.task.tolist()
    rows = [{**row, "task id": task} for row, task in zip(fields_of(stream), tasks, strict=True)]
    for name, model in _models(stream):
        yield name, _online(stream, model, rows)


def _models(stream: Prepared) -> Iterator[tuple[str, Any]]:
    classes = isinstance(stream.target, Classification)
    names = [column.name for column in stream.columns.columns if isinstance(column, Category)]
    for rate in RATES[:1] if stream.source.heavy else RATES:
        yield f"linear, rate {rate:g}", _linear(stream, rate, [*names, "task id"])
    if stream.source.heavy:
        return
    nominal = [*names, "task id"]
    kind = tree.HoeffdingAdaptiveTreeClassifier if classes else tree.HoeffdingAdaptiveTreeRegressor
    yield "adaptive Hoeffding tree", kind(nominal_attributes=nominal, seed=SEED)
    if len(stream.events.x) <= FOREST_ROWS:
        wood = forest.ARFClassifier if classes else forest.ARFRegressor
        yield "adaptive random forest", wood(n_models=TREES, nominal_attributes=nominal, seed=SEED)


def _linear(stream: Prepared, rate: float, names: list[str]) -> Any:
    encoded = (compose.Discard(*names) | preprocessing.StandardScaler()) + (
        compose.Select(*names) | preprocessing.OneHotEncoder()
    )
    if isinstance(stream.target, Classification) and stream.target.outputs > 2:
        return encoded | linear_model.SoftmaxRegression(optim.SGD(rate))
    if isinstance(stream.target, Classification):
        return encoded | linear_model.LogisticRegression(optim.SGD(rate))
    return encoded | preprocessing.TargetStandardScaler(linear_model.LinearRegression(optim.SGD(rate)))


def fields_of(stream: Prepared) -> Iterator[Fields]:
    """What river reads of each row: numbers, a missing one 0; cyclic pairs; whole numbers for categories."""
    known = {column.name: dict[Any, int]() for column in stream.columns.columns}
    for row in stream.fields.iter_rows(named=True):
        yield _fields(stream, row, known)


def _fields(stream: Prepared, row: Mapping[str, Any], known: Mapping[str, dict[Any, int]]) -> Fields:
    fields: Fields = {}
    for column in stream.columns.columns:
        value = row[column.name]
        if isinstance(column, Category):
            fields[column.name] = known[column.name].setdefault(value, len(known[column.name]))
        elif isinstance(column, Cyclic):
            turn = 2 * np.pi * value / column.period
            fields[f"{column.name} {column.period:g} sin"] = float(np.sin(turn))
            fields[f"{column.name} {column.period:g} cos"] = float(np.cos(turn))
        else:
            fields[column.name] = 0.0 if value is None else float(value)
    return fields


def _online(stream: Prepared, model: Any, rows: list[Fields]) -> Float32:
    """Predict at observations, learn at labels."""
    said = np.empty((len(rows), stream.target.outputs), np.float32)
    for event, y in zip(stream.events.order.tolist(), stream.events.y.tolist(), strict=True):
        if event >= 0:
            said[event] = _said(stream, model, rows[event])
        else:
            model.learn_one(rows[~event], int(y) if isinstance(stream.target, Classification) else y)
    return said[stream.row]


def _said(stream: Prepared, model: Any, x: Fields) -> Any:
    target = stream.target
    if not isinstance(target, Classification):
        return np.clip(model.predict_one(x) or 0.0, target.low, target.high)
    said = model.predict_proba_one(x)
    p = np.array(
        [said.get(c, said.get(bool(c), 0.0)) if c < 2 else said.get(c, 0.0) for c in range(target.outputs)]
    )
    p = p / p.sum() if p.sum() > 0 else np.full(target.outputs, 1 / target.outputs)
    return p * (1 - target.outputs * target.floor) + target.floor
