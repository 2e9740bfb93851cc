"""The outer loop: what it keeps between rounds, what it refuses, and the statistics it standardises by."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.batches import sample, stack
from engine.features.columns import Category, Cyclic, Numeric
from engine.features.encoder import Features
from engine.learners.base import Learner
from engine.learners.gradient import GradientLearner
from engine.outer.backprop import Backprop
from engine.outer.base import Report
from engine.outer.descent import FitSettings, global_norm
from engine.outer.fit import FAR, RARE, TrainState, fit, measured, merged, start, with_statistics
from engine.problem import Problem
from engine.targets import Classification, Regression
from engine.types import EngineError, Episode, Episodes, Float32, Params

FEATURES = Features(
    (Numeric("amount"), Cyclic("hour", 24), Numeric("age", optional=True), Category("country", 8))
)
LEARNER = GradientLearner(Problem(FEATURES, Classification((0, 1))))
OPTIMIZERS = [
    "ASGD",
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "NAdam",
    "RAdam",
    "RMSprop",
]
SCHEDULE = FitSettings(lr=0.5, warmup=4, schedule="linear", steps=14)


def episode(support: int, query: int, seed: int) -> Episode:
    rng = np.random.default_rng(seed)

    def x(count: int) -> Float32:
        return np.abs(rng.normal(size=(count, FEATURES.width))).astype(np.float32)

    def y(count: int) -> Float32:
        return rng.integers(0, 2, count).astype(np.float32)

    weight = rng.dirichlet(np.ones(support)).astype(np.float32) if support else np.zeros(0, np.float32)
    return Episode(0, 0, 0, x(support), y(support), weight, x(query), y(query))


EPISODES = [episode(seed % 4, 1 + seed % 3, seed) for seed in range(12)]


def drawn(first: int, last: int) -> Iterator[Episodes]:
    return (stack(sample(EPISODES, 5, seed=7, step=step)) for step in range(first, last))


def constant(value: float) -> Params:
    return {name: torch.full_like(LEARNER.init(0)[name], value) for name in LEARNER.learned}


class Fixed:
    """A rule that answers with the pseudo-gradients it was given, in turn."""

    def __init__(self, *answers: Params) -> None:
        self.answers = iter(answers)

    def __call__(self, learner: Learner, meta: Params, episodes: Episodes) -> tuple[Params, Report]:
        return next(self.answers), Report(1.0, 0.5)


def assert_equal(a: TrainState, b: TrainState) -> None:
    assert a.step == b.step
    for ours, theirs in ((a.params, b.params), (a.optimizer, b.optimizer)):
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize(
    ("optimizer", "options"),
    [
        *((name, {}) for name in [*OPTIMIZERS, "Rprop", "SGD"]),
        *((name, {"momentum": 0.9}) for name in ("SGD", "RMSprop")),
        *((name, {"betas": (0.0, 0.99)}) for name in ("Adam", "AdamW", "NAdam")),
    ],
)
def test_training_resumed_from_a_checkpoint_continues_bit_for_bit(
    optimizer: str, options: dict[str, Any]
) -> None:
    how = FitSettings(optimizer, lr=0.02, warmup=3, schedule="cosine", steps=12, **options)
    whole, _ = fit(LEARNER, Backprop(), drawn(0, 9), start(LEARNER, 0), how)
    half, _ = fit(LEARNER, Backprop(), drawn(0, 4), start(LEARNER, 0), how)
    resumed, _ = fit(LEARNER, Backprop(), drawn(half.step, 9), half, how)
    assert_equal(whole, resumed)


def test_fit_leaves_the_state_it_was_given_as_it_was() -> None:
    state, _ = fit(LEARNER, Backprop(), drawn(0, 2), start(LEARNER, 0), FitSettings())
    before = {name: value.clone() for name, value in {**state.params, **state.optimizer}.items()}
    fit(LEARNER, Backprop(), drawn(2, 5), state, FitSettings())
    assert all(
        torch.equal(value, before[name]) for name, value in {**state.params, **state.optimizer}.items()
    )


def test_a_checkpoint_is_tensors_without_a_graph() -> None:
    state, _ = fit(LEARNER, Backprop(first_order=False), drawn(0, 3), start(LEARNER, 0), FitSettings())
    values = [*state.params.values(), *state.optimizer.values()]
    assert all(isinstance(value, torch.Tensor) and not value.requires_grad for value in values)
    assert {"0.mean", "0.std"} < state.params.keys()
    assert "Adam:1.0.weight:exp_avg" in state.optimizer


def test_training_lowers_the_loss_after_adaptation() -> None:
    _, rounds = fit(LEARNER, Backprop(), drawn(0, 60), start(LEARNER, 0), FitSettings(lr=0.01))
    losses = [round.report.query_loss_after for round in rounds]
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_a_pseudo_gradient_that_is_not_finite_is_reported_and_never_applied(poison: float) -> None:
    bad = constant(0.1)
    bad["1.0.bias"][0] = poison
    begun, _ = fit(LEARNER, Fixed(constant(0.1)), drawn(0, 1), start(LEARNER, 0), FitSettings())
    state, rounds = fit(LEARNER, Fixed(bad), drawn(1, 2), begun, FitSettings())
    assert not rounds[0].applied
    assert not math.isfinite(rounds[0].norm)
    assert_equal(state, replace(begun, step=2))


def test_training_goes_on_after_a_round_that_was_skipped() -> None:
    state, rounds = fit(
        LEARNER, Fixed(constant(math.nan), constant(0.1)), drawn(0, 2), start(LEARNER, 0), FitSettings()
    )
    assert [round.applied for round in rounds] == [False, True]
    assert [round.step for round in rounds] == [0, 1]
    assert all(bool(value.isfinite().all()) for value in state.params.values())


@pytest.mark.parametrize("size", [1e-3, 1e3, 1e30])
def test_no_step_of_sgd_is_longer_than_the_rate_times_the_clip(size: float) -> None:
    how = FitSettings("SGD", lr=0.1, clip=2.0)
    begun = start(LEARNER, 0)
    state, rounds = fit(LEARNER, Fixed(constant(size)), drawn(0, 1), begun, how)
    moved = global_norm({name: state.params[name] - begun.params[name] for name in LEARNER.learned})
    assert moved == pytest.approx(0.1 * min(2.0, rounds[0].norm), rel=1e-4)


def test_a_parameter_that_the_rule_does_not_name_stays() -> None:
    only = {"1.0.bias": constant(1.0)["1.0.bias"]}
    begun = start(LEARNER, 0)
    state, _ = fit(LEARNER, Fixed(only), drawn(0, 1), begun, FitSettings())
    moved = [name for name in state.params if not torch.equal(state.params[name], begun.params[name])]
    assert moved == ["1.0.bias"]


def test_weight_decay_reaches_the_optimizer() -> None:
    begun = start(LEARNER, 0)
    how = FitSettings("SGD", lr=0.1, weight_decay=0.5)
    state, _ = fit(LEARNER, Fixed(constant(0.0)), drawn(0, 1), begun, how)
    for name in LEARNER.learned:
        torch.testing.assert_close(state.params[name], begun.params[name] * 0.95)


def test_momentum_is_that_of_the_formula() -> None:
    how = FitSettings("SGD", lr=0.1, momentum=0.5)
    begun = start(LEARNER, 0)
    state, _ = fit(LEARNER, Fixed(constant(0.1), constant(0.1)), drawn(0, 2), begun, how)
    for name in LEARNER.learned:
        gone = begun.params[name] - state.params[name]
        torch.testing.assert_close(gone, torch.full_like(gone, 0.1 * (0.1 + 0.15)), atol=1e-6, rtol=1e-5)


def test_adam_without_its_first_beta_forgets_the_gradient_before() -> None:
    begun, how = start(LEARNER, 0), FitSettings(lr=0.1, betas=(0.0, 0.5))
    state, _ = fit(LEARNER, Fixed(constant(0.1)), drawn(0, 1), begun, how)
    turned, _ = fit(LEARNER, Fixed(constant(-0.1)), drawn(1, 2), state, how)
    for (
        name
    ) in LEARNER.learned:  # both gradients are as long, so each step is one of the rate, there and back
        torch.testing.assert_close(turned.params[name], begun.params[name], atol=1e-5, rtol=1e-4)


def test_momentum_is_not_begun_in_the_middle() -> None:
    state, _ = fit(LEARNER, Backprop(), drawn(0, 1), start(LEARNER, 0), FitSettings("RMSprop"))
    with pytest.raises(EngineError, match="without momentum"):
        fit(LEARNER, Backprop(), drawn(1, 2), state, FitSettings("RMSprop", momentum=0.9))


def test_the_rate_of_a_round_is_the_one_scheduled() -> None:
    begun = start(LEARNER, 0)
    gradient = {"1.0.bias": torch.full_like(begun.params["1.0.bias"], 1 / 8)}  # of norm 1
    how = replace(SCHEDULE, optimizer="SGD")
    state, _ = fit(LEARNER, Fixed(gradient, gradient), drawn(0, 2), replace(begun, step=3), how)
    moved = begun.params["1.0.bias"] - state.params["1.0.bias"]
    torch.testing.assert_close(moved, gradient["1.0.bias"] * (how.rate(3) + how.rate(4)))


def test_the_rate_rises_over_the_warmup() -> None:
    assert [SCHEDULE.rate(step) for step in range(4)] == [0.125, 0.25, 0.375, 0.5]


def test_a_linear_schedule_falls_evenly_to_zero_and_stays_there() -> None:
    assert [SCHEDULE.rate(step) for step in (4, 9, 14, 99)] == pytest.approx([0.5, 0.25, 0, 0])


def test_a_cosine_schedule_falls_by_half_a_cosine() -> None:
    cosine = replace(SCHEDULE, schedule="cosine")
    expected = [0.5, 0.25 * (1 + math.cos(0.2 * math.pi)), 0.25, 0, 0]
    assert [cosine.rate(step) for step in (4, 6, 9, 14, 99)] == pytest.approx(expected)


def test_a_constant_schedule_stays() -> None:
    assert {FitSettings(lr=0.5).rate(step) for step in (0, 1, 10**6)} == {0.5}


@pytest.mark.parametrize(
    ("wrong", "names"),
    [
        ({"optimizer": "Addam"}, "Addam"),
        ({"optimizer": "Optimizer"}, "Optimizer"),
        ({"optimizer": "lr_scheduler"}, "lr_scheduler"),
        ({"optimizer": "LBFGS"}, "LBFGS"),
        ({"optimizer": "SparseAdam"}, "SparseAdam"),
        ({"optimizer": "Rprop", "weight_decay": 0.1}, "weight_decay = 0"),
        ({"optimizer": "SGD", "betas": (0.0, 0.999)}, "'SGD' takes no betas; leave betas out, or use 'Adam'"),
        ({"momentum": 0.9}, "'Adam' takes no momentum; leave momentum out, or use 'SGD'"),
        ({"momentum": 0.0}, "'Adam' takes no momentum"),
        ({"betas": (0.0, 1.0)}, "below 1"),
        ({"betas": (math.nan, 0.9)}, "below 1"),
        ({"optimizer": "SGD", "momentum": -0.1}, "from 0"),
        ({"clip": 0.5}, "from 1 to 10"),
        ({"clip": 11}, "from 1 to 10"),
        ({"clip": math.nan}, "from 1 to 10"),
        ({"lr": 0}, "lr must be positive"),
        ({"lr": math.inf}, "lr must be positive"),
        ({"weight_decay": -1}, "weight_decay not negative"),
        ({"schedule": "exponential"}, "exponential"),
        ({"schedule": "linear"}, "above warmup"),
        ({"schedule": "cosine", "steps": 5, "warmup": 5}, "above warmup"),
        ({"warmup": -1}, "at least 0"),
    ],
)
def test_a_setting_that_cannot_work_is_refused_by_name(wrong: dict[str, object], names: str) -> None:
    with pytest.raises(EngineError, match=names):
        FitSettings(**wrong)  # type: ignore[arg-type]


def test_a_checkpoint_of_another_optimizer_or_model_is_refused() -> None:
    state, _ = fit(LEARNER, Backprop(), drawn(0, 1), start(LEARNER, 0), FitSettings())
    with pytest.raises(EngineError, match="'SGD'"):
        fit(LEARNER, Backprop(), drawn(1, 2), state, FitSettings("SGD"))
    with pytest.raises(EngineError, match="Adam:body:exp_avg"):
        fit(
            LEARNER,
            Backprop(),
            [],
            replace(state, optimizer={"Adam:body:exp_avg": torch.ones(1)}),
            FitSettings(),
        )


def test_the_same_seed_starts_the_same() -> None:
    assert_equal(start(LEARNER, 5), start(LEARNER, 5))
    assert not torch.equal(start(LEARNER, 5).params["1.0.weight"], start(LEARNER, 6).params["1.0.weight"])


@settings(deadline=None)
@given(
    st.lists(st.lists(st.floats(-1e4, 1e4, width=32) | st.just(math.nan), max_size=5), min_size=1, max_size=5)
)
def test_statistics_merged_from_pieces_equal_those_of_the_whole(pieces: list[list[float]]) -> None:
    columns = [torch.tensor(piece, dtype=torch.float32).view(-1, 1) for piece in pieces]
    whole = measured(torch.cat(columns))
    total = measured(columns[0])
    for column in columns[1:]:
        total = merged(total, measured(column))
    assert torch.equal(total.count, whole.count)
    torch.testing.assert_close(total.mean, whole.mean, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(total.m2, whole.m2, rtol=1e-9, atol=1e-6)


def stored(count: int) -> torch.Tensor:
    rng = np.random.default_rng(0)
    x = rng.normal([50, 0, 0, -3, 2], [9, 1, 1, 0.1, 0], (count, 5)).astype(np.float32)
    x[::4, 3] = np.nan
    return torch.from_numpy(x)


def test_numbers_are_standardised_by_all_rows_counted_and_missing_ones_are_not_counted() -> None:
    x = stored(200)
    state = start(LEARNER, 0)
    for piece in x.split(64):
        state = with_statistics(LEARNER, state, piece)
    numbers = x[:, [0, 3]].numpy().astype(np.float64)
    torch.testing.assert_close(state.params["0.mean"], torch.from_numpy(np.nanmean(numbers, 0)).float())
    torch.testing.assert_close(state.params["0.std"], torch.from_numpy(np.nanstd(numbers, 0)).float())


@pytest.mark.parametrize("value", [0.0, 0.1, -7.3e8])
def test_a_column_that_never_varies_is_divided_by_one(value: float) -> None:
    state = start(LEARNER, 0)
    for count in (3, 1, 7):
        state = with_statistics(LEARNER, state, torch.full((count, FEATURES.width), value))
    assert torch.equal(state.params["0.std"], torch.ones(2))


def test_a_column_that_was_always_missing_is_left_as_it_is() -> None:
    state = with_statistics(LEARNER, start(LEARNER, 0), torch.full((3, FEATURES.width), math.nan))
    assert torch.equal(state.params["0.std"], torch.ones(2))
    assert torch.equal(state.params["0.mean"], torch.zeros(2))


def test_counting_statistics_changes_no_learned_parameter_and_no_earlier_state() -> None:
    begun = start(LEARNER, 0)
    state = with_statistics(LEARNER, begun, stored(9))
    assert all(state.params[name] is begun.params[name] for name in LEARNER.learned)
    assert torch.equal(begun.params["0.mean"], torch.zeros(2))


def test_fit_keeps_the_statistics() -> None:
    counted = with_statistics(LEARNER, start(LEARNER, 0), stored(9))
    state, _ = fit(LEARNER, Backprop(), drawn(0, 2), counted, FitSettings())
    assert torch.equal(state.params["0.mean"], counted.params["0.mean"])
    assert state.statistics is counted.statistics


def test_stacking_pads_to_the_bucket_and_the_size_and_pads_weigh_nothing() -> None:
    ragged = [episode(3, 1, 0), episode(0, 4, 1), episode(9, 0, 2)]
    support, query = stack(ragged, size=4)
    assert support.x.shape == (4, 16, FEATURES.width)
    assert query.x.shape == (4, 8, FEATURES.width)
    for i, one in enumerate(ragged):
        count = len(one.support_y)
        assert np.array_equal(support.x[i, :count].numpy(), one.support_x)
        assert np.array_equal(support.y[i, :count].numpy(), one.support_y)
        assert np.array_equal(support.weight[i, :count].numpy(), one.support_weight)
        assert not support.weight[i, count:].any()
        assert np.array_equal(query.x[i, : len(one.query_y)].numpy(), one.query_x)
    assert query.weight.tolist() == [[1] + [0] * 7, [0.25] * 4 + [0] * 4, [0] * 8, [0] * 8]
    assert not support.weight[3].any()


def test_stacking_nothing_is_refused() -> None:
    with pytest.raises(EngineError, match="at least one episode"):
        stack([])


def test_a_mini_batch_is_a_function_of_seed_and_step_alone() -> None:
    def draw(seed: int, step: int) -> list[int]:
        return sample(range(50), 8, seed=seed, step=step)

    np.random.seed(0)
    first = draw(1, 2)
    np.random.seed(1)
    assert draw(1, 2) == first
    assert draw(1, 3) != first
    assert draw(2, 2) != first


def test_a_mini_batch_repeats_no_episode_and_is_smaller_where_there_are_fewer() -> None:
    assert len(set(sample(range(50), 8, seed=0, step=0))) == 8
    assert sorted(sample(range(3), 8, seed=0, step=0)) == [0, 1, 2]
    assert sample([], 8, seed=0, step=0) == []


# Statistics of labels, and bounds


def counted(learner: GradientLearner, *pieces: np.ndarray, y: np.ndarray | None = None) -> TrainState:
    state = start(learner, 0)
    for piece in pieces:
        labels = None if y is None else torch.from_numpy(y.astype(np.float32))
        state = with_statistics(learner, state, torch.from_numpy(piece.astype(np.float32)), labels)
    return state


ONE = GradientLearner(Problem(Features((Numeric("n"),)), Classification((0, 1, 2), reserve=5)))
VALUES = GradientLearner(Problem(Features((Numeric("n"),)), Regression(-1e6, 1e6)))


def test_the_rate_of_each_class_is_counted_smoothed_and_of_a_class_without_a_name_rare() -> None:
    state = counted(ONE, np.zeros((10, 1)), y=np.array([0.0] * 7 + [1.0] * 3))
    expected = [7.5 / 11.5, 3.5 / 11.5, 0.5 / 11.5, RARE, RARE]
    assert state.params["0.label_rate"].tolist() == pytest.approx(expected)


def test_labels_are_counted_where_no_number_is_among_the_features() -> None:
    plain = GradientLearner(Problem(Features((Category("country", 8),)), Classification((0, 1))))
    state = counted(plain, np.ones((9, 1)), y=np.array([0.0] * 6 + [1.0] * 3))
    assert state.params["0.mean"].shape == (0,)
    assert state.params["0.label_rate"].tolist() == pytest.approx([6.5 / 10, 3.5 / 10])


def test_without_any_label_the_named_classes_are_alike_and_a_regression_is_not_moved() -> None:
    assert counted(ONE, np.zeros((4, 1))).params["0.label_rate"][:3].tolist() == pytest.approx([1 / 3] * 3)
    state = counted(VALUES, np.zeros((4, 1)))
    assert (float(state.params["0.label_mean"]), float(state.params["0.label_std"])) == (0.0, 1.0)


def test_mean_and_deviation_of_a_regressions_labels_are_counted_over_all_pieces() -> None:
    y = np.random.default_rng(0).normal(300.0, 40.0, 600).astype(np.float32)
    state = start(VALUES, 0)
    for piece in np.split(y, 3):
        state = with_statistics(VALUES, state, torch.zeros(200, 1), torch.from_numpy(piece))
    assert float(state.params["0.label_mean"]) == pytest.approx(y.mean(), rel=1e-5)
    assert float(state.params["0.label_std"]) == pytest.approx(y.std(), rel=1e-5)


@pytest.mark.parametrize("pieces", [1, 10])
@pytest.mark.parametrize("place", [0, 1999])
def test_one_absurd_value_among_thousands_moves_what_is_standardised_by_hardly_at_all(
    pieces: int, place: int
) -> None:
    usual = np.random.default_rng(1).normal(0.0, 1.0, (2000, 1))
    odd = usual.copy()
    odd[place] = 1000.0
    fair, moved = (counted(ONE, *np.split(rows, pieces)).params for rows in (usual, odd))
    assert float(moved["0.mean"]) == pytest.approx(float(fair["0.mean"]), abs=0.02)
    assert float(moved["0.std"]) == pytest.approx(float(fair["0.std"]), rel=0.1)


def test_a_first_batch_with_heavy_tails_is_bounded_by_its_quartiles() -> None:
    rows = np.random.default_rng(2).standard_cauchy((40, 1))
    rows[3] = 1e30
    state = counted(ONE, rows)
    low, high = np.quantile(rows, [0.25, 0.75])
    assert float(state.params["0.std"]) < FAR * (high - low)
    later = counted(ONE, rows, *np.split(np.random.default_rng(3).normal(0, 1, (3000, 1)), 3))
    assert 0.9 < float(later.params["0.std"]) < 1.5


def test_quartiles_of_millions_of_rows_are_taken_of_some_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.outer.fit.MEASURED", 1000)
    rows = np.random.default_rng(2).normal(0, 1, (20_000, 1))
    rows[77] = 1e30
    assert 0.9 < float(counted(ONE, rows).params["0.std"]) < 1.1


def test_what_is_usual_is_counted_as_it_is() -> None:
    rows = np.random.default_rng(4).normal(5.0, 2.0, (4000, 1)).astype(np.float32)
    state = counted(ONE, *np.split(rows, 8))
    assert float(state.params["0.mean"]) == pytest.approx(rows.mean(), rel=1e-4)
    assert float(state.params["0.std"]) == pytest.approx(rows.std(), rel=1e-4)


def test_a_column_that_moves_elsewhere_is_followed() -> None:
    rng = np.random.default_rng(5)
    pieces = [rng.normal(0, 1, (200, 1)), *(rng.normal(100, 1, (200, 1)) for _ in range(40))]
    assert float(counted(ONE, *pieces).params["0.mean"]) > 60
