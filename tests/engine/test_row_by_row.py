"""The compiled loop over rows: it says what the modules say, and of a row the same bits whatever lies beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numba
import numpy as np
import pytest
import torch
from torch import nn

from engine.features.columns import Category, Cyclic, Numeric, Text
from engine.features.encoder import Features
from engine.features.history import History
from engine.kernels.row_by_row import RowByRow, row_by_row
from engine.kernels.row_loop import ROOM, read_row, row_outputs
from engine.kernels.row_theta import RowTheta
from engine.learners.base import fast_size, flatten, unflatten
from engine.learners.gradient import GradientLearner
from engine.learners.prototype import PrototypeLearner
from engine.networks.mlp import mlp
from engine.networks.tabular import tabular
from engine.problem import InnerLoop, Problem
from engine.targets import Classification, Regression
from engine.types import Float32, Int64, Params
from tests.engine.driving import SMALL, SPECS

EVERY_COLUMN = Features(
    (
        Numeric("n", optional=True),
        Category("c", 16, 3),
        Cyclic("h", 24.0),
        Text("t", 16, 5),
        Numeric("m"),
        Category("d", 9, 4),
    )
)
FOUR = Classification(("a", "b", "c", "d"))
PAST = History(by=("c", "d"), numbers=("n",))
DEFAULT = Problem(EVERY_COLUMN, Classification(("no", "yes")), history=PAST, wide=True, adapts="head")

OURS = {name: spec.problem for name, spec in SPECS.items() if name != "other layers"} | {
    "default": DEFAULT,
    "every column": Problem(EVERY_COLUMN, FOUR, adapts="all"),
    "every column, wide": Problem(EVERY_COLUMN, FOUR, wide=True, adapts="head+norms"),
    "everything": replace(DEFAULT, target=FOUR, adapts="all", inner=InnerLoop(lr="auto", rates="learned")),
    "a number": replace(DEFAULT, target=Regression(-3.0, 5.0), adapts="head+norms"),
    "many classes": replace(DEFAULT, target=Classification(range(17))),
    "room for classes": replace(DEFAULT, target=Classification(("a", "b"), reserve=5)),
    "plain numbers": Problem(Features((Cyclic("h", 24.0), Cyclic("d", 7.0))), FOUR),
    "a linear network": replace(SMALL.problem, network=partial(mlp, hidden=())),
    "a head of zeros": replace(SMALL.problem, network=partial(mlp, hidden=(5, 6, 7), head="zero")),
}


def theta_of(learner: GradientLearner, seed: int) -> Params:
    """Theta with every number drawn: rates sum to 1, deviations are positive."""
    rng, params = np.random.default_rng(seed), learner.init(seed)
    for name, value in params.items():
        drawn = rng.normal(0.0, 0.5, value.shape)
        if name.endswith("std"):
            drawn = np.exp(drawn)
        elif name.endswith("label_rate"):
            drawn = rng.dirichlet(np.ones(len(value)))
        params[name] = torch.from_numpy(np.asarray(drawn, np.float32))
    return params


def rows_of(problem: Problem, count: int, seed: int) -> Any:
    """Stored rows [count, W]: numbers missing where they may be, ids of every kind, counts and last labels."""
    rng = np.random.default_rng(seed)
    x = rng.normal(0.0, 3.0, (count, problem.width)).astype(np.float32)
    for at, column in problem.features.starts():
        if isinstance(column, Category):
            x[:, at] = rng.integers(0, column.buckets, count)
        elif isinstance(column, Text):
            used = np.arange(column.width) < rng.integers(0, column.width + 1, (count, 1))
            x[:, at : at + column.width] = rng.integers(1, column.buckets, (count, column.width)) * used
        elif isinstance(column, Numeric) and column.optional:
            x[rng.random(count) < 0.3, at] = np.nan
    past = problem.history_columns
    if problem.history is not None:
        for counts in (slice(past.start, past.last), slice(past.by_counts, past.stop)):
            x[:, counts] = rng.integers(0, 6, x[:, counts].shape)
        labels = rng.integers(0, problem.target.outputs + 1, count)
        x[:, past.last] = (
            np.where(labels == 0, np.nan, labels) if isinstance(problem.target, Regression) else labels
        )
        x[np.ix_(rng.random(count) < 0.2, np.array(past.plain))] = np.nan
    return x


def ours(problem: Problem) -> tuple[GradientLearner, RowByRow]:
    learner = GradientLearner(problem)
    made = row_by_row(learner)
    assert made is not None
    return learner, made


@numba.njit(error_model="numpy")  # type: ignore[untyped-decorator]
def write_outputs(theta: Any, own: Any, which: Any, x: Any, room: Any, out: Any) -> None:
    for i in range(len(x)):
        read_row(theta, x[i], room)
        row_outputs(theta, own[which[i]], x[i], room, out[i])


def outputs(theta: RowTheta, own: Float32, which: Int64, x: Float32) -> Float32:
    """Of each row [n, C], by the fast parameters own[which[i]]."""
    out = np.empty((len(x), theta.shape.outputs), np.float32)
    write_outputs(theta, own, which, x, np.empty((ROOM, theta.shape.widest), np.float32), out)
    return out


@pytest.mark.parametrize("name", OURS)
def test_outputs_are_those_of_the_modules(name: str) -> None:
    learner, made = ours(OURS[name])
    theta, x = theta_of(learner, 1), rows_of(learner.problem, 64, 2)
    own = np.random.default_rng(3).normal(0.0, 0.5, (64, fast_size(learner))).astype(np.float32)
    found = outputs(made.of(theta), own, np.arange(64), x)
    fast = unflatten(learner.fast_shapes, torch.from_numpy(own))
    expected = learner.predict(theta, fast, torch.from_numpy(x).unsqueeze(1)).squeeze(1)
    np.testing.assert_allclose(found, expected.numpy(), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("name", OURS)
def test_with_thetas_own_parameters_they_are_those_of_theta(name: str) -> None:
    learner, made = ours(OURS[name])
    theta, x = theta_of(learner, 4), rows_of(learner.problem, 64, 5)
    own = flatten({part: theta[part].unsqueeze(0) for part in learner.fast_shapes}).numpy()
    found = outputs(made.of(theta), own, np.zeros(64, np.int64), x)
    expected = learner.shared(theta, torch.from_numpy(x))
    np.testing.assert_allclose(found, expected.numpy(), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("name", OURS)
def test_a_row_has_the_same_bits_alone_and_among_others(name: str) -> None:
    learner, made = ours(OURS[name])
    theta, x = made.of(theta_of(learner, 6)), rows_of(learner.problem, 50, 7)
    own = np.random.default_rng(8).normal(0.0, 0.5, (9, fast_size(learner))).astype(np.float32)
    which = np.random.default_rng(9).integers(0, 9, 50)
    together = outputs(theta, own, which, x)
    for n in range(50):
        alone = outputs(theta, own[which[n]][None], np.zeros(1, np.int64), x[n][None])
        assert alone[0].tobytes() == together[n].tobytes()


class Doubled(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


def beside(layer: Callable[[int, int], nn.Module]) -> Problem:
    def network(inputs: int, outputs: int) -> nn.Module:
        return nn.Sequential(nn.Linear(inputs, 8), layer(8, 8), nn.Linear(8, outputs))

    return replace(SMALL.problem, network=network)


@pytest.mark.parametrize(
    "problem",
    [
        replace(SMALL.problem, network=partial(tabular, width=8)),
        replace(SMALL.problem, network=partial(mlp, hidden=(8,), norm="group")),
        replace(SMALL.problem, network=lambda inputs, outputs: Doubled(inputs, outputs)),
        beside(lambda inputs, outputs: nn.Tanh()),
        beside(lambda inputs, outputs: nn.LayerNorm(8, eps=1e-3)),
        beside(lambda inputs, outputs: nn.LayerNorm(8, elementwise_affine=False)),
        beside(lambda inputs, outputs: nn.Linear(inputs, outputs, bias=False)),
    ],
)
def test_any_other_layer_is_left_to_tensors(problem: Problem) -> None:
    assert row_by_row(GradientLearner(problem)) is None


def test_any_other_learner_is_left_to_tensors() -> None:
    assert row_by_row(PrototypeLearner(SMALL.problem)) is None
