"""Real streams: figures by hand, the rows in the program's order, and the whole measurement on a small stream."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest

from benchmarks.real_streams.judge import (
    BLOCKS,
    Predicted,
    average_precision,
    clusters,
    difference,
    few_labels,
    figures,
    judged_labels,
    scored,
)
from benchmarks.real_streams.measured import BASELINES, Choices, measured, rules_compared
from benchmarks.real_streams.prepared import prepared
from benchmarks.real_streams.shown import kept, markdown, rules_markdown
from benchmarks.real_streams.sources import Source
from benchmarks.real_streams.speed import events_per_s
from engine.targets import Classification, Regression

BINARY = Classification((0, 1))


def both(*late: float) -> npt.NDArray[Any]:
    p = np.array(late, np.float32)
    return np.stack([1 - p, p], axis=1)


def test_the_figures_of_two_classes_are_those_of_arithmetic() -> None:
    y = np.array([1.0, 0.0, 1.0, 0.0])
    said = scored(both(0.9, 0.6, 0.6, 0.2), y, BINARY)
    found = figures(said, y, BINARY)
    assert found["log_loss"] == pytest.approx(-np.log([0.9, 0.4, 0.6, 0.8]).mean())
    assert found["accuracy"] == 0.75
    assert found["auc"] == pytest.approx(3.5 / 4)  # of four pairs three are in order, and one is even
    assert found["average_precision"] == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)


def test_equal_scores_share_a_threshold() -> None:
    assert average_precision(np.array([1.0, 0.0, 0.0, 1.0]), np.full(4, 0.5)) == 0.5


def test_the_figures_of_a_regression_are_those_of_arithmetic() -> None:
    y, target = np.array([1.0, 2.0]), Regression(0.0, 9.0)
    said = scored(np.array([[1.0], [5.0]], np.float32), y, target)
    assert figures(said, y, target) == {"rmse": pytest.approx(4.5**0.5), "mae": 1.5}


def test_ranking_is_not_judged_where_a_class_is_missing() -> None:
    y = np.zeros(3)
    assert set(figures(scored(both(0.1, 0.2, 0.3), y, BINARY), y, BINARY)) == {"log_loss", "accuracy"}


def test_labels_count_from_a_tenth_of_the_stream_on_if_they_were_scored() -> None:
    scored_by_all = np.ones(30, np.bool_)
    scored_by_all[7] = False
    assert judged_labels(30, scored_by_all).tolist() == [3, 4, 5, 6, *range(8, 30)]


def test_a_stream_of_few_tasks_has_blocks_for_clusters() -> None:
    assert clusters(np.arange(50) % 25).tolist() == (np.arange(50) % 25).tolist()
    blocks = clusters(np.zeros(1000, np.int64))
    assert (np.bincount(blocks) == 1000 // BLOCKS).all()
    assert (np.diff(blocks) >= 0).all()


def test_a_difference_in_pairs_has_the_interval_of_its_clusters() -> None:
    cluster = np.repeat(np.arange(4), 2)
    first, second = np.array([1.0, 1, 3, 3, 5, 5, 7, 7]), np.ones(8)
    found = difference(first, second, cluster)
    error = np.sqrt(4 / 3 * sum((2 * (m - 3)) ** 2 for m in (0, 2, 4, 6))) / 8  # Liang and Zeger by hand
    assert found["value"] == 3.0
    assert found["high"] - 3.0 == pytest.approx(3.182 * error, rel=0.02)  # Student's t, 3 degrees of freedom


def test_losses_are_told_apart_by_the_labels_of_the_task() -> None:
    seen = np.array([0, 1, 2, 3, 4, 5, 9, 10, 500])
    found = few_labels({"served": np.arange(9.0)}, seen)
    assert {name: (row["labels"], row["served"]) for name, row in found.items()} == {
        "0": (1, 0.0), "1": (1, 1.0), "2": (1, 2.0), "3-4": (2, 3.5), "5-9": (2, 5.5), "10+": (2, 7.5),
        "first 10": (7, 3.0),
    }  # fmt: skip


def made_up(rows: int = 600) -> pl.DataFrame:
    """Tasks that differ by their rate; a label comes up to three rows late, one in ten never."""
    rng = np.random.default_rng(5)
    task, a = rng.integers(25, size=rows), rng.normal(size=rows)
    label = (rng.random(rows) < 1 / (1 + np.exp(-(task - 12) / 4 - a))).astype(int)
    at = np.arange(rows) * 60.0
    return pl.DataFrame(
        {
            "who": task,
            "at": at,
            "a": a,
            "kind": [f"k{n}" for n in rng.integers(4, size=rows)],
            "label": [None if n % 10 == 3 else int(y) for n, y in enumerate(label)],
            "known": at + rng.integers(1, 180, rows),
        }
    )


SOURCE = Source(
    "made_up",
    lambda _: made_up(),
    ({"encoder": "numeric", "name": "a"}, {"encoder": "category", "name": "kind"}),
    {"task": ["who"], "time": "at", "label": "label", "label_time": "known"},
    {"classes": [0, 1]},
)


def test_rows_are_prepared_in_the_order_in_which_the_program_sees_them(tmp_path: Path) -> None:
    table = made_up()
    found = prepared(SOURCE, SOURCE.write(tmp_path))
    known = table.with_row_index("row").filter(pl.col("label").is_not_null()).sort("known")
    assert found.row.tolist() == known["row"].to_list()
    assert found.y.tolist() == known["label"].to_list()
    assert len(found.events.order) == len(table) + len(known)
    at, task = table["at"].to_numpy(), table["who"].to_numpy()
    for row, seen in zip(found.row, found.seen, strict=True):
        earlier = known.filter((pl.col("known") < at[row]) & (pl.col("who") == task[row]))
        assert seen == len(earlier)


@pytest.mark.long
def test_a_stream_is_measured_beside_every_baseline_and_the_figures_are_kept(tmp_path: Path) -> None:
    lines: list[str] = []
    found = measured(SOURCE, tmp_path / "scratch", Choices(quick=True), lines.append)
    predictors = {"served", "theta", *BASELINES["all"]}
    assert predictors <= set(found)
    assert all(
        {"log_loss", "auc", "average_precision", "accuracy"} <= set(found[name]) for name in predictors
    )
    assert found["linear_task"]["log_loss"] < found["linear"]["log_loss"] < found["last_label"]["log_loss"]
    assert predictors - {"served"} <= set(found["differences"])
    assert found["labels"]["known"] == 540
    assert not (tmp_path / "scratch").exists()
    assert len(lines) == 3 + len(BASELINES["all"])
    kept(tmp_path / "figures.json", {"made_up": found})
    written = json.loads((tmp_path / "figures.json").read_text())
    assert written["made_up"]["served"] == found["served"]
    assert written["worse_cells"] == len(found["worse_than"])
    assert "| **served** |" in markdown({"made_up": found})


@pytest.mark.long
def test_outer_rules_are_compared(tmp_path: Path) -> None:
    found = rules_compared(SOURCE, tmp_path / "scratch", Choices(rows=200), lambda _: None)
    assert list(found) == ["reptile", "fomaml", "maml", "pooled"]
    assert rules_markdown({"made_up": found}).count("\n| ") == 6


def test_the_quick_command_measures_the_first_rows(tmp_path: Path) -> None:
    found = measured(SOURCE, tmp_path / "scratch", Choices((), rows=100, quick=True), lambda _: None)
    assert found["labels"]["known"] == 90
    assert set(found["differences"]) >= {"theta"}


def test_events_a_second_are_multiples_of_those_of_a_linear_model_of_river_for_each_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "deep_river", None)
    found = measured(SOURCE, tmp_path / "scratch", Choices((), rows=100), lambda _: None)
    assert found["x_river"] == found["events_per_s"] / found["river_events_per_s"] > 0
    assert found["deep_river"].startswith("not measured: ")
    kept(tmp_path / "figures.json", {"made_up": found, "another": found | {"x_river": 1e-9}})
    assert json.loads((tmp_path / "figures.json").read_text())["x_river"] == 1e-9  # the least of all streams
    assert f"| {found['x_river']:.2f} | not measured" in markdown({"made_up": found})


def test_events_a_second_are_of_ours_alone_where_nothing_is_compared(tmp_path: Path) -> None:
    found = measured(SOURCE, tmp_path / "s", Choices((), rows=50, are_timed=False), lambda _: None)
    assert "x_river" not in found
    assert "river" not in markdown({"made_up": found})


def test_a_pipeline_is_made_for_each_task_and_sees_its_events_in_order(tmp_path: Path) -> None:
    stream, said = prepared(SOURCE, SOURCE.write(tmp_path, 60)), list[list[Any]]()

    class Pipeline:
        def __init__(self) -> None:
            self.seen = list[Any]()
            said.append(self.seen)

        def predict_proba_one(self, x: Any) -> None:
            self.seen.append((x["a"], None))

        def learn_one(self, x: Any, y: int) -> None:
            self.seen.append((x["a"], y))

    events_per_s(stream, Pipeline)
    tasks, a = stream.events.task, stream.fields["a"].to_numpy()
    expected: dict[int, list[Any]] = {}
    for event, y in zip(stream.events.order.tolist(), stream.events.y.tolist(), strict=True):
        row = max(event, ~event)
        expected.setdefault(tasks[row], []).append((a[row], None if event >= 0 else int(y)))
    assert said == list(expected.values())


def test_a_predictor_that_says_the_same_differs_by_nothing() -> None:
    y = np.array([0.0, 1.0] * 20)
    said = scored(both(*[0.3, 0.8] * 20), y, BINARY)
    assert isinstance(said, Predicted)
    assert difference(said.loss, said.loss, clusters(np.arange(40)))["value"] == 0
