"""Training on every label: gathered rows are the whole tables, steps by hand, and resumed bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from engine.features.columns import MAX_TEXT_IDS, Category, Numeric, Text
from engine.features.encoder import Features
from engine.features.history import History
from engine.learners.gradient import GradientLearner
from engine.networks.mlp import mlp
from engine.outer import online
from engine.outer.backprop import Backprop
from engine.outer.descent import FitSettings
from engine.outer.fit import TrainState, start, with_statistics
from engine.outer.online import FIRST_SUM, Lesson, Online, Rates
from engine.problem import InnerLoop, Problem
from engine.targets import Classification, Regression
from engine.types import Batch, Episodes

BUCKETS = 512
FEATURES = Features((Numeric("n"), Category("c", BUCKETS, 3), Text("t", BUCKETS, 2), Category("d", 4, 2)))
PROBLEM = Problem(
    FEATURES,
    Classification((0, 1)),
    network=partial(mlp, hidden=(5,)),
    adapts="head",
    inner=InnerLoop(steps=2, lr="auto"),
    history=History(by=("c",)),
    wide=True,
)
RATES = Rates(FitSettings("SGD", lr=0.1))


def batch(problem: Problem, tasks: int, examples: int, seed: int, full: bool = False) -> Batch:
    """Rows of any tasks; `full` texts have no padding."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(0, 3, (tasks, examples, problem.width))
    x[..., 1] = rng.integers(0, BUCKETS, (tasks, examples))
    text = rng.integers(1, BUCKETS, (tasks, examples, MAX_TEXT_IDS))
    x[..., 2 : 2 + MAX_TEXT_IDS] = text * (full | (np.arange(MAX_TEXT_IDS) < 3))
    x[..., 2 + MAX_TEXT_IDS] = rng.integers(0, 4, (tasks, examples))
    x[..., problem.features.width :] = np.floor(x[..., problem.features.width :])
    y = rng.integers(0, 2, (tasks, examples)).astype(np.float32)
    return Batch(torch.from_numpy(x).float(), torch.from_numpy(y), torch.ones(tasks, examples))


def lessons(problem: Problem, first: int, last: int, full: bool = False) -> Iterator[Lesson]:
    for seed in range(first, last):
        support, query = (batch(problem, 3, 2, 100 * seed + part, full) for part in range(2))
        episodes = Episodes(
            support._replace(weight=support.weight / 2), query._replace(weight=query.weight / 2)
        )
        yield Lesson(batch(problem, 1, 6 if not full else 2, seed, full), episodes if seed % 2 else None)


def begun(learner: GradientLearner) -> TrainState:
    """A theta of which nothing is zero, so that every gradient reaches every parameter."""
    state, rng = start(learner, 0), np.random.default_rng(0)
    for name in learner.learned:
        state.params[name] += torch.from_numpy(rng.normal(0, 0.3, state.params[name].shape)).float()
    return state


def differences(one: TrainState, other: TrainState) -> list[str]:
    parts = ((one.params, other.params), (one.optimizer, other.optimizer), (one.sums, other.sums))
    assert all(ours.keys() == theirs.keys() for ours, theirs in parts)
    return [name for ours, theirs in parts for name in ours if not torch.equal(ours[name], theirs[name])]


@pytest.mark.parametrize("full", [False, True], ids=["padded texts", "texts without padding"])
@pytest.mark.parametrize("target", [PROBLEM.target, Regression(-1.0, 2.0)], ids=["classes", "values"])
def test_gathered_rows_take_the_step_that_whole_tables_would(
    monkeypatch: pytest.MonkeyPatch, full: bool, target: Classification | Regression
) -> None:
    learner = GradientLearner(replace(PROBLEM, target=target))
    gathered, _ = Online(learner, Backprop(), RATES).learn(
        lessons(learner.problem, 0, 2, full), begun(learner)
    )

    def whole(problem: Any, params: Any, tables: Any, lesson: Any) -> Any:
        every = [online._Rows(name, torch.arange(len(params[name]))) for name in tables]
        return dict(params), lesson, every

    monkeypatch.setattr(online, "_gathered", whole)
    by_tables, _ = Online(learner, Backprop(), RATES).learn(
        lessons(learner.problem, 0, 2, full), begun(learner)
    )
    for name, value in gathered.params.items():
        torch.testing.assert_close(value, by_tables.params[name], rtol=1e-4, atol=1e-6, msg=name)


