"""The compiled inner loop: what tensors say in double precision, and of a task the same bits wherever it stands."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from engine.checks.made_up import support_sets
from engine.kernels.kernel import MLPKernel, gradient_learner
from engine.learners.base import flatten, without_kernel
from engine.learners.gradient import GradientLearner
from engine.networks.mlp import mlp
from engine.networks.tabular import tabular
from engine.problem import InnerLoop, Problem
from engine.targets import Classification, Regression
from engine.types import Batch, EngineError, Params
from tests.engine.driving import SMALL
from tests.engine.test_row_by_row import DEFAULT, EVERY_COLUMN, FOUR, theta_of

DEEP = partial(mlp, hidden=(40, 24))  # no multiple of a vector, and more than one
STEPS = InnerLoop(steps=3, lr=0.2, clip=0.7)
RAGGED = replace(DEFAULT, network=DEEP, inner=STEPS)

KNOWN = {
    "head": replace(RAGGED, adapts="head"),
    "head and norms": replace(RAGGED, adapts="head+norms"),
    "everything": replace(RAGGED, adapts="all"),
    "no linear model": Problem(EVERY_COLUMN, FOUR, network=DEEP, adapts="all", inner=STEPS),
    "a number": replace(RAGGED, target=Regression(-30.0, 70.0), adapts="head+norms"),
    "room for classes": replace(RAGGED, target=Classification(("a", "b", "c"), reserve=5), adapts="all"),
    "learned rates": replace(RAGGED, adapts="all", inner=InnerLoop(rates="learned")),
    "held near theta": replace(RAGGED, adapts="all", inner=InnerLoop(proximal=2.0)),
    "auto rate": replace(RAGGED, inner=InnerLoop(lr="auto")),
    "a head of zeros": replace(SMALL.problem, network=partial(mlp, hidden=(16,), head="zero")),
}


@cache
def learner(name: str) -> GradientLearner:
    return gradient_learner(KNOWN[name])


def theta(name: str) -> Params:
    params = theta_of(learner(name), 1)
    return params | ({"lr": torch.tensor(0.3)} if "lr" in params else {})


def doubled(params: Params) -> Params:
    return {name: value.double() for name, value in params.items()}


def adapted(name: str, support: Batch) -> Any:
    return flatten(learner(name).adapt(theta(name), support)).numpy()


@pytest.mark.parametrize("name", KNOWN)
def test_it_adapts_as_automatic_differentiation_in_double_precision_does(name: str) -> None:
    support, params = support_sets(KNOWN[name], seed=0), theta(name)
    exact = without_kernel(learner(name)).unrecorded()
    expected = exact.adapt(doubled(params), Batch(support.x.double(), support.y, support.weight.double()))
    found = learner(name).adapt(params, support)
    for part, value in found.items():
        torch.testing.assert_close(value.double(), expected[part], rtol=1e-5, atol=1e-6)
    assert any(not torch.equal(value, params[part].expand_as(value)) for part, value in found.items())


@settings(max_examples=20)
@given(name=st.sampled_from(["head", "head and norms", "everything"]), order=st.permutations(range(9)))
def test_a_task_has_the_same_bits_at_any_place_and_alone(name: str, order: list[int]) -> None:
    support = support_sets(KNOWN[name], seed=0)
    whole = adapted(name, support)
    moved = adapted(name, Batch(*(column[order] for column in support)))
    assert moved.tobytes() == whole[order].tobytes()
    alone = adapted(name, Batch(*(column[order[0] : order[0] + 1] for column in support)))
    assert alone.tobytes() == whole[order[0]].tobytes()


def test_padding_changes_no_bit_wherever_it_stands() -> None:
    support = support_sets(KNOWN["everything"], seed=0)
    nothing = torch.zeros_like(support.y[:, :3])
    noise = torch.full_like(support.x[:, :3], torch.nan)
    padded = Batch(
        torch.cat([noise, support.x], 1),
        torch.cat([nothing, support.y], 1),
        torch.cat([nothing, support.weight], 1),
    )
    assert adapted("everything", padded).tobytes() == adapted("everything", support).tobytes()


@pytest.mark.parametrize("name", ["head", "head and norms", "everything"])
def test_a_task_that_diverges_or_whose_loss_is_no_number_keeps_theta(name: str) -> None:
    wild = gradient_learner(replace(KNOWN[name], inner=InnerLoop(steps=2, lr=30.0, clip=1e6)))
    params, support = theta_of(wild, 1), support_sets(KNOWN[name], seed=0)
    support.weight[2] = 0
    kept, expected = (
        [(value == params[part]).flatten(1).all(1) for part, value in one.adapt(params, support).items()]
        for one in (wild, without_kernel(wild).unrecorded())
    )
    assert torch.equal(torch.stack(kept), torch.stack(expected))
    assert 1 < int(kept[0].sum()) < len(kept[0])
    params["1.network.0.bias"][0] = torch.nan
    for part, value in wild.adapt(params, support).items():
        assert torch.equal(value.isnan(), params[part].isnan().expand_as(value)), part


def test_a_class_that_another_process_named_counts_for_nothing() -> None:
    support = support_sets(KNOWN["room for classes"], seed=0)
    support.y[:, 0] = 4.0
    exact = without_kernel(learner("room for classes")).unrecorded()
    params = theta("room for classes")
    expected = exact.adapt(doubled(params), Batch(support.x.double(), support.y, support.weight.double()))
    for part, value in learner("room for classes").adapt(params, support).items():
        torch.testing.assert_close(value.double(), expected[part], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("label", [-1.0, float("nan")])
def test_a_label_that_is_no_class_is_refused_and_not_looked_up(label: float) -> None:
    support = support_sets(KNOWN["head"], seed=0)
    support.y[0, 0] = label
    with pytest.raises(EngineError, match="labels of classes are 0 or more, got"):
        learner("head").adapt(theta("head"), support)


def test_theta_that_was_changed_in_place_is_read_anew() -> None:
    support, params = support_sets(KNOWN["head"], seed=0), theta("head")
    before = flatten(learner("head").adapt(params, support))
    assert torch.equal(flatten(learner("head").adapt(params, support)), before)
    params["1.network.0.weight"] *= 2
    after = flatten(learner("head").adapt(params, support))
    assert not torch.equal(after, before)
    anew = {name: value.clone() for name, value in params.items()}
    assert torch.equal(flatten(learner("head").adapt(anew, support)), after)


def test_tables_may_be_cut_to_the_buckets_that_examples_name() -> None:
    support, params = support_sets(KNOWN["everything"], seed=0), theta("everything")
    expected = flatten(learner("everything").adapt(params, support))
    used = int(KNOWN["everything"].features.place("d", type(EVERY_COLUMN.columns[5])))
    kept = torch.arange(9).flip(0)
    moved = support.x.clone()
    moved[..., used] = 8 - moved[..., used]
    cut = params | {
        f"0.{kind}.1.weight": params[f"0.{kind}.1.weight"][kept] for kind in ("embeddings", "wide")
    }
    found = flatten(learner("everything").adapt(cut, support._replace(x=moved)))
    assert torch.equal(found, expected)


def test_what_is_not_float32_in_memory_is_left_to_tensors() -> None:
    subject, params, support = learner("head"), theta("head"), support_sets(KNOWN["head"], seed=0)
    assert subject.kernel is not None
    assert subject.kernel.knows(*params.values(), *support)
    assert not subject.kernel.knows(*doubled(params).values())
    assert not subject.kernel.knows(support.x.to("meta"))


def unlike(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, 8), nn.LayerNorm(8, eps=1e-3), nn.ReLU(), nn.Linear(8, outputs))


def smooth(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, 8), nn.LayerNorm(8), nn.GELU(), nn.Linear(8, outputs))


@pytest.mark.parametrize(
    "network", [tabular, unlike, smooth, partial(mlp, hidden=()), partial(mlp, norm="group")]
)
def test_a_network_that_it_does_not_know_has_none(network: Any) -> None:
    assert gradient_learner(replace(SMALL.problem, network=network)).kernel is None


def test_a_learner_without_it_adapts_by_tensors() -> None:
    assert isinstance(learner("head").kernel, MLPKernel)
    plain = without_kernel(learner("head"))
    assert plain.kernel is None
    assert without_kernel(plain) is plain
    support, params = support_sets(KNOWN["head"], seed=0), theta("head")
    torch.testing.assert_close(
        flatten(plain.adapt(params, support)),
        flatten(learner("head").adapt(params, support)),
        rtol=1e-4,
        atol=1e-5,
    )
