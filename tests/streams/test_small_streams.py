"""Small tables of one user's making: a stream that nobody tuned does not do worse than what is simple."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pytest

from engine.types import SERVED, Float64
from streams.assembly.embedded import embedded
from streams.pages.run.evaluation import evaluate, scores_of
from streams.pages.run.lines import lines_once
from streams.program.embedded import run
from streams.settings.tree import load_settings


class Ran(NamedTuple):
    """What a run came to."""

    figures: Mapping[str, Any]
    """Of each predictor."""
    squared: Float64
    """What each label was lost by as served, by place in the table."""
    alarms: int


SETTINGS = """
[input]
path = "visits.parquet"
task = ["user"]
time = "visited"
label = "bought"

[target]
{target}

[[features]]
encoder = "numeric"
name = "amount"

[outer]
every = 500
"""


def streamed(directory: Path, table: pl.DataFrame, target: str) -> Ran:
    directory.mkdir(exist_ok=True)
    table.write_parquet(directory / "visits.parquet")
    (directory / "shop.toml").write_text(SETTINGS.format(target=target))
    program = embedded(load_settings(directory / "shop.toml", {}))
    try:
        run(program, lambda progress: None)
        spec, outputs = program.engine.spec, program.outputs
        parts = list(scores_of(outputs["scores"], spec.problem.target))
        lost = np.concatenate([part.labels.loss[:, SERVED] for part in parts])
        alarms = sum(map(len, lines_once(outputs["drifts"])))
        return Ran(evaluate(spec.problem.target, iter(parts))["predictors"], lost, alarms)
    finally:
        program.close()


def visits(rows: int, users: int, rng: np.random.Generator) -> dict[str, Any]:
    return {
        "user": [f"u{n}" for n in rng.integers(0, users, rows)],
        "visited": 1_700_000_000 + 600 * np.arange(rows),
        "amount": rng.normal(size=rows).round(4),
    }


def running_means(users: list[str], y: list[float]) -> list[float]:
    """The mean of each user's numbers so far; of everybody's, at a user's first."""
    known, means = dict[str, list[float]](), []
    for n, (user, value) in enumerate(zip(users, y, strict=True)):
        own = known.setdefault(user, [])
        means.append(float(np.mean(own or y[:n] or [60.0])))
        own.append(value)
    return means


def test_of_numbers_that_are_a_users_own_what_is_served_is_no_worse_than_the_users_mean_so_far(
    tmp_path: Path,
) -> None:
    rng = np.random.default_rng(1)
    columns = visits(2000, 20, rng)
    level = dict(zip(sorted(set(columns["user"])), rng.uniform(10, 100, 20), strict=True))
    y = (np.array([level[user] for user in columns["user"]]) + rng.normal(0, 2, 2000)).round(2)
    ran = streamed(tmp_path, pl.DataFrame({**columns, "bought": y}), "low = 0\nhigh = 120")
    simple = (np.array(running_means(columns["user"], y.tolist())) - y) ** 2
    assert len(ran.squared) == len(y)
    assert np.sqrt(ran.squared.mean()) <= 1.07 * np.sqrt(simple.mean())
    known = np.array([columns["user"][:n].count(user) >= 8 for n, user in enumerate(columns["user"])])
    assert np.sqrt(ran.squared[known].mean()) <= 1.03 * np.sqrt(simple[known].mean())
    assert ran.alarms == 0


@pytest.fixture(scope="module")
def table() -> pl.DataFrame:
    rng = np.random.default_rng(2)
    columns = visits(2000, 40, rng)
    rate = {user: rng.choice([0.2, 0.8]) for user in sorted(set(columns["user"]))}
    bought = [["no", "yes"][int(rng.random() < rate[user])] for user in columns["user"]]
    return pl.DataFrame({**columns, "bought": bought})


def test_one_number_that_is_far_from_all_others_does_not_spoil_the_stream(
    tmp_path: Path, table: pl.DataFrame
) -> None:
    classes = f"classes = {json.dumps(['no', 'yes'])}"
    outlier = pl.int_range(pl.len()) == 700
    spoilt = table.with_columns(pl.when(outlier).then(1000.0).otherwise("amount").alias("amount"))
    without, ran = (streamed(tmp_path / name, rows, classes) for name, rows in (("a", table), ("b", spoilt)))
    for name in ("theta", "served"):
        assert ran.figures[name]["log_loss"] <= 1.05 * without.figures[name]["log_loss"]
    assert ran.alarms == 0
