"""Events a second of river's linear model and of deep-river's network, a pipeline for each task, on a stream's rows.

Both are handed rows that are parsed already, and have river's defaults: numbers behind a running scaler, categories
as one-hot vectors; logistic regression, softmax regression for several classes, linear regression for numbers.
deep-river (https://github.com/online-ml/deep-river) is asked where `import deep_river` works, a network of its own
for each task too. Time is the processor's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from time import process_time
from typing import Any

from river import compose, linear_model, preprocessing

from benchmarks.real_streams.prepared import Prepared
from benchmarks.real_streams.with_river import fields_of
from engine.features.columns import Category
from engine.targets import Classification

MOST_DEEP = 10_000
"""Events that deep-river's network is timed on, the first of the stream: its pace is that of all."""

WIDTH, LAYERS = 64, 2
"""Of the network, as our own by default."""


def speeds(stream: Prepared, ours: float) -> dict[str, Any]:
    """Events a second of both beside `ours`, and ours as multiples of theirs."""
    river = events_per_s(stream, lambda: _encoded(stream) | _linear(stream))
    found: dict[str, Any] = {"river_events_per_s": river, "x_river": ours / river}
    try:
        zoo = import_module(f"deep_river.{'classification' if _has_classes(stream) else 'regression'}.zoo")
    except ImportError as error:
        return found | {"deep_river": f"not measured: {error}"}
    deep = events_per_s(stream, lambda: _encoded(stream) | _network(stream, zoo), MOST_DEEP)
    return found | {"deep_river_events_per_s": deep, "x_deep_river": ours / deep}


def events_per_s(stream: Prepared, made: Callable[[], Any], most: int | None = None) -> float:
    """Predict at observations and learn at labels, with a pipeline made for each task at its first event."""
    order, y, task = (
        stream.events.order.tolist()[:most],
        stream.events.y.tolist(),
        stream.events.task.tolist(),
    )
    rows: list[Mapping[str, Any]] = list(fields_of(stream))
    has_classes, pipelines = _has_classes(stream), dict[int, Any]()
    began = process_time()
    for event, label in zip(order, y, strict=False):
        row = event if event >= 0 else ~event
        if task[row] not in pipelines:
            pipelines[task[row]] = made()
        pipeline = pipelines[task[row]]
        if event < 0:
            pipeline.learn_one(rows[row], int(label) if has_classes else label)
        elif has_classes:
            pipeline.predict_proba_one(rows[row])
        else:
            pipeline.predict_one(rows[row])
    return len(order) / (process_time() - began)


def _has_classes(stream: Prepared) -> bool:
    return isinstance(stream.target, Classification)


def _encoded(stream: Prepared) -> Any:
    """Numbers scaled, categories one-hot; where there are but the one or the other, that encoder alone."""
    columns = stream.columns.columns
    names = [column.name for column in columns if isinstance(column, Category)]
    if not names:
        return preprocessing.StandardScaler()
    if len(names) == len(columns):
        return preprocessing.OneHotEncoder()
    categories = compose.Select(*names) | preprocessing.OneHotEncoder()
    return (compose.Discard(*names) | preprocessing.StandardScaler()) + categories


def _linear(stream: Prepared) -> Any:
    if not _has_classes(stream):
        return linear_model.LinearRegression()
    return (
        linear_model.LogisticRegression() if stream.target.outputs == 2 else linear_model.SoftmaxRegression()
    )


def _network(stream: Prepared, zoo: Any) -> Any:
    """A network that grows with the names that it meets, as one-hot vectors bring them."""
    classes = {"n_init_classes": stream.target.outputs} if _has_classes(stream) else {}
    return zoo.MultiLayerPerceptron(
        n_features=1, n_width=WIDTH, n_layers=LAYERS, is_feature_incremental=True, **classes
    )