def test_only_rows_of_buckets_that_a_lesson_names_move() -> None:
    learner = GradientLearner(PROBLEM)
    before = begun(learner)
    [lesson] = lessons(PROBLEM, 0, 1)
    after, _ = Online(learner, Backprop(), RATES).learn([lesson], before)
    named = set(lesson.labels.x[0, :, 1].long().tolist())
    for table in ("0.embeddings.0.weight", "0.wide.0.weight"):
        moved = (after.params[table] != before.params[table]).any(dim=1).nonzero().flatten().tolist()
        assert set(moved) == named


def test_resumed_from_its_state_training_goes_on_bit_for_bit() -> None:
    learner = GradientLearner(PROBLEM)
    how = Rates(FitSettings("Adam", lr=0.01))
    whole, rounds = Online(learner, Backprop(), how).learn(lessons(PROBLEM, 0, 6), start(learner, 0))
    half, _ = Online(learner, Backprop(), how).learn(lessons(PROBLEM, 0, 3), start(learner, 0))
    resumed, _ = Online(learner, Backprop(), how).learn(lessons(PROBLEM, 3, 6), half)
    assert differences(whole, resumed) == []
    assert whole.step == resumed.step == 6
    assert [one.step for one in rounds] == list(range(6))


def test_learning_leaves_the_state_it_was_given_as_it_was() -> None:
    learner = GradientLearner(PROBLEM)
    state, _ = Online(learner, Backprop(), RATES).learn(lessons(PROBLEM, 0, 1), start(learner, 0))
    copy = replace(
        state,
        params={n: v.clone() for n, v in state.params.items()},
        sums={n: v.clone() for n, v in state.sums.items()},
    )
    Online(learner, Backprop(), RATES).learn(lessons(PROBLEM, 1, 4), state)
    assert differences(state, copy) == []


PLAIN = Problem(
    Features((Numeric("n"), Category("c", 4, 2))),
    Classification((0, 1)),
    network=partial(mlp, hidden=(3,)),
    wide=True,
)


def test_the_first_two_steps_of_the_linear_part_and_the_buckets_are_adagrads_by_hand() -> None:
    """Theta begins at zero outputs: half for each class, so a label's gradient is known."""
    learner = GradientLearner(PLAIN)
    x = torch.tensor([[[2.0, 1.0], [-1.0, 3.0]]])
    lesson = Lesson(Batch(x, torch.tensor([[1.0, 0.0]]), torch.ones(1, 2)), None)
    rates = Rates(FitSettings("SGD", lr=1e-9), tables=0.2, linear=0.05)
    once, [first] = Online(learner, Backprop(), rates).learn([lesson], start(learner, 0))
    assert first.report.query_loss_before == pytest.approx(np.log(2))
    # The mean gradient of two labels: each half of what it says by itself; buckets are moved by the sum of labels.
    bucket = {1: np.array([0.5, -0.5]), 3: np.array([-0.5, 0.5])}
    for place, slope in bucket.items():
        step = -0.2 * slope / np.sqrt(FIRST_SUM + slope**2)
        assert once.params["0.wide.0.weight"][place].numpy() == pytest.approx(step, rel=1e-5)
    weight = np.array([0.5 * (0.5 * 2 + 0.5 * 1), -0.5 * (0.5 * 2 + 0.5 * 1)])
    moved = once.params["1.linear.weight"][:, 0].numpy()
    assert moved == pytest.approx(-0.05 * np.sign(weight), rel=1e-5)  # Adagrad's first step is its rate
    assert once.sums["1.linear.weight"][:, 0].numpy() == pytest.approx(weight**2, rel=1e-5)
    assert not once.params["1.linear.bias"].any()
    twice, _ = Online(learner, Backprop(), rates).learn([lesson], once)
    by_hand = start(learner, 0).params | {n: once.params[n].clone().requires_grad_() for n in learner.learned}
    outputs = learner.shared(by_hand, x[0])
    torch.nn.functional.cross_entropy(outputs, torch.tensor([1, 0])).backward()
    gradient = by_hand["1.linear.weight"].grad
    assert gradient is not None
    total = once.sums["1.linear.weight"] + gradient.square()
    expected = once.params["1.linear.weight"] - 0.05 * gradient / total.sqrt()
    torch.testing.assert_close(twice.params["1.linear.weight"], expected)


