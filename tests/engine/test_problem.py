"""Problems and stream specs: which parameters adapt, what the target serves and scores, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.modules.conv import Conv1d

from engine.learners.fingerprint import theta_fingerprint
from engine.learners.gradient import GradientLearner
from engine.networks.mlp import mlp
from engine.stream.fold import Engine
from engine.stream.layout import row_fingerprint
from engine.stream.spec import Memory, Policy
from engine.targets import Classification, Regression
from engine.types import EngineError
from tests.engine.driving import SMALL
from tests.varied import varied

HEAD = ("1.3.weight", "1.3.bias")
NORMS = ("1.1.weight", "1.1.bias")


def names(
    adapts: str,
    network: Callable[[int, int], nn.Module]
    | Callable[..., Conv1d]
    | type[nn.Linear] = SMALL.problem.network,
) -> tuple[str, ...]:
    spec = varied(SMALL, adapts=adapts, network=network)
    return spec.problem.adapted_names(spec.problem.model())


def test_the_head_is_the_last_linear_layer() -> None:
    assert names("head") == HEAD


def test_head_and_norms_is_the_default_and_adapts_both() -> None:
    assert names("head+norms") == (*NORMS, *HEAD)


def test_all_adapts_everything_behind_the_encoder() -> None:
    assert names("all") == ("1.0.weight", "1.0.bias", *NORMS, *HEAD)


def test_the_encoders_embeddings_never_adapt() -> None:
    from tests.engine.driving import SPECS

    spec = SPECS["unbalanced"]
    assert any(name.startswith("0.embeddings") for name, _ in spec.problem.model().named_parameters())
    assert not any(name.startswith("0.") for name in spec.problem.adapted_names(spec.problem.model()))


def test_a_network_that_is_one_linear_layer_is_its_own_head() -> None:
    assert names("head", nn.Linear) == ("1.weight", "1.bias")


def test_what_adapts_is_refused_unless_it_is_known() -> None:
    with pytest.raises(EngineError, match="adapts must be 'head', 'head\\+norms' or 'all', got 'tail'"):
        names("tail")


def test_a_network_without_a_linear_layer_has_no_head() -> None:
    with pytest.raises(EngineError, match="'head' matches no parameter; end the network with a Linear"):
        names("head", lambda inputs, outputs: nn.Conv1d(inputs, outputs, 1))


def first_weight(seed: int) -> torch.Tensor:
    return SMALL.problem.model(seed).get_parameter("1.0.weight")


def test_the_same_seed_gives_the_same_model_and_touches_no_global_seed() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    first, second, other = (first_weight(seed) for seed in (1, 1, 2))
    assert torch.rand(1) == expected
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=3, max_size=3))
def test_every_probability_is_at_least_the_floor_and_they_sum_to_one(outputs: list[Any]) -> None:
    p = Classification(("x", "y", "z"), floor=1e-4).predict(torch.tensor(outputs))
    assert p.min() >= 1e-4 * (1 - 1e-6)
    assert p.sum() == pytest.approx(1.0, rel=1e-5)


def test_cross_entropy_by_hand() -> None:
    outputs = torch.tensor([[[0.0, math.log(3.0)], [0.0, 0.0]]])
    loss = Classification((0, 1)).loss(outputs, torch.tensor([[1.0, 0.0]]))
    assert loss.tolist() == [[pytest.approx(math.log(4 / 3)), pytest.approx(math.log(2))]]


ROOM = Classification(("x", "y"), floor=1e-4, reserve=4)


@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=4, max_size=4))
def test_a_class_that_is_not_named_yet_takes_no_probability_from_the_others(outputs: list[Any]) -> None:
    p = ROOM.predict(torch.tensor(outputs))
    assert p[2:].tolist() == [pytest.approx(1e-4)] * 2
    assert torch.equal(p[:2], Classification(("x", "y"), floor=1e-4).predict(torch.tensor(outputs[:2])))


def test_an_example_of_a_class_that_is_not_named_counts_for_nothing() -> None:
    outputs = torch.tensor([[0.0, math.log(3.0), 9.0, 9.0]] * 2, requires_grad=True)
    loss = ROOM.loss(outputs, torch.tensor([1.0, 3.0]))
    assert loss.tolist() == [pytest.approx(math.log(4 / 3)), 0.0]
    (slope,) = torch.autograd.grad(loss.sum(), outputs)
    assert slope[0, :2].all()
    assert not slope[0, 2:].any()
    assert not slope[1].any()


def test_a_reserve_below_the_classes_there_are_is_refused() -> None:
    with pytest.raises(EngineError, match="room for 2 classes, and there are 3"):
        Classification(("x", "y", "z"), reserve=2)


def test_classes_within_the_reserve_are_in_no_fingerprint_and_the_reserve_is() -> None:
    def prints(target: Classification) -> tuple[str, int]:
        spec = varied(SMALL, target=target)
        learner = GradientLearner(spec.problem)
        return theta_fingerprint(learner), row_fingerprint(spec, learner)

    two, three = Classification(("x", "y"), reserve=4), Classification(("x", "y", "z"), reserve=4)
    assert prints(two) == prints(three)
    for other in (Classification(("x", "y"), reserve=5), Classification(("w", "x", "y", "z"))):
        assert not set(prints(other)) & set(prints(two))


def test_regression_clips_what_it_serves_but_not_what_it_learns_from() -> None:
    target = Regression(0.0, 1.0)
    assert target.predict(torch.tensor([[-3.0], [0.5], [9.0]])).tolist() == [[0.0], [0.5], [1.0]]
    assert target.loss(torch.tensor([[3.0]]), torch.tensor([1.0])).tolist() == [4.0]


@pytest.mark.parametrize("classes", [(), ("one",), ("a", "a"), (1, True)])
def test_fewer_than_two_different_classes_are_refused(
    classes: tuple[Any, ...] | tuple[str] | tuple[str, str] | tuple[int, bool],
) -> None:
    with pytest.raises(EngineError, match="at least two different values"):
        Classification(classes)


@pytest.mark.parametrize("floor", [0.0, -1e-6, 0.5, 1.0])
def test_a_floor_that_leaves_no_room_is_refused(floor: float) -> None:
    with pytest.raises(EngineError, match=r"floor must be above 0 and below 0\.5"):
        Classification((0, 1), floor=floor)


@pytest.mark.parametrize(("low", "high"), [(1.0, 1.0), (2.0, 1.0), (math.nan, 1.0)])
def test_a_range_without_width_is_refused(low: float, high: float) -> None:
    with pytest.raises(EngineError, match="low must be below high"):
        Regression(low, high)


@pytest.mark.parametrize(("low", "high"), [(-math.inf, 1.0), (0.0, math.inf), (-1e300, 1e300)])
def test_a_range_whose_squares_are_no_numbers_is_refused(low: float, high: float) -> None:
    with pytest.raises(EngineError, match="choose another unit"):
        Regression(low, high)


@pytest.mark.parametrize("memory", [{"pending": 0}, {"ttl_s": 0.0}])
def test_memory_of_nothing_is_refused(memory: dict[str, int] | dict[str, float]) -> None:
    with pytest.raises(EngineError, match="must be positive"):
        Memory(**memory)


def test_a_support_set_without_room_for_an_example_is_refused() -> None:
    with pytest.raises(EngineError, match="support must be positive, got 0"):
        replace(SMALL.problem, support=0)


def test_a_learner_made_for_other_support_sets_is_refused_by_the_engine() -> None:
    with pytest.raises(
        EngineError, match=r"support sets of 9 examples, .* hold 4; make the learner of spec.problem"
    ):
        Engine(SMALL, GradientLearner(replace(SMALL.problem, support=9)))


@pytest.mark.parametrize("policy", [{"every": 0}, {"recent": -1}, {"refractory": -1}])
def test_a_policy_that_never_adapts_or_counts_backwards_is_refused(policy: dict[str, int]) -> None:
    with pytest.raises(EngineError, match="every must be positive"):
        Policy(**policy)


def test_thetas_fingerprint_changes_with_shapes_but_not_with_what_adapts() -> None:
    wider = varied(SMALL, network=partial(mlp, hidden=(9,)))
    small, wide, all_of_it = (
        theta_fingerprint(GradientLearner(spec.problem))
        for spec in (SMALL, wider, varied(SMALL, adapts="all"))
    )
    assert wide != small
    assert all_of_it == small
