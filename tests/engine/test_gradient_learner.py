"""The inner loop against a plain loop of torch, one task at a time, and what it keeps from every caller."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from engine.batches import BLOCK, block_of
from engine.features.columns import Category, Numeric
from engine.features.encoder import Features
from engine.learners.base import flatten, losses
from engine.learners.gradient import GradientLearner
from engine.networks.mlp import mlp
from engine.networks.transformer import transformer
from engine.problem import InnerLoop, Problem
from engine.targets import Classification, Regression
from engine.types import Batch, Fast, Params

FEATURES = Features((Numeric("amount"), Numeric("age", optional=True), Category("country", buckets=8)))
TASKS = 5


def learner(**changes: object) -> GradientLearner:
    problem = Problem(FEATURES, Classification((0, 1, 2)), inner=InnerLoop(steps=4, lr=0.1, clip=0.5))
    return GradientLearner(replace(problem, **changes))  # type: ignore[arg-type]


def support(tasks: int = TASKS, examples: int = 7, seed: int = 0) -> Batch:
    g = torch.Generator().manual_seed(seed)
    x = torch.cat([torch.randn(tasks, examples, 2, generator=g), torch.ones(tasks, examples, 1)], -1)
    x[:, ::3, 1] = torch.nan
    x[..., 2] = torch.randint(8, (tasks, examples), generator=g)
    weight = torch.rand(tasks, examples, generator=g) + 0.1
    y = torch.randint(3, (tasks, examples), generator=g).float()
    return Batch(x, y, weight / weight.sum(1, keepdim=True))


def only(batch: Batch, task: int, examples: slice = slice(None)) -> Batch:
    return Batch(*(value[task : task + 1, examples] for value in batch))


def adapted_alone(subject: GradientLearner, theta: Params, batch: Batch, task: int) -> nn.Module:
    """The textbook: copy the model, and take steps with torch's own optimizer and clipping."""
    model = subject.problem.model()
    model.load_state_dict(theta)
    model = deepcopy(model)
    moving = [model.get_parameter(name) for name in subject.fast_shapes]
    optimizer = torch.optim.SGD(moving, lr=float(subject.problem.inner.lr))
    for _ in range(subject.problem.inner.steps):
        optimizer.zero_grad()
        losses = subject.problem.target.loss(model(batch.x[task]), batch.y[task])
        (losses * batch.weight[task]).sum().backward()
        nn.utils.clip_grad_norm_(moving, subject.problem.inner.clip)
        optimizer.step()
    return model


def assert_close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-4, atol=2e-6)


def task_of(fast: Fast, task: int) -> Fast:
    return {name: value[task] for name, value in fast.items()}


@pytest.mark.parametrize("adapts", ["head", "head+norms", "all"])
@pytest.mark.parametrize("clip", [0.05, 100.0])
def test_a_batch_adapts_as_each_task_would_alone_with_torch_sgd(adapts: str, clip: float) -> None:
    subject = learner(adapts=adapts, inner=InnerLoop(steps=4, lr=0.1, clip=clip))
    theta, batch = subject.init(1), support()
    fast = subject.adapt(theta, batch)
    for task in range(TASKS):
        alone = adapted_alone(subject, theta, batch, task)
        for name, value in task_of(fast, task).items():
            assert_close(value, alone.get_parameter(name).detach())


def test_an_adapted_task_predicts_what_its_own_copy_of_the_model_predicts() -> None:
    subject = learner()
    theta, batch, x = subject.init(1), support(), support(seed=9).x
    outputs = subject.predict(theta, subject.adapt(theta, batch), x)
    for task in range(TASKS):
        assert_close(outputs[task], adapted_alone(subject, theta, batch, task)(x[task]).detach())


@pytest.mark.parametrize("adapts", ["head", "head+norms", "all"])
def test_a_task_adapts_the_parameters_it_was_given_and_no_other(adapts: str) -> None:
    subject = learner(adapts=adapts)
    fast = subject.adapt(subject.init(0), support())
    head = {"1.6.weight", "1.6.bias"}
    norms = {f"1.{layer}.{part}" for layer in (1, 4) for part in ("weight", "bias")}
    body = {f"1.{layer}.{part}" for layer in (0, 3) for part in ("weight", "bias")}
    assert set(fast) == {"head": head, "head+norms": head | norms, "all": head | norms | body}[adapts]
    assert {name: value.shape[1:] for name, value in fast.items()} == dict(subject.fast_shapes)