def test_theta_learns_a_bucket_from_its_labels_alone() -> None:
    learner, rng = GradientLearner(PLAIN), np.random.default_rng(0)

    def lesson() -> Lesson:
        c = rng.integers(0, 4, 16)
        x = np.stack([rng.normal(size=16), c], -1)[None]
        return Lesson(
            Batch(torch.from_numpy(x).float(), torch.from_numpy((c == 2)[None]).float(), torch.ones(1, 16)),
            None,
        )

    state, _ = Online(learner, Backprop(), RATES).learn([lesson() for _ in range(60)], start(learner, 0))
    outputs = learner.shared(state.params, torch.tensor([[0.0, c] for c in range(4)])).softmax(-1)[:, 1]
    assert outputs[2] > 0.8
    assert outputs[[0, 1, 3]].max() < 0.2


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_lesson_whose_gradient_is_not_finite_moves_nothing(poison: float) -> None:
    learner = GradientLearner(PLAIN)
    x = torch.tensor([[[poison, 1.0]]])
    # A missing number is read as the mean, so only the label can break a regression's gradient.
    values = GradientLearner(replace(PLAIN, target=Regression(-1.0, 1.0)))
    lesson = Lesson(Batch(torch.zeros(1, 1, 2), torch.tensor([[poison]]), torch.ones(1, 1)), None)
    before = start(values, 0)
    after, [one] = Online(values, Backprop(), RATES).learn([lesson], before)
    assert not one.applied
    assert all(torch.equal(after.params[name], before.params[name]) for name in before.params)
    harmless, [one] = Online(learner, Backprop(), RATES).learn(
        [Lesson(Batch(x, torch.zeros(1, 1), torch.ones(1, 1)), None)], start(learner, 0)
    )
    assert one.applied
    assert all(torch.isfinite(value).all() for value in harmless.params.values())


def test_padding_of_a_lesson_counts_for_nothing() -> None:
    learner = GradientLearner(PLAIN)
    x, y = torch.tensor([[[2.0, 1.0], [-1.0, 3.0]]]), torch.tensor([[1.0, 0.0]])
    padded = Batch(torch.cat([x, x[:, :1]], 1), torch.cat([y, y[:, 1:]], 1), torch.tensor([[1.0, 1, 0]]))
    one, two = (
        Online(learner, Backprop(), RATES).learn([Lesson(labels, None)], start(learner, 0))[0]
        for labels in (Batch(x, y, torch.ones(1, 2)), padded)
    )
    for name, value in one.params.items():
        torch.testing.assert_close(value, two.params[name], msg=name)


def test_of_a_regression_steps_do_not_depend_on_the_unit_of_its_labels() -> None:
    x = torch.tensor([[[2.0, 1.0], [-1.0, 3.0], [0.5, 1.0]]])
    y, thetas = torch.tensor([[1.0, -0.5, 0.2]]), []
    for unit in (1.0, 1024.0):
        learner = GradientLearner(replace(PLAIN, target=Regression(-2 * unit, 2 * unit)))
        state = with_statistics(learner, start(learner, 0), x[0], y[0] * unit)
        lesson = Lesson(Batch(x, y * unit, torch.ones(1, 3)), None)
        thetas.append(Online(learner, Backprop(), RATES).learn([lesson] * 3, state)[0].params)
    for name in learner.learned:
        torch.testing.assert_close(thetas[0][name], thetas[1][name], rtol=1e-4, atol=1e-6, msg=name)
