"""The networks: what each computes, and that every one of them runs under tasks with parameters of their own."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional as F

from engine.checks.learners import (
    LEARNER_CHECKS,
    a_task_does_not_depend_on_its_block_mates,
    an_event_does_not_depend_on_its_block_mates,
)
from engine.checks.made_up import labels_of, stored_rows
from engine.checks.models import MODEL_CHECKS
from engine.checks.promises import CheckFailed, run
from engine.features.columns import Numeric
from engine.features.encoder import Features
from engine.learners.base import losses
from engine.learners.gradient import GradientLearner
from engine.networks.conv4 import conv4
from engine.networks.images import ChannelsLast
from engine.networks.mlp import mlp
from engine.networks.norms import Norm, image_norm, row_norm
from engine.networks.resnet12 import resnet12
from engine.networks.tabular import tabular
from engine.networks.transformer import transformer
from engine.problem import InnerLoop, Problem
from engine.targets import Classification
from engine.types import Batch, EngineError

NETWORKS = {
    "mlp": (partial(mlp, hidden=(8,)), 3),
    "mlp, group": (partial(mlp, hidden=(16,), norm="group"), 3),
    "conv4": (partial(conv4, width=4), 256),
    "conv4, group": (partial(conv4, width=8, norm="group"), 256),
    "conv4, instance": (partial(conv4, width=4, norm="instance"), 256),
    "resnet12": (partial(resnet12, widths=(4, 4)), 16),
    "resnet12, excitation": (partial(resnet12, widths=(4,), excitation=True), 12),
    "tabular": (partial(tabular, width=8, blocks=1), 3),
    "transformer": (partial(transformer, width=4, depth=1, heads=2), 2),
}
TRANSDUCTIVE = {
    "mlp": (partial(mlp, hidden=(8,), norm="batch"), 3),
    "conv4": (partial(conv4, width=4, norm="batch"), 256),
    "resnet12": (partial(resnet12, widths=(4,), norm="batch"), 4),
    "tabular": (partial(tabular, width=8, norm="batch"), 3),
}

every_network = pytest.mark.parametrize(("network", "inputs"), NETWORKS.values(), ids=NETWORKS)
every_network_and_norm = pytest.mark.parametrize(
    ("network", "inputs"),
    [*NETWORKS.values(), *TRANSDUCTIVE.values()],
    ids=[*NETWORKS, *(f"{name}, batch" for name in TRANSDUCTIVE)],
)


def problem_of(network: Callable[[int, int], nn.Module], inputs: int, adapts: str = "all") -> Problem:
    features = Features(tuple(Numeric(f"x{i}") for i in range(inputs)))
    return Problem(features, Classification((0, 1, 2)), network, adapts, inner=InnerLoop(steps=1, lr=0.05))


def rows(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def assert_close(a: Tensor, b: Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


# Under tasks with parameters of their own


@pytest.mark.parametrize("name", ["mlp, group", "conv4", "resnet12, excitation", "tabular", "transformer"])
def test_every_network_keeps_what_a_stream_needs_where_all_of_it_adapts(name: str) -> None:
    problem = problem_of(*NETWORKS[name])
    run(MODEL_CHECKS, problem)
    run(LEARNER_CHECKS, GradientLearner(problem), problem)


@every_network
def test_the_head_and_norms_of_every_network_adapt_whatever_the_block_mates(
    network: Callable[[int, int], nn.Module], inputs: int
) -> None:
    problem = problem_of(network, inputs, "head+norms")
    checks = (a_task_does_not_depend_on_its_block_mates, an_event_does_not_depend_on_its_block_mates)
    run(checks, GradientLearner(problem), problem)


@every_network_and_norm
def test_tasks_side_by_side_compute_what_each_would_alone(
    network: Callable[[int, int], nn.Module], inputs: int
) -> None:
    model, x = network(inputs, 3).double(), rows(2, 4, inputs).double()
    own = {name: torch.stack([p, p * 1.5]).detach() for name, p in model.named_parameters()}
    together = vmap(lambda params, x: functional_call(model, params, (x,)))(own, x)
    for task in range(2):
        alone = functional_call(model, {name: value[task] for name, value in own.items()}, (x[task],))
        assert_close(together[task], alone)


@every_network_and_norm
def test_second_derivatives_agree_with_finite_differences(
    network: Callable[[int, int], nn.Module], inputs: int
) -> None:
    problem = problem_of(network, inputs)
    learner = GradientLearner(problem)
    meta = {name: value.double() for name, value in learner.init(0).items()}
    x = torch.from_numpy(stored_rows(problem.features, 8, seed=0)).double().view(2, 4, -1)
    y = torch.from_numpy(labels_of(problem, 8, seed=0)).double().view(2, 4)
    support = Batch(x, y, torch.full((2, 4), 0.25, dtype=torch.float64))
    direction = {name: rows(*meta[name].shape).double() for name in learner.learned}

    def moved(distance: Tensor) -> Tensor:
        theta = {name: meta[name] + distance * step for name, step in direction.items()}
        fast = learner.adapt_differentiably({**meta, **theta}, support, second_order=True)
        return losses(learner, {**meta, **theta}, fast, support).sum()

    at, before, after = torch.tensor([0.0, -1e-6, 1e-6], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(moved(at), at)
    measured = (moved(after) - moved(before)) / (after - before)
    torch.testing.assert_close(slope, measured.detach(), rtol=1e-4, atol=1e-6)


@every_network_and_norm
def test_the_last_linear_is_the_head_and_every_norm_adapts_with_it(
    network: Callable[[int, int], nn.Module], inputs: int
) -> None:
    problem = problem_of(network, inputs, "head+norms")
    model = problem.model()
    assert isinstance(list(model.modules())[-1], nn.Linear)
    assert model[1](rows(2, inputs)).shape == (2, 3)
    scales = {
        name for name, p in model.named_parameters() if name.endswith("weight") and bool((p == 1).all())
    }
    adapted = set(problem.adapted_names(model))
    assert scales and scales < adapted
    assert len(adapted) == 2 * len(scales) + 2


@every_network
def test_leading_axes_are_only_more_examples(network: Callable[[int, int], nn.Module], inputs: int) -> None:
    model, x = network(inputs, 3).double(), rows(2, 3, inputs).double()
    assert_close(model(x), model(x.view(6, inputs)).view(2, 3, 3))
    assert model(x[:, :0]).shape == (2, 0, 3)


# Normalisation


@pytest.mark.parametrize(("network", "inputs"), TRANSDUCTIVE.values(), ids=TRANSDUCTIVE)
def test_batch_normalisation_is_refused_for_a_stream(
    network: Callable[[int, int], nn.Module], inputs: int
) -> None:
    problem = problem_of(network, inputs)
    with pytest.raises(CheckFailed, match=r"beside other events; .*no batch statistics"):
        an_event_does_not_depend_on_its_block_mates(GradientLearner(problem), problem)


@pytest.mark.parametrize("norm", ["layer", "group", "instance", "batch"])
def test_an_image_is_normalised_over_what_the_choice_says(norm: Norm) -> None:
    x = 3 * rows(5, 16, 2, 2) + 7
    y = image_norm(norm, 16)(x)
    over = {"layer": (5, 1, 64), "group": (5, 2, 32), "instance": (5, 16, 4)}
    parts = y.transpose(0, 1).reshape(1, 16, 20) if norm == "batch" else y.reshape(over[norm])
    assert_close(parts.mean(-1), torch.zeros(parts.shape[:2]))
    assert_close(parts.var(-1, correction=0), torch.ones(parts.shape[:2]), 1e-2)


@pytest.mark.parametrize("norm", ["layer", "group", "batch"])
def test_a_row_is_normalised_over_what_the_choice_says(norm: Norm) -> None:
    x = 3 * rows(5, 4, 16) + 7
    y = row_norm(norm, 16)(x)
    over = {"layer": (20, 1, 16), "group": (20, 2, 8)}
    parts = y.view(20, 16).t().reshape(1, 16, 20) if norm == "batch" else y.view(over[norm])
    assert_close(parts.mean(-1), torch.zeros(parts.shape[:2]))
    assert_close(parts.var(-1, correction=0), torch.ones(parts.shape[:2]), 1e-2)


def test_a_norm_that_does_not_fit_is_refused_and_the_way_out_named() -> None:
    with pytest.raises(EngineError, match=r"multiples of 8, got 12"):
        image_norm("group", 12)
    with pytest.raises(EngineError, match=r"a row must be 'layer', 'group' or 'batch', got 'instance'"):
        row_norm("instance", 16)
    with pytest.raises(EngineError, match=r"got 'weight'"):
        image_norm("weight", 16)  # type: ignore[arg-type]


def test_the_default_perceptron_is_named_and_initialised_as_ever() -> None:
    torch.manual_seed(0)
    expected = nn.Sequential(nn.Linear(3, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 2)).state_dict()
    torch.manual_seed(0)
    found = mlp(3, 2, hidden=(8,)).state_dict()
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


# Images


def test_conv4_is_four_blocks_of_convolution_norm_relu_and_maximum() -> None:
    model, x = conv4(28 * 28, 5, width=8), rows(3, 28 * 28)
    params, y = dict(model.named_parameters()), x.view(3, 1, 28, 28)
    for block in range(4):
        weight, bias, scale, shift = (
            params[f"body.{block}.{part}"] for part in ("0.weight", "0.bias", "1.weight", "1.bias")
        )
        y = F.max_pool2d(F.relu(F.group_norm(F.conv2d(y, weight, bias, padding=1), 1, scale, shift)), 2)
    assert_close(model(x), F.linear(y.flatten(1), params["head.weight"], params["head.bias"]))


@pytest.mark.parametrize(("side", "channels", "features"), [(28, 1, 64), (84, 3, 1600)])
def test_conv4_has_64_filters_and_the_features_of_the_papers(side: int, channels: int, features: int) -> None:
    model = conv4(channels * side * side, 5)
    assert model.get_parameter("head.weight").shape == (5, features)
    assert model(rows(1, channels * side * side)).shape == (1, 5)


@pytest.mark.parametrize(("side", "features"), [(28, 4), (32, 4), (33, 9)])
def test_strided_conv4_halves_by_its_convolutions(side: int, features: int) -> None:
    model, x = conv4(side * side, 5, width=8, norm="group", strided=True), rows(3, side * side)
    params, y = dict(model.named_parameters()), x.view(3, 1, side, side)
    for block in range(4):
        weight, bias, scale, shift = (
            params[f"body.{block}.{part}"] for part in ("0.weight", "0.bias", "1.weight", "1.bias")
        )
        y = F.relu(F.group_norm(F.conv2d(y, weight, bias, stride=2, padding=1), 1, scale, shift))
    assert params["head.weight"].shape == (5, 8 * features)
    assert_close(model(x), F.linear(y.flatten(1), params["head.weight"], params["head.bias"]))


@pytest.mark.parametrize("network", [partial(mlp, hidden=(8, 16)), partial(conv4, width=8)])
def test_a_step_from_a_zero_head_is_a_nearest_mean_classifier(network: partial[nn.Module]) -> None:
    model, x, y = network(28 * 28, 3, head="zero"), rows(6, 28 * 28), torch.tensor([0, 1, 2, 0, 1, 2])
    assert not model(x).any()
    head = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    features = []
    head.register_forward_hook(lambda _, inputs, __: features.append(inputs[0].detach()))
    gradient = torch.autograd.grad(F.cross_entropy(model(x), y), head.weight)[0]
    means = torch.stack([features[0][y == label].mean(0) for label in range(3)])
    assert_close(-3 * gradient, means - features[0].mean(0))
    assert (features[0] < 0).any()


def test_a_head_that_does_not_exist_is_refused() -> None:
    for network in (mlp, conv4):
        with pytest.raises(EngineError, match="head must be 'random' or 'zero', got 'none'"):
            network(28 * 28, 3, head="none")  # type: ignore[arg-type]  # on purpose


def test_resnet12_has_twelve_convolutions_beside_its_shortcuts() -> None:
    model = resnet12(3 * 84 * 84, 5)
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert len([m for m in convolutions if m.kernel_size == (3, 3)]) == 12
    assert model.get_parameter("head.weight").shape == (5, 640)


def test_excitation_weighs_the_channels_of_a_branch_before_it_is_added() -> None:
    weighed = resnet12(16, 3, widths=(16,), excitation=True)
    plain = resnet12(16, 3, widths=(16,))
    gate, last_norm = "body.0.branch.8.weigh.2.", "body.0.branch.7."
    theta = dict(weighed.state_dict())
    # A gate of sigmoid(0) halves every channel, as halving the norm before it does.
    theta |= {f"{gate}{part}": torch.zeros_like(theta[f"{gate}{part}"]) for part in ("weight", "bias")}
    halved = {name: theta[name] * (0.5 if name.startswith(last_norm) else 1) for name in plain.state_dict()}
    x = rows(4, 16)
    assert_close(functional_call(weighed, theta, (x,)), functional_call(plain, halved, (x,)))


def test_a_gradient_passes_through_an_image_network_to_what_encodes_its_rows() -> None:
    model, x = conv4(256, 2, width=4).double(), rows(2, 256).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda first: model(torch.cat([first, x[:, 1:]], 1)), x[:, :1])


def test_channels_are_innermost_in_memory_on_a_cpu_only() -> None:
    channels_last: Callable[[Tensor], Tensor] = ChannelsLast.apply
    assert channels_last(rows(2, 1, 4, 4)).stride() == (16, 1, 4, 1)
    assert channels_last(torch.empty(2, 3, 4, 4, device="meta")).is_contiguous()


@pytest.mark.parametrize("inputs", [0, 783, 2 * 784])
def test_rows_that_are_no_square_images_are_refused(inputs: int) -> None:
    with pytest.raises(EngineError, match=rf"{inputs} inputs are no square images of 1 or 3 channels"):
        conv4(inputs, 5)


def test_images_too_small_for_the_network_are_refused() -> None:
    with pytest.raises(EngineError, match=r"side 15 are too small: .*from 16 on"):
        conv4(15 * 15, 5)


# Rows


def test_a_transformer_attends_as_torch_s_own_does() -> None:
    network: Any = transformer(3, 2, width=6, depth=1, heads=2)
    attention = network[1].attend[1]
    theirs = nn.MultiheadAttention(6, 2, batch_first=True)
    theirs.load_state_dict(
        {
            "in_proj_weight": attention.project.weight,
            "in_proj_bias": attention.project.bias,
            "out_proj.weight": attention.join.weight,
            "out_proj.bias": attention.join.bias,
        }
    )
    tokens = rows(5, 4, 6)
    assert_close(attention(tokens), theirs(tokens, tokens, tokens)[0])


def test_a_transformer_sees_combinations_which_no_sum_over_features_does() -> None:
    model = transformer(2, 1)
    corners = torch.tensor([[0.0, 0.0], [2.0, 2.0], [0.0, 2.0], [2.0, 0.0]])
    a, b, c, d = model(corners).flatten()
    assert abs(a + b - c - d) > 1e-3


def test_a_transformer_of_heads_that_do_not_share_its_width_is_refused() -> None:
    with pytest.raises(EngineError, match="multiple of heads, got 10 and 4"):
        transformer(3, 2, width=10)


def test_a_residual_block_adds_to_what_came_in() -> None:
    model: Any = tabular(3, 2, width=8, blocks=1)
    x = rows(4, 3)
    first, block, norm, relu, head = model
    assert_close(model(x), head(relu(norm(first(x) + block.branch(first(x))))))


def test_images_that_leave_one_pixel_to_normalise_are_refused() -> None:
    with pytest.raises(EngineError, match="one pixel left"):
        conv4(16 * 16, 3, norm="instance", strided=True)
    assert conv4(16 * 16, 3, norm="group", strided=True)


def test_a_precision_that_is_not_offered_is_refused() -> None:
    with pytest.raises(EngineError, match="precision must be"):
        conv4(28 * 28, 3, precision="bf16")  # type: ignore[arg-type]  # on purpose
