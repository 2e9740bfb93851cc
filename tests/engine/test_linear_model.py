"""The online linear model and the rates of tasks say what a slow loop over plain numbers says."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.evaluation.prequential.linear_model import LinearModel, Stream
from engine.evaluation.prequential.linear_steps import Steps
from engine.evaluation.prequential.task_rates import TaskRates
from engine.features.columns import Category, Cyclic, Numeric, Text
from engine.features.encoder import Features
from engine.targets import Classification, Regression

FEATURES = Features(
    (Numeric("a"), Numeric("b", optional=True), Category("c", 8), Cyclic("d", 7), Text("e", 16))
)
STEPS = (Steps(0.2), Steps(0.7, 0.9))
TARGETS = [Classification((0, 1)), Classification(("a", "b", "c")), Regression(-2.0, 5.0)]


def stream(
    target: Classification | Regression, rows: int = 60, delay: int = 4, seed: int = 0
) -> tuple[Stream, list[dict[str, str | float | None]]]:
    """Rows whose labels come up to `delay` observations late, some never."""
    rng = np.random.default_rng(seed)
    fields = [
        {
            "a": float(rng.normal(5, 3)),
            "b": None if rng.random() < 0.3 else float(rng.normal()),
            "c": int(rng.integers(6)),
            "d": float(rng.integers(7)),
            "e": "".join(rng.choice(list("abc"), 4)),
        }
        for _ in range(rows)
    ]
    times = [(float(n), n) for n in range(rows)]
    times += [(n + 0.5 + rng.integers(delay + 1), ~n) for n in range(rows) if rng.random() < 0.9]
    order = np.array([event for _, event in sorted(times)])
    labels = rng.integers(target.outputs, size=rows) if target.outputs > 1 else rng.uniform(-2, 5, rows)
    y = np.where(order < 0, labels[np.where(order < 0, ~order, order)], 0.0)
    return Stream(FEATURES.encode(fields).x, rng.integers(5, size=rows), order, y), fields


class Slow:
    """One variant, with a dictionary of weights."""

    def __init__(self, target: Classification | Regression, steps: Steps, knows_task: bool) -> None:
        self.target, self.steps, self.knows_task = target, steps, knows_task
        self.weights: dict[tuple[Any, int], float] = {}
        self.squares: dict[tuple[Any, int], float] = {}
        self.numbers: dict[str, list[float]] = {"a": [], "b": []}
        self.labels: list[float] = []
        self.outputs = target.outputs if target.outputs > 2 else 1

    def active(self, fields: dict[str, Any], x: list[float], task: int) -> Iterator[tuple[Any, float]]:
        yield "bias", 1.0
        if self.knows_task:
            yield ("task", task), 1.0
        for name, values in self.numbers.items():
            if fields[name] is None:
                yield (name, "missing"), 1.0
            else:
                spread = float(np.std(values)) if np.std(values) > 1e-6 else 1.0
                z = (float(np.float32(fields[name])) - float(np.mean(values))) / spread
                yield name, min(max(z, -10.0), 10.0)
        yield ("c", x[2]), 1.0
        yield "sin", x[3]
        yield "cos", x[4]
        ids = [g for g in x[5:] if g > 0]
        for one in ids:
            yield ("e", one), 1 / len(ids)

    def scale(self) -> tuple[float, float]:
        if not self.labels:
            return 1.5, 1.0
        return float(np.mean(self.labels)), float(np.std(self.labels)) if np.std(self.labels) > 1e-6 else 1.0

    def raw(self, active: list[tuple[Any, float]]) -> list[float]:
        return [sum(v * self.weights.get((s, k), 0.0) for s, v in active) for k in range(self.outputs)]

    def shares(self, raw: list[float]) -> list[float]:
        if len(raw) == 1:
            return [1 / (1 + math.exp(-raw[0]))]
        grown = [math.exp(z - max(raw)) for z in raw]
        return [z / sum(grown) for z in grown]

    def observe(self, fields: dict[str, Any], x: list[float], task: int) -> list[float]:
        for name, values in self.numbers.items():
            if fields[name] is not None:
                values.append(float(np.float32(fields[name])))
        raw = self.raw(list(self.active(fields, x, task)))
        if isinstance(self.target, Regression):
            middle, spread = self.scale()
            return [min(max(middle + spread * raw[0], self.target.low), self.target.high)]
        shares = self.shares(raw)
        both = [1 - shares[0], shares[0]] if len(shares) == 1 else shares
        return [p * (1 - len(both) * self.target.floor) + self.target.floor for p in both]

    def learn(self, fields: dict[str, Any], x: list[float], task: int, y: float) -> None:
        if isinstance(self.target, Regression):
            self.labels.append(y)
        active = [(slot, value) for slot, value in self.active(fields, x, task) if value]
        raw = self.raw(active)
        if isinstance(self.target, Regression):
            middle, spread = self.scale()
            slopes = [raw[0] - (y - middle) / spread]
        else:
            shares = self.shares(raw)
            slopes = [shares[0] - y] if len(shares) == 1 else [p - (k == y) for k, p in enumerate(shares)]
        for slot, value in active:
            for k, slope in enumerate(slopes):
                g = value * slope
                square = self.steps.keep * self.squares.get((slot, k), 0.0) + g * g
                self.squares[slot, k] = square
                step = self.steps.rate * g / math.sqrt(square + 1e-12)
                self.weights[slot, k] = self.weights.get((slot, k), 0.0) - step


@pytest.mark.parametrize("knows_task", [False, True])
@pytest.mark.parametrize("target", TARGETS)
def test_every_prediction_is_that_of_a_slow_loop(
    target: Classification | Regression, knows_task: bool
) -> None:
    events, fields = stream(target)
    judged = LinearModel(FEATURES, target, STEPS, knows_task=knows_task).follow(events)
    for g, steps in enumerate(STEPS):
        slow = Slow(target, steps, knows_task)
        said: dict[int, list[float]] = {}
        expected: list[list[float]] = []
        for event, y in zip(events.order.tolist(), events.y.tolist(), strict=True):
            n = event if event >= 0 else ~event
            if event >= 0:
                said[n] = slow.observe(fields[n], events.x[n].tolist(), events.task[n])
            else:
                expected.append(said[n])
                slow.learn(fields[n], events.x[n].tolist(), events.task[n], y)
        np.testing.assert_allclose(judged.prediction[:, g], expected, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("target", TARGETS)
def test_the_leader_has_the_least_loss_among_labels_known_at_the_prediction(
    target: Classification | Regression,
) -> None:
    events, _ = stream(target)
    judged = LinearModel(FEATURES, target, STEPS).follow(events)
    y = events.y[events.order < 0]
    if isinstance(target, Regression):
        loss = (judged.prediction[:, :, 0] - y[:, None]) ** 2
    else:
        loss = -np.log(judged.prediction[np.arange(len(y)), :, y.astype(int)])
    known = np.cumsum(events.order < 0)
    for label, event in enumerate(events.order[events.order < 0].tolist()):
        before = known[events.order.tolist().index(~event)]
        assert judged.leader[label] == np.argmin(loss[:before].sum(axis=0))


@given(st.integers(0, 119), st.sampled_from(TARGETS))
def test_a_stream_in_two_parts_is_predicted_as_in_one(cut: int, target: Classification | Regression) -> None:
    events, _ = stream(target)
    for make in (
        lambda: LinearModel(FEATURES, target, STEPS),
        lambda: TaskRates(target, (1.0, 8.0)),
        lambda: TaskRates(target, (0.5, 0.9), last=True),
    ):
        whole, model = make().follow(events), make()
        parts = [
            model.follow(events._replace(order=events.order[span], y=events.y[span]))
            for span in (slice(cut), slice(cut, None))
        ]
        assert (np.concatenate([part.prediction for part in parts]) == whole.prediction).all()
        assert (np.concatenate([part.leader for part in parts]) == whole.leader).all()


@pytest.mark.parametrize("target", TARGETS)
def test_a_label_changes_nothing_that_was_said_before_it_was_known(
    target: Classification | Regression,
) -> None:
    events, _ = stream(target)
    last = np.flatnonzero(events.order < 0)[-8]
    changed = events.y.copy()
    changed[last:] = 0.0
    for model in (lambda: LinearModel(FEATURES, target, STEPS), lambda: TaskRates(target, (1.0,))):
        one, other = model().follow(events), model().follow(events._replace(y=changed))
        known = np.flatnonzero(events.order < 0) <= last
        assert (one.prediction[known] == other.prediction[known]).all()


def rated(
    target: Regression | Classification, variants: tuple[float, ...], *, last: bool = False
) -> list[float]:
    """Three labels of task 0 and one of task 1, each known before the next observation."""
    order = np.array([0, ~0, 1, ~1, 2, ~2, 3, ~3])
    y = np.array([0, 1.0, 0, 1.0, 0, 0.0, 0, 0.0])
    events = Stream(np.zeros((4, 0), np.float32), np.array([0, 0, 0, 1]), order, y)
    return list(TaskRates(target, variants, last=last).follow(events).prediction[:, 0, -1].tolist())


def test_the_rate_of_a_task_is_shrunk_towards_the_stream() -> None:
    half, strength = 0.5, 2.0
    second = (1 + strength * (1 + half) / 2) / (1 + strength)
    third = (2 + strength * (2 + half) / 3) / (2 + strength)
    expected = [half, second, third, (2 + half) / 4]
    assert rated(Classification((0, 1)), (strength,)) == pytest.approx(expected, abs=1e-5)


def test_the_last_label_of_a_task_has_its_weight_and_the_rate_of_the_stream_the_rest() -> None:
    expected = [0.5, 0.6 + 0.4 * 1.5 / 2, 0.6 + 0.4 * 2.5 / 3, 2.5 / 4]
    assert rated(Classification((0, 1)), (0.6,), last=True) == pytest.approx(expected, abs=1e-5)


def test_of_a_regression_the_mean_and_the_last_label_are_said() -> None:
    target = Regression(-1.0, 3.0)
    assert rated(target, (1.0,)) == pytest.approx([1.0, 1.0, 1.0, 2 / 3])
    assert rated(target, (1.0,), last=True) == pytest.approx([1.0, 1.0, 1.0, 2 / 3])
