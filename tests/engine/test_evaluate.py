"""Prequential evaluation against arithmetic by hand and slow, exact computation."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, get_type_hints

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.evaluation import metrics
from engine.evaluation.prequential.accumulators import MOST_BUCKETS
from engine.evaluation.prequential.evaluate import (
    DAY_S,
    Prequential,
    Report,
    ReportDict,
    ScoredLabels,
    TaskScores,
    task_summary,
)
from engine.evaluation.prequential.report import Difference
from engine.targets import Classification, Regression
from engine.types import EngineError

BINARY = Classification(("no", "yes"))
NAMES = ("theta", "adapted", "served")


def binary_labels(
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    seen: npt.ArrayLike | None = None,
    time_s: npt.ArrayLike | None = None,
) -> ScoredLabels:
    """Labels [N] with the probabilities [N, k] of class 1."""
    y, p = np.asarray(labels, np.float32), np.asarray(probabilities, np.float64)
    told = np.where(y[:, None] == 1, p, 1 - p)
    n = len(y)
    return ScoredLabels(
        y=y,
        prediction=np.stack([1 - p, p], axis=-1).astype(np.float32),
        loss=-np.log(told),
        seen=np.zeros(n, np.int64) if seen is None else np.asarray(seen, np.int64),
        time_s=np.zeros(n) if time_s is None else np.asarray(time_s, np.float64),
    )


def class_labels(labels: npt.ArrayLike, predictions: npt.ArrayLike) -> ScoredLabels:
    y, prediction = np.asarray(labels, np.float32), np.asarray(predictions, np.float32)
    told = np.take_along_axis(prediction, y.astype(int)[:, None, None], axis=2)[:, :, 0]
    zeros = np.zeros(len(y))
    return ScoredLabels(y, prediction, -np.log(told).astype(np.float64), zeros.astype(np.int64), zeros)


def value_labels(
    labels: npt.ArrayLike, predictions: npt.ArrayLike, time_s: npt.ArrayLike | None = None
) -> ScoredLabels:
    y, prediction = np.asarray(labels, np.float32), np.asarray(predictions, np.float32)
    loss = (prediction.astype(np.float64) - y[:, None]) ** 2
    zeros = np.zeros(len(y))
    times = zeros if time_s is None else np.asarray(time_s, np.float64)
    return ScoredLabels(y, prediction[:, :, None], loss, zeros.astype(np.int64), times)


def evaluated(
    target: Classification | Regression,
    *batches: ScoredLabels,
    names: Sequence[str] = NAMES,
    **options: Any,
) -> Report:
    evaluation = Prequential(target, names, **options)
    for batch in batches:
        evaluation.add(batch)
    return evaluation.report()


def simulated(
    n: int = 4000, days: int = 40, seed: int = 1, noise: tuple[float, float, float] = (1.0, 0.7, 0.5)
) -> ScoredLabels:
    """A stream with base rate near 20%; the smaller its noise the better a predictor."""
    rng = np.random.default_rng(seed)
    logit = rng.normal(-1.8, 1.5, n)
    y = rng.random(n) < 1 / (1 + np.exp(-logit))
    p = 1 / (1 + np.exp(-(logit[:, None] + rng.normal(0, 1, (n, len(noise))) * noise)))
    return binary_labels(y, p, rng.integers(0, 200, n), np.sort(rng.random(n)) * days * DAY_S)


def part(labels: ScoredLabels, rows: slice) -> ScoredLabels:
    return ScoredLabels(
        *(getattr(labels, name)[rows] for name in ("y", "prediction", "loss", "seen", "time_s"))
    )


def exact_auc(y: npt.NDArray[np.bool_] | npt.NDArray[Any], p: npt.NDArray[Any]) -> float:
    """Every pair of a positive and a negative, ties half."""
    gap = np.asarray(p)[np.asarray(y) == 1][:, None] - np.asarray(p)[np.asarray(y) == 0][None]
    return float((gap > 0).mean() + 0.5 * (gap == 0).mean())


def test_log_loss_is_the_mean_loss() -> None:
    report = evaluated(BINARY, binary_labels([1, 0], [[0.5, 0.8, 0.8], [0.5, 0.4, 0.1]]))
    assert report.predictors["theta"]["log_loss"] == pytest.approx(np.log(2))
    assert report.predictors["adapted"]["log_loss"] == pytest.approx(-(np.log(0.8) + np.log(0.6)) / 2)


def test_auc_by_hand() -> None:
    # Pairs (positive, negative) of theta: .8>.3, .8>.5, .5>.3, .5=.5, so 3.5 of 4.
    labels = binary_labels([1, 0, 1, 0], [[0.8] * 3, [0.3] * 3, [0.5] * 3, [0.5] * 3])
    assert evaluated(BINARY, labels).predictors["theta"]["auc"] == 0.875


def test_a_constant_score_has_auc_one_half() -> None:
    assert evaluated(BINARY, binary_labels([1, 0, 0], [[0.02] * 3] * 3)).predictors["served"]["auc"] == 0.5


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(st.booleans(), st.sampled_from([0.0, 1e-6, 0.01, 0.02, 0.3, 0.5, 0.9, 1 - 1e-6, 1.0])),
        min_size=2,
        max_size=60,
    ).filter(lambda rows: len({y for y, _ in rows}) == 2)
)
def test_auc_with_many_ties_equals_the_count_over_pairs(rows: list[tuple[bool, float]]) -> None:
    y, p = np.array([y for y, _ in rows]), np.array([p for _, p in rows])
    bins = metrics.score_bin(p)
    negatives, positives = (np.bincount(bins[y == c], minlength=metrics.FINE) for c in (0, 1))
    assert metrics.area_under_curve(negatives, positives) == pytest.approx(exact_auc(y, p), abs=1e-9)


@pytest.mark.parametrize(("center", "spread"), [(0.0, 2.0), (-4.0, 0.1), (-8.0, 3.0)])
def test_auc_of_a_stream_is_exact_to_1e_4(center: float, spread: float) -> None:
    rng = np.random.default_rng(5)
    y = rng.random(4000) < 0.3
    p = 1 / (1 + np.exp(-(center + spread * (rng.normal(size=4000) + y))))
    report = evaluated(BINARY, binary_labels(y, np.stack([p] * 3, axis=1)))
    assert report.predictors["served"]["auc"] == pytest.approx(exact_auc(y, p), abs=1e-4)


def test_the_bins_of_one_day_give_nearly_the_auc_of_the_whole() -> None:
    labels = simulated()
    evaluation = Prequential(BINARY, NAMES)
    evaluation.add(labels)
    negatives, positives = evaluation._timeline.day_sums().scores.sum(axis=0).transpose(1, 0, 2)
    coarse = metrics.area_under_curve(negatives, positives)
    exact = [exact_auc(labels.y, labels.prediction[:, i, 1]) for i in range(3)]
    np.testing.assert_allclose(coarse, exact, atol=5e-4)


def test_auc_of_a_single_class_is_none() -> None:
    assert (
        evaluated(BINARY, binary_labels([0, 0], [[0.1] * 3, [0.4] * 3])).predictors["served"]["auc"] is None
    )


def test_accuracy_and_kappa_temporal_by_hand() -> None:
    # Labels 1 1 0 0 0: repeating the last one hits 3 of 5; served hits 4 of 5: (.8 - .6) / (1 - .6).
    p = [[0.9] * 3, [0.9] * 3, [0.1] * 3, [0.1] * 3, [0.9] * 3]
    scores = evaluated(BINARY, binary_labels([1, 1, 0, 0, 0], p)).predictors["served"]
    assert scores["accuracy"] == 0.8
    assert scores["kappa_temporal"] == pytest.approx(0.5)


def test_kappa_temporal_has_no_value_where_repeating_is_perfect() -> None:
    assert np.isnan(metrics.kappa_temporal(np.array(1.0), 1.0))


def test_per_class_figures_by_hand() -> None:
    # Truth a a b c; predicted a b b b; c is never predicted, so it has no precision.
    one_hot = np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.8, 0.1], [0.1, 0.8, 0.1]])
    labels = class_labels([0, 0, 1, 2], np.stack([one_hot] * 3, axis=1))
    report = evaluated(Classification(("a", "b", "c")), labels)
    a, b, c = report.predictors["served"]["per_class"]
    assert [a["precision"], a["recall"], a["f1"]] == pytest.approx([1.0, 0.5, 2 / 3])
    assert [b["precision"], b["recall"], b["f1"]] == pytest.approx([1 / 3, 1.0, 0.5])
    assert (c["precision"], c["recall"], c["f1"], c["labels"]) == (None, 0.0, 0.0, 1)
    assert report.class_labels == [2, 1, 1]


def test_several_classes_are_calibrated_by_the_class_predicted() -> None:
    sure = np.tile([0.7, 0.2, 0.1], (10, 3, 1))
    y = [0] * 5 + [1] * 5
    scores = evaluated(Classification(("a", "b", "c")), class_labels(y, sure)).predictors["served"]
    assert scores["calibration_error"] == pytest.approx(0.2, abs=1e-3)
    assert scores["auc"] is None


def test_calibration_by_hand() -> None:
    # 10 labels at .2 of which 4 come true, and 10 at .9 of which all do: (10 * .2 + 10 * .1) / 20.
    p = np.repeat([0.2, 0.9], 10)
    y = [1] * 4 + [0] * 6 + [1] * 10
    scores = evaluated(BINARY, binary_labels(y, np.stack([p] * 3, axis=1))).predictors["served"]
    low, high = scores["reliability"]
    assert (low["labels"], low["observed"], high["observed"]) == (10, 0.4, 1.0)
    assert [low["predicted"], high["predicted"]] == pytest.approx([0.2, 0.9], abs=1e-3)
    assert scores["calibration_error"] == pytest.approx(0.15, abs=1e-3)


def test_reliability_bins_hold_about_equal_counts() -> None:
    bins = evaluated(BINARY, simulated()).predictors["served"]["reliability"]
    assert len(bins) == 20
    assert all(abs(b["labels"] - 200) <= 3 for b in bins)


def test_regression_by_hand() -> None:
    labels = value_labels([1.0, 2.0], [[1.0, 1.0, 2.0], [2.0, 4.0, 5.0]])
    scores = evaluated(Regression(0, 10), labels).predictors
    assert (scores["theta"]["rmse"], scores["theta"]["mae"]) == (0.0, 0.0)
    assert scores["adapted"]["rmse"] == pytest.approx(np.sqrt(2))
    assert [scores["served"]["rmse"], scores["served"]["mae"]] == pytest.approx([np.sqrt(5), 2.0])
    assert scores["served"]["log_loss"] is None


def test_lift_over_time_by_hand() -> None:
    p = [[0.5, 0.5, 0.8], [0.5, 0.5, 0.5], [0.5, 0.5, 0.2]]
    labels = binary_labels([1, 1, 1], p, time_s=[3.5 * DAY_S, 3.9 * DAY_S, 10 * DAY_S])
    first, second = evaluated(BINARY, labels).buckets
    assert (first["start_s"], first["labels"], second["start_s"]) == (3 * DAY_S, 2, 10 * DAY_S)
    assert first["lift"] == pytest.approx((np.log(2) + np.log(0.8)) / 2)
    assert second["lift"] == pytest.approx(np.log(0.2) + np.log(2))
    assert first["loss"]["theta"] == pytest.approx(np.log(2))


def test_learning_curve_bins_are_0_1_2_3_to_4_5_to_8() -> None:
    seen = [0, 1, 2, 3, 4, 5, 8, 9, 16, 2**60]
    bins = evaluated(BINARY, binary_labels([1] * 10, [[0.5] * 3] * 10, seen=seen)).learning
    found = [(b["low"], b["high"], b["labels"]) for b in bins[:-1]]
    assert found == [(0, 0, 1), (1, 1, 1), (2, 2, 1), (3, 4, 2), (5, 8, 2), (9, 16, 2)]
    assert bins[-1]["labels"] == 1
    assert bins[0]["loss"]["served"] == pytest.approx(np.log(2))


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 400), max_size=12))
def test_how_the_stream_is_cut_into_batches_changes_nothing(sizes: list[Any]) -> None:
    labels = simulated(600, days=4)
    cuts = [0, *sorted({min(c, 600) for c in np.cumsum(sizes, dtype=int)} | {600})]
    parts = [part(labels, slice(a, b)) for a, b in pairwise(cuts)]
    whole, cut = evaluated(BINARY, labels).as_dict(), evaluated(BINARY, *parts).as_dict()
    assert whole["predictors"]["served"]["kappa_temporal"] == cut["predictors"]["served"]["kappa_temporal"]
    assert whole["predictors"]["theta"]["auc"] == cut["predictors"]["theta"]["auc"]
    assert whole["predictors"]["theta"]["log_loss"] == pytest.approx(cut["predictors"]["theta"]["log_loss"])
    assert [b["labels"] for b in whole["buckets"]] == [b["labels"] for b in cut["buckets"]]


def test_a_stream_of_many_years_keeps_few_buckets_and_all_labels() -> None:
    n = 3 * MOST_BUCKETS
    times = (np.arange(n) - 7) * DAY_S
    labels = binary_labels(np.arange(n) % 2, [[0.5, 0.5, 0.6]] * n, time_s=times)
    report = evaluated(BINARY, part(labels, slice(0, 500)), part(labels, slice(500, n)))
    assert len(report.buckets) <= MOST_BUCKETS
    assert report.bucket_s == 4 * DAY_S
    assert sum(b["labels"] for b in report.buckets) == n
    assert (report.first_s, report.last_s) == (times[0], times[-1])
    assert report.buckets[0]["start_s"] == -8 * DAY_S


def interval(difference: Difference) -> tuple[float, float, float]:
    """Lower end, value, upper end: of a difference that has them."""
    low, value, high = difference["low"], difference["value"], difference["high"]
    assert low is not None
    assert value is not None
    assert high is not None
    return low, value, high


def slow_interval(
    labels: ScoredLabels, first: int, second: int, metric: str, seed: int = 0
) -> npt.NDArray[np.float64]:
    """The same bootstrap with the labels themselves instead of sums and bins."""
    day = np.floor(labels.time_s / DAY_S).astype(int)
    days = np.unique(day)
    draws = np.random.default_rng(seed).multinomial(len(days), np.full(len(days), 1 / len(days)), size=1000)

    def value(rows: npt.NDArray[Any], k: int) -> float:
        if metric == "auc":
            return float(exact_auc(labels.y[rows], labels.prediction[rows, k, 1]))
        mean = float(labels.loss[rows, k].mean())
        return mean if metric == "log_loss" else math.sqrt(mean)

    differences = []
    for draw in draws:
        rows = np.concatenate(
            [np.flatnonzero(day == d) for d, n in zip(days, draw, strict=True) for _ in range(n)]
        )
        differences.append(value(rows, first) - value(rows, second))
    return np.quantile(differences, [0.025, 0.975])


@pytest.mark.parametrize("metric", ["log_loss", "auc"])
def test_the_bootstrap_equals_resampling_the_labels_themselves(metric: str) -> None:
    labels = simulated(400, days=12)
    report = evaluated(BINARY, labels)
    (found,) = (d for d in report.differences if (d["predictor"], d["metric"]) == ("theta", metric))
    low, _, high = interval(found)
    np.testing.assert_allclose([low, high], slow_interval(labels, 0, 2, metric), atol=5e-4)


def test_the_bootstrap_of_a_regression_is_of_the_rmse() -> None:
    rng = np.random.default_rng(3)
    y = rng.normal(size=300)
    labels = value_labels(
        y, y[:, None] + rng.normal(size=(300, 3)) * [1, 0.8, 0.5], np.arange(300) * DAY_S / 20
    )
    (theta, _) = evaluated(Regression(-9, 9), labels).differences
    low, value, high = interval(theta)
    np.testing.assert_allclose([low, high], slow_interval(labels, 0, 2, "rmse"), rtol=1e-6)
    assert low < value < high


def test_a_better_predictor_is_told_from_a_tie() -> None:
    report = evaluated(BINARY, simulated(noise=(1.5, 0.5, 0.5)))
    found = {(d["predictor"], d["metric"]): interval(d) for d in report.differences}
    assert found["theta", "log_loss"][0] > 0 > found["theta", "auc"][2]
    assert found["adapted", "log_loss"][0] < 0 < found["adapted", "log_loss"][2]


def test_the_interval_is_the_same_on_every_run_and_moves_with_the_seed() -> None:
    evaluation = Prequential(BINARY, NAMES)
    evaluation.add(simulated(500))
    days = evaluation._timeline.day_sums()
    drawn = [metrics.bootstrap_difference(days, 0, 2, "log_loss", seed=seed) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_fewer_than_five_days_give_no_interval() -> None:
    (found, *_) = evaluated(BINARY, simulated(500, days=4)).differences
    assert found["value"] is not None
    assert (found["low"], found["high"]) == (None, None)


def test_days_of_a_single_class_give_no_interval_of_the_auc() -> None:
    labels = binary_labels([0] * 8, [[0.5] * 3] * 8, time_s=np.arange(8) * DAY_S)
    (auc,) = (
        d
        for d in evaluated(BINARY, labels, names=NAMES).differences
        if d["predictor"] == "theta" and d["metric"] == "auc"
    )
    assert (auc["value"], auc["low"], auc["high"]) == (None, None, None)


def test_several_classes_are_compared_by_log_loss_alone() -> None:
    labels = class_labels([0, 1], np.full((2, 3, 3), 1 / 3))
    report = evaluated(Classification(("a", "b", "c")), labels)
    assert [d["metric"] for d in report.differences] == ["log_loss", "log_loss"]


def test_tasks_are_ranked_by_the_sum_of_their_lift() -> None:
    labels = np.array([2, 10, 0, 4])
    tasks = TaskScores(["a", "b", "idle", "d"], labels, np.array([3.0, 20, 0, 1]), np.array([1.0, 10, 0, 2]))
    summary = task_summary(tasks)
    assert [t["task"] for t in summary["most"]] == ["b", "a"]
    assert summary["least"] == [{"task": "d", "labels": 4, "theta": 0.25, "served": 0.5, "lift": -1.0}]
    assert (summary["tasks"], summary["scored"], summary["gaining"], summary["losing"]) == (4, 3, 2, 1)
    assert summary["quantiles"]["50%"] == 1.0


def test_tasks_without_labels_have_no_quantiles() -> None:
    zeros = np.zeros(1)
    assert task_summary(TaskScores(["a"], zeros.astype(np.int64), zeros, zeros))["quantiles"] == {}


@pytest.mark.parametrize("target", [BINARY, Classification(("a", "b", "c")), Regression(0, 1)])
def test_an_empty_stream_has_a_report_without_figures(target: Classification | Regression) -> None:
    n, k, c = 0, 3, target.outputs
    empty = ScoredLabels(
        np.zeros(n, np.float32),
        np.zeros((n, k, c), np.float32),
        np.zeros((n, k)),
        np.zeros(n, np.int64),
        np.zeros(n),
    )
    report = evaluated(target, empty).as_dict()
    assert (report["labels"], report["first_s"], report["buckets"], report["tasks"]) == (0, None, [], None)
    assert report["predictors"]["served"]["loss"] is None


def test_the_report_is_json_without_nan() -> None:
    evaluation = Prequential(BINARY, NAMES)
    evaluation.add(simulated(300))
    ones = np.ones(1)
    report = evaluation.report(TaskScores(["a"], ones.astype(np.int64), ones, ones)).as_dict()
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_the_report_as_a_dict_declares_the_fields_of_the_report() -> None:
    assert get_type_hints(ReportDict) == get_type_hints(Report)


def test_names_must_differ_and_include_theta_and_served() -> None:
    for names in (("theta", "adapted"), ("theta", "served", "served")):
        with pytest.raises(EngineError, match="'theta' and 'served'"):
            Prequential(BINARY, names)


def test_wrong_shapes_and_unscored_labels_are_refused_by_name() -> None:
    labels = simulated(10)
    with pytest.raises(EngineError, match=r"ScoredLabels.prediction must have shape \(10, 2, 2\)"):
        evaluated(BINARY, labels, names=("theta", "served"))
    with pytest.raises(EngineError, match="scored labels only"):
        evaluated(BINARY, replace(labels, loss=np.full((10, 3), np.nan)))