def test_theta_is_the_same_after_adapting() -> None:
    subject = learner(adapts="all")
    theta = subject.init(0)
    before = {name: value.clone() for name, value in theta.items()}
    subject.adapt(theta, support())
    assert all(torch.equal(theta[name], before[name]) for name in theta)


def test_the_same_seed_gives_the_same_theta_and_leaves_torch_s_generator_alone() -> None:
    subject = learner()
    drawn = torch.random.get_rng_state()
    a, b, c = subject.init(3), subject.init(3), subject.init(4)
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not all(torch.equal(a[name], c[name]) for name in a)
    assert torch.equal(drawn, torch.random.get_rng_state())


@pytest.mark.parametrize("differentiable", [False, True])
@pytest.mark.parametrize(("steps", "examples"), [(4, 0), (0, 7)])
def test_no_support_set_or_no_step_leaves_theta(steps: int, examples: int, differentiable: bool) -> None:
    subject = learner(inner=InnerLoop(steps=steps))
    theta = subject.init(0)
    adapt = partial(subject.adapt_differentiably, second_order=True) if differentiable else subject.adapt
    fast = adapt(theta, support(examples=examples))
    for name, value in fast.items():
        assert torch.equal(value, theta[name].expand(TASKS, *theta[name].shape))


def test_a_task_without_examples_keeps_theta_while_others_adapt() -> None:
    subject = learner()
    theta, batch = subject.init(0), support()
    batch.weight[2] = 0
    fast = subject.adapt(theta, batch)
    moved = [any(not torch.equal(v[task], theta[name]) for name, v in fast.items()) for task in range(TASKS)]
    assert moved == [True, True, False, True, True]


def test_padding_a_support_set_changes_nothing() -> None:
    subject = learner()
    theta, batch = subject.init(0), support()
    padded = Batch(*(torch.cat([value, torch.zeros_like(value[:, :3])], 1) for value in batch))
    for a, b in zip(subject.adapt(theta, batch).values(), subject.adapt(theta, padded).values(), strict=True):
        assert_close(a, b)


def test_ragged_support_sets_adapt_as_each_would_unpadded() -> None:
    subject = learner()
    theta, batch = subject.init(0), support()
    lengths = [7, 1, 4, 2, 6]
    for task, length in enumerate(lengths):
        batch.weight[task, length:] = 0
    fast = subject.adapt(theta, batch)
    for task, length in enumerate(lengths):
        alone = subject.adapt(theta, only(batch, task, slice(length)))
        for name, value in alone.items():
            assert_close(fast[name][task], value[0])


def test_a_task_that_diverges_keeps_theta_while_others_adapt() -> None:
    inner = InnerLoop(steps=3, lr=0.1, clip=1e6)
    problem = Problem(Features((Numeric("x"),)), Regression(-9, 9), nn.Linear, adapts="all", inner=inner)
    subject = GradientLearner(problem)
    theta = subject.init(0)
    # Gradient descent on squared loss converges while lr < 1 / (x**2 + 1), and diverges above.
    x = torch.tensor([0.5, 9.0]).view(2, 1, 1).expand(2, 4, 1)
    batch = Batch(x, torch.full((2, 4), 3.0), torch.full((2, 4), 0.25))
    fast = subject.adapt(theta, batch)
    kept = [all(torch.equal(value[task], theta[name]) for name, value in fast.items()) for task in range(2)]
    assert kept == [False, True]


