"""The mirror: what is simple, said of the same labels, whenever they come and however often a run is stopped."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from engine.evaluation.prequential.report import ReportDict
from streams.assembly.embedded import embedded
from streams.pages.kit.phrases import MIRROR, mirror
from streams.pages.run.evaluation import evaluate, scores_of
from streams.pages.run.mirror import mirrored
from streams.pages.run.summary import summarise, verdict
from streams.program.embedded import Embedded, run
from streams.program.progress import Progress
from streams.settings.tree import Settings, validated

ROWS = 900
DAY_S = 86_400.0


def table(seed: int = 0) -> pl.DataFrame:
    """Labels that follow the task and `a`, up to 40 rows late; every tenth row has none."""
    rng = np.random.default_rng(seed)
    task, a = rng.integers(12, size=ROWS), rng.normal(size=ROWS)
    late = rng.random(ROWS) < 1 / (1 + np.exp(-(task - 6) - 3 * a))
    at = np.arange(ROWS) * DAY_S / 60
    return pl.DataFrame(
        {
            "who": [f"t{u}" for u in task],
            "at": at,
            "event": [f"e{n}" for n in range(ROWS)],
            "a": a,
            "label": [None if n % 10 == 9 else int(y) for n, y in enumerate(late)],
            "known": at + rng.uniform(1, 40 * DAY_S / 60, ROWS),
        }
    )


def settings(folder: Path, rows: pl.DataFrame, **changes: Any) -> Settings:
    folder.mkdir(parents=True, exist_ok=True)
    rows.write_parquet(folder / "table.parquet")
    tree = {
        "input": {
            "path": folder / "table.parquet", "task": ["who"], "time": "at", "id": "event",
            "label": "label", "label_time": "known",
        },
        "features": [{"encoder": "numeric", "name": "a"}],
        "target": {"classes": [0, 1]},
        "model": {"hidden": [4]},
        "memory": {"pending": 64, "ttl_s": 1e9},
        "run": {"directory": folder / "state", "batch": 64, "durable": False},
        **changes,
    }  # fmt: skip
    return validated(tree, "test")


def streamed(folder: Path, rows: pl.DataFrame, **changes: Any) -> tuple[Settings, Embedded]:
    chosen = settings(folder, rows, **changes)
    program = embedded(chosen)
    run(program, lambda _: None)
    return chosen, program


def evaluated(program: Embedded) -> ReportDict:
    problem = program.engine.spec.problem
    scores = scores_of(program.outputs["scores"], problem.target)
    return evaluate(problem.target, scores, (mirrored(program.log, problem),))


def test_every_scored_label_has_what_is_simple_beside_it(tmp_path: Path) -> None:
    _, program = streamed(tmp_path, table())
    evaluation = evaluated(program)
    program.close()
    assert evaluation["labels"] == 810
    loss = {name: evaluation["predictors"][name]["log_loss"] or math.inf for name in MIRROR}
    assert loss["linear_task"] < loss["task_rate"] < loss["last_label"]


def test_a_run_stopped_and_started_again_shows_the_same(tmp_path: Path) -> None:
    _, program = streamed(tmp_path / "whole", table())
    whole = mirrored(program.log, program.engine.spec.problem)
    program.close()
    stopped = embedded(settings(tmp_path / "parts", table()))
    for _ in range(5):
        stopped.worker.step(64)
    early = mirrored(stopped.log, stopped.engine.spec.problem)
    stopped.close()
    _, program = streamed(tmp_path / "parts", table())
    again = mirrored(program.log, program.engine.spec.problem)
    program.close()
    assert 0 < len(early.offset) < len(whole.offset)
    for one, other in ((again, whole), (early, again)):
        assert (one.offset == other.offset[: len(one.offset)]).all()
        assert (one.prediction == other.prediction[: len(one.offset)]).all()
        assert (one.loss == other.loss[: len(one.offset)]).all()


def test_reading_the_mirror_leaves_the_log_where_it_was(tmp_path: Path) -> None:
    program = embedded(settings(tmp_path, table()))
    program.worker.step(64)
    mirrored(program.log, program.engine.spec.problem)
    assert program.log.position() == 64
    program.close()


def test_a_label_that_is_not_known_yet_changes_nothing_said_before(tmp_path: Path) -> None:
    rows = table()
    moment = float(rows["at"][ROWS // 2])
    turned = rows.with_columns(
        label=pl.when(pl.col("known") >= moment).then(1 - pl.col("label")).otherwise(pl.col("label"))
    )
    said = []
    for name, version in (("as it was", rows), ("turned", turned)):
        program = embedded(settings(tmp_path / name, version))
        program.log.seek(program.log.end())
        said.append(mirrored(program.log, program.engine.spec.problem))
        program.close()
    before = rows.filter(pl.col("label").is_not_null()).sort("known")["at"].to_numpy() < moment
    late = rows.filter(pl.col("label").is_not_null()).sort("known")["known"].to_numpy() >= moment
    assert (before & late).sum() > 5
    one, other = (extra.prediction[before] for extra in said)
    assert (one == other).all()
    assert (said[0].prediction[~before] != said[1].prediction[~before]).any()


def test_rows_that_come_twice_are_learned_from_once(tmp_path: Path) -> None:
    rows = table()
    _, program = streamed(tmp_path / "once", rows)
    once = evaluated(program)
    program.close()
    _, program = streamed(tmp_path / "twice", pl.concat([rows, rows]))
    twice = evaluated(program)
    program.close()
    assert twice["labels"] == once["labels"]
    for name in MIRROR:
        assert twice["predictors"][name]["log_loss"] == once["predictors"][name]["log_loss"]


def test_refused_rows_are_left_out(tmp_path: Path) -> None:
    rows = table()
    odd = rows.head(40).with_columns(
        who=pl.lit(""), event=pl.concat_str(pl.lit("odd"), "event"), a=pl.lit(float("inf"))
    )
    _, program = streamed(tmp_path / "clean", rows)
    clean = evaluated(program)
    program.close()
    _, program = streamed(tmp_path / "mixed", pl.concat([rows, odd]))
    mixed = evaluated(program)
    program.close()
    assert mixed["labels"] == clean["labels"]
    for name in MIRROR:
        assert mixed["predictors"][name]["log_loss"] == clean["predictors"][name]["log_loss"]


def test_a_regression_has_a_mirror_too(tmp_path: Path) -> None:
    rows = table().with_columns(label=pl.col("label") + pl.col("a").clip(-3, 3))
    _, program = streamed(tmp_path, rows, target={"low": -3.0, "high": 4.0})
    evaluation = evaluated(program)
    program.close()
    assert evaluation["labels"] == 810
    linear, rate = (evaluation["predictors"][name]["rmse"] for name in ("linear_task", "task_rate"))
    assert linear is not None
    assert rate is not None
    assert linear < rate


def test_where_a_linear_model_wins_the_summary_and_the_page_say_so(tmp_path: Path) -> None:
    unmoved = {"lr": 1e-9, "tables_lr": 1e-9, "linear_lr": 1e-9}
    chosen, program = streamed(tmp_path, table(), outer=unmoved)
    said = summarise(chosen, program, Progress()).said
    page = (tmp_path / "state" / "report.html").read_text(encoding="utf-8")
    program.close()
    for text in (said, page.replace("&#39;", "'").replace("&#x27;", "'")):
        assert "An online linear model with the task's id would have reached a log loss of 0." in text
        assert ": worse, so what is simple is enough here." in text
    assert "linear_task" in page


def found(low: float | None, high: float | None, served: float = 0.5) -> Any:
    """A report in which the linear model, at .45, is the best of what is simple."""
    losses = {"served": served, "theta": 0.6, "task_rate": 0.55, "last_label": 0.7, "linear_task": 0.45}
    gaps = [
        {"predictor": name, "against": "served", "metric": "log_loss", "value": 0.0, "low": low, "high": high}
        for name in MIRROR
    ]
    predictors = {name: {"log_loss": loss, "loss": loss} for name, loss in losses.items()}
    return {"target": "binary", "labels": 9, "predictors": predictors, "differences": gaps}


@pytest.mark.parametrize(
    ("low", "high", "served", "said"),
    [
        (-0.06, -0.04, 0.5, "0.4500, served 0.5000: worse, so what is simple is enough here."),
        (
            -0.01,
            0.02,
            0.44,
            "0.4500, served 0.4400: a tie, so it is not shown that more than what is simple pays here.",
        ),
        (0.01, 0.02, 0.43, "0.4500, served 0.4300: better, beyond chance."),
        (None, None, 0.5, "served 0.5000: worse so far, which shows nothing yet, since"),
        (None, None, 0.4, "served 0.4000: better so far, which shows nothing yet, since"),
        (None, None, 0.45001, "served 0.4500: the same so far, which shows nothing yet, since"),
    ],
)
def test_praise_is_only_for_what_is_beyond_the_best_of_what_is_simple(
    low: float | None, high: float | None, served: float, said: str
) -> None:
    assert said in mirror(found(low, high, served))
    assert said in verdict(found(low, high, served))


def test_a_report_without_a_mirror_says_nothing_of_it() -> None:
    report = found(0.1, 0.2)
    for name in MIRROR:
        del report["predictors"][name]
    assert mirror(report) == ""
    assert verdict(report).endswith(".")