@settings(deadline=None, max_examples=40)
@given(exponent=st.integers(-3, 38), clip=st.sampled_from([0.1, 1.0, 1e3]))
def test_no_step_size_leaves_a_task_worse_than_theta_or_not_finite(exponent: int, clip: float) -> None:
    subject = learner(adapts="all", inner=InnerLoop(steps=5, lr=10.0**exponent, clip=clip))
    theta, batch = subject.init(0), support()
    before = losses(subject, theta, subject._adapt(theta, support(examples=0)), batch)
    fast = subject._adapt(theta, batch)  # not recorded anew for every step size
    assert bool((losses(subject, theta, fast, batch) <= before).all())
    assert all(bool(value.isfinite().all()) for value in fast.values())


def test_a_task_without_examples_has_a_finite_derivative() -> None:
    subject = learner()
    theta, batch = subject.init(0), support()
    batch.weight[:] = 0
    leaves = {name: theta[name].requires_grad_() for name in subject.fast_shapes}
    fast = subject.adapt_differentiably({**theta, **leaves}, batch, second_order=True)
    total = torch.stack([value.sum() for value in fast.values()]).sum()
    for gradient in torch.autograd.grad(total, list(leaves.values())):
        assert torch.equal(gradient, torch.full_like(gradient, TASKS))


def test_a_step_moves_any_parameter_it_is_given_the_encoder_s_too() -> None:
    subject = learner(adapts="head")
    theta, batch = subject.init(0), support()
    every = {name: theta[name].expand(TASKS, *theta[name].shape) for name in subject.learned}
    stepped = subject.step(theta, every, batch)
    alone = {name: theta[name].clone().requires_grad_() for name in subject.learned}
    outputs = torch.func.functional_call(subject.problem.model(), {**theta, **alone}, (batch.x[0],))
    loss = (subject.problem.target.loss(outputs, batch.y[0]) * batch.weight[0]).sum()
    gradients = torch.autograd.grad(loss, list(alone.values()))
    norm = torch.cat([gradient.flatten() for gradient in gradients]).norm()
    assert norm > subject.problem.inner.clip
    for (name, value), gradient in zip(alone.items(), gradients, strict=True):
        expected = value.detach() - 0.1 * (0.5 / norm) * gradient
        assert_close(stepped[name][0], expected)


def test_theta_shared_is_what_an_unadapted_task_predicts() -> None:
    subject = learner()
    theta, x = subject.init(0), support().x
    outputs = subject.predict(theta, {}, x)
    for task in range(TASKS):
        assert_close(outputs[task], subject.shared(theta, x[task]))


# Blocks


@pytest.mark.parametrize(
    "network", [mlp, partial(transformer, width=8, depth=1, heads=2)], ids=["mlp", "transformer"]
)
@pytest.mark.parametrize("near", [1, 2_000, 80_000])
def test_a_task_has_the_same_bits_alone_and_among_any_number_of_others(
    network: Callable[[int, int], nn.Module], near: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.batches.NEAR", near)
    subject, batch = learner(network=network, adapts="all"), support(BLOCK + 13)
    batch.weight[::7] = 0
    theta = subject.init(0)
    together = flatten(subject.adapt(theta, batch))
    for tasks in ([1], [7], [44, 20], list(range(30, 45))):
        some = subject.adapt(theta, Batch(*(column[tasks] for column in batch)))
        assert torch.equal(flatten(some), together[tasks])


def test_tasks_without_examples_take_no_place_in_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    subject, batch, blocks = learner(), support(40), list[int]()
    adapted = subject._adapted

    def counted(meta: Params, theta: Tensor, block: Batch) -> Tensor:
        blocks.append(int((block.weight > 0).any(1).sum()))
        return adapted(meta, theta, block)

    monkeypatch.setattr(subject, "_adapted", counted)
    batch.weight[3:] = 0
    theta = subject.init(0)
    fast = subject.adapt(theta, batch)
    assert blocks == [3]
    assert all(torch.equal(value[39], theta[name]) for name, value in fast.items())


@pytest.mark.parametrize(
    ("numbers", "tasks"), [(1, BLOCK), (2_500, 32), (2_501, 16), (40_000, 2), (40_001, 1), (10**9, 1)]
)
def test_a_block_holds_as_many_tasks_as_stay_near_the_processor(numbers: int, tasks: int) -> None:
    assert block_of(numbers) == tasks
