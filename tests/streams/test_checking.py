"""What `reptide check` says of a table: every figure counted by hand, every warning with its way out."""

from __future__ import annotations

import re
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from engine.features.columns import Category, Column, Cyclic, Numeric, Text
from engine.features.encoder import Features
from engine.problem import Problem
from engine.stream.spec import Memory, StreamSpec
from engine.targets import Classification, Regression
from streams.assembly import embedded, parts
from streams.checking import Findings, findings, show
from streams.checking.labels import labels_of, lost
from streams.checking.leaks import alone
from streams.checking.sample import read_sample
from streams.events.times import epoch_seconds
from streams.logs.file.log import FileLog, TableColumns
from streams.pages.run.evaluation import outcomes_met
from streams.program.embedded import run
from streams.settings.tree import validated

YES_NO = Classification(("no", "yes"))
COLUMNS = TableColumns(task=("user",), time="time", label="label", label_time="known")
HOUR_S = 3600.0
BEGIN_S = epoch_seconds("2024-01-01")


def table(rows: int = 400, tasks: int = 5, **columns: Any) -> pl.DataFrame:
    """Visits an hour apart whose labels come a minute later, told by nothing but chance."""
    rng = np.random.default_rng(1)
    time = BEGIN_S + np.arange(rows) * HOUR_S
    content: dict[str, Any] = {
        "user": [f"u{n % tasks}" for n in range(rows)],
        "time": time,
        "known": time + 60,
        "label": rng.choice(["no", "yes"], rows),
        "amount": rng.normal(size=rows),
    }
    return pl.DataFrame(content | columns)


def check(
    folder: Path,
    frame: pl.DataFrame,
    *features: Column,
    target: Classification | Regression = YES_NO,
    memory: Memory | None = None,
    columns: TableColumns = COLUMNS,
    every: int = 100,
    most_rows: int = 10**6,
) -> Findings:
    path = folder / "visits.parquet"
    frame.write_parquet(path)
    spec = StreamSpec(Problem(Features(features or (Numeric("amount"),)), target), memory or Memory())
    log = FileLog(path, columns, spec.problem.features)
    has_labels = columns.label is not None
    return findings(log, spec, every, has_labels=has_labels, remarks=log.remarks(), most_rows=most_rows)


def printed(seen: Findings) -> str:
    console = Console(width=80, record=True, file=StringIO(), soft_wrap=True, markup=False)
    show(seen, console)
    return console.export_text()


def warning(seen: Findings, about: str) -> str:
    (sentence,) = [one for one in seen.warnings if about in one]
    return sentence


def test_a_sound_table_gives_no_warning(tmp_path: Path) -> None:
    assert check(tmp_path, table()).warnings == ()


def test_rows_tasks_labels_and_delays_are_those_of_the_table(tmp_path: Path) -> None:
    frame = table(tasks=4, known=BEGIN_S + np.arange(400) * HOUR_S + np.where(np.arange(400) < 399, 60, 7200))
    seen = check(tmp_path, frame)
    assert (seen.sample.rows, seen.sample.tasks) == (400, 4)
    assert seen.labels.a_task.tolist() == [100] * 4
    assert [np.median(seen.labels.delay_s), seen.labels.delay_s.max()] == [60, 7200]
    text = printed(seen)
    assert re.search(r"rows +400, of 4 tasks", text)
    assert "100 (median), 100 to 100" in text
    assert "60 s (median), 2 h 0 min (longest)" in text


def test_the_first_observation_of_each_task_is_the_one_that_its_model_cannot_help(tmp_path: Path) -> None:
    assert check(tmp_path, table(rows=400, tasks=4)).labels.helped == pytest.approx(396 / 400)


def test_tasks_with_hardly_a_label_are_told_to_be_coarser(tmp_path: Path) -> None:
    seen = check(tmp_path, table(rows=400, tasks=380))
    assert "only 5.0% of observations" in warning(seen, "coarser column in input.task")


def test_class_rates_are_shown_and_a_class_that_never_comes_is_named(tmp_path: Path) -> None:
    labels = ["yes"] * 100 + ["no"] * 300
    seen = check(tmp_path, table(label=labels), target=Classification(("no", "yes", "mayby")))
    assert "400: no 75.0%, yes 25.0%" in printed(seen)
    assert "no label is 'mayby'" in warning(seen, "target.classes")


def test_the_range_of_numbers_includes_those_that_are_refused(tmp_path: Path) -> None:
    labels = np.linspace(0, 10, 400).round(3)
    labels[:3] = 20, -5, 20
    seen = check(tmp_path, table(label=labels), target=Regression(0, 10))
    assert "set target.low to -5 or less, and target.high to 20 or more" in warning(seen, "out_of_range")
    assert "from -5 to 20; 3 outside of 0 to 10" in " ".join(printed(seen).split())


def test_a_copy_of_the_label_is_a_leak(tmp_path: Path) -> None:
    frame = table()
    codes = {"no": "cancelled", "yes": "paid"}
    frame = frame.with_columns(
        status=pl.col("label").replace_strict(codes), total=(pl.col("label") == "yes") * 5.0
    )
    seen = check(tmp_path, frame, Numeric("amount"), Category("status"), Numeric("total"))
    assert "'status'" in warning(seen, "field 'status' tells the label almost perfectly")
    assert "leave it out" in warning(seen, "field 'total' tells the label almost perfectly")
    assert not any("'amount'" in one for one in seen.warnings)


def test_a_copy_of_a_rare_class_of_many_classes_and_of_a_number_is_a_leak() -> None:
    rng = np.random.default_rng(0)
    rare = (rng.random(4000) < 0.005).astype(float)
    many = rng.integers(0, 5, 4000).astype(float)
    number = rng.lognormal(size=4000)
    noise = rng.normal(size=4000)
    five = Classification(tuple("abcde"))
    for y, target in ((rare, YES_NO), (many, five), (number, Regression(0, 100))):
        copied, unrelated = (alone(values, y, target, is_number=True) for values in (y * -3, noise))
        assert copied is not None and copied.leaks
        assert unrelated is not None and abs(unrelated.value) < 0.7


def test_a_feature_is_judged_on_later_labels_than_it_learned_from() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 400).astype(float)
    of_the_past = np.where(np.arange(400) < 200, y, rng.integers(0, 2, 400))
    found = alone(of_the_past.astype(float), y, YES_NO, is_number=False)
    assert found is not None and not found.leaks
    an_id = alone(np.arange(400.0), y, YES_NO, is_number=False)
    assert an_id is not None and not an_id.leaks


def test_a_category_of_nearly_one_value_an_event_is_an_id(tmp_path: Path) -> None:
    seen = check(tmp_path, table(visit=[f"v{n}" for n in range(400)]), Category("visit", buckets=4096))
    assert "'visit' looks like an id: 400 different values" in warning(seen, "an id")


def test_a_number_that_rises_with_time_is_a_counter(tmp_path: Path) -> None:
    seen = check(tmp_path, table(count=np.arange(400.0)), Numeric("count"), Numeric("amount"))
    assert "'count'" in warning(seen, "rises with time")


@pytest.mark.parametrize("zeros", [0, 250])
def test_a_number_that_half_precision_leaves_too_little_of_is_named(tmp_path: Path, zeros: int) -> None:
    rng = np.random.default_rng(0)
    years = rng.permutation(np.repeat([0.0, 2013.0, 2014.0, 2015.0], [zeros, 50, 400 - zeros - 100, 50]))
    frame = table(year=years, amount=rng.lognormal(3, 1, 400), age=rng.integers(18, 90, 400))
    columns = Numeric("year"), Numeric("amount"), Numeric("age"), Cyclic("year", 10)
    (said,) = check(tmp_path, frame, *columns, memory=Memory(precision="half")).warnings
    assert said.startswith(
        "field 'year' lies between 2013 and 2015, and half precision keeps 1 of its 3 values apart"
    )
    assert "name it in memory.exact" in said
    assert not check(tmp_path, frame, *columns, memory=Memory(precision="half", exact=("year",))).warnings
    assert not check(tmp_path, frame, *columns).warnings


def test_a_feature_that_never_changes_is_named(tmp_path: Path) -> None:
    frame = table(one=["x"] * 400, none=pl.Series([None] * 400, dtype=pl.Float64))
    seen = check(tmp_path, frame, Category("one"), Numeric("none", optional=True))
    assert "'one'" in warning(seen, "never changes")
    assert "'none'" in warning(seen, "is empty in every row")
    assert "100.0%" in printed(seen)


def test_values_that_share_a_bucket_are_those_counted_by_hand(tmp_path: Path) -> None:
    values = [f"shop {n}" for n in range(30)]
    column = Category("shop", buckets=16)
    stored = column.encode(values).x[:, 0].tolist()
    expected = sum(stored.count(bucket) > 1 for bucket in stored)
    seen = check(tmp_path, table(shop=[values[n % 30] for n in range(400)]), column)
    (facts,) = seen.features
    assert (facts.distinct, facts.buckets, facts.sharing) == (30, 16, expected)
    assert f"30 values in 16 buckets, and {expected} of them" in warning(seen, "buckets = 512")


def test_labels_later_than_their_time_to_live_are_warned_of_with_the_time_to_set(tmp_path: Path) -> None:
    late = BEGIN_S + np.arange(400) * HOUR_S + np.where(np.arange(400) % 4 == 0, 250_000, 60)
    frame = table(known=late)
    seen = check(tmp_path, frame, memory=Memory(pending=100))
    assert "100 of 400 labels (25.0%)" in warning(seen, "set memory.ttl_s to 250000")
    mended = check(tmp_path, frame, memory=Memory(pending=100, ttl_s=250_000))
    assert mended.warnings == ()


def test_a_longer_time_to_live_comes_with_the_room_that_it_takes(tmp_path: Path) -> None:
    frame = table(known=BEGIN_S + np.arange(400) * HOUR_S + 250_000)
    sentence = warning(check(tmp_path, frame, memory=Memory(pending=4)), "memory.ttl_s")
    assert sentence.endswith("set memory.ttl_s to 250000 and memory.pending to 16")
    assert check(tmp_path, frame, memory=Memory(pending=16, ttl_s=250_000)).warnings == ()


def test_labels_that_are_lost_are_those_that_the_engine_gives_up(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    frame = table(rows=600, known=BEGIN_S + np.arange(600) * HOUR_S + rng.exponential(40_000, 600))
    path = tmp_path / "visits.parquet"
    frame.write_parquet(path)
    settings = validated(
        {
            "input": {
                "path": path,
                "task": ["user"],
                "time": "time",
                "label": "label",
                "label_time": "known",
            },
            "target": {"classes": ["no", "yes"]},
            "features": [{"encoder": "numeric", "name": "amount"}],
            "memory": {"pending": 3, "ttl_s": 100_000.0},
            "run": {"directory": tmp_path / "state", "durable": False},
        },
        "test",
    )
    program = embedded.embedded(settings)
    run(program, lambda _: None)
    met = outcomes_met(program.outputs["predictions"], program.outputs["scores"])
    program.close()
    spec = parts.stream_spec(settings)
    sample = read_sample(embedded.input_log(settings, spec.problem, None), spec.problem)
    missed = lost(sample, labels_of(sample), spec.memory)
    assert missed.late > 0
    assert missed.pushed_out > 0
    assert missed.late + missed.pushed_out == met["late"].events


def test_the_range_of_times_is_shown_as_it_was_read(tmp_path: Path) -> None:
    assert "2024-01-01 00:00 to 2024-01-17 15:01 UTC" in printed(check(tmp_path, table()))


def test_dates_that_were_read_as_seconds_are_warned_of_by_the_range_of_1970(tmp_path: Path) -> None:
    days = 20_240_101 + np.arange(28)
    frame = table(28, time=days, known=days + 1)
    sentence = warning(check(tmp_path, frame, columns=replace(COLUMNS, time="time")), "input.time")
    assert "every time was read as one of 1970, 1970-08-23 06:15 to 1970-08-23 06:15" in sentence
    assert "2024-01-15" in sentence


def test_a_few_times_of_zero_are_counted(tmp_path: Path) -> None:
    time = BEGIN_S + np.arange(400) * HOUR_S
    time[[3, 7]] = 0
    sentence = warning(check(tmp_path, table(time=time)), "in 1970")
    assert sentence.startswith("2 of 400 rows")


def test_null_dates_of_the_year_1_are_counted(tmp_path: Path) -> None:
    time = BEGIN_S + np.arange(400) * HOUR_S
    time[[3, 7]] = epoch_seconds("0001-01-01")
    sentence = warning(check(tmp_path, table(time=time)), "in the year 1")
    assert sentence.startswith("2 of 400 rows")
    assert "leave input.time empty" in sentence


def test_a_table_of_the_future_is_warned_of(tmp_path: Path) -> None:
    time = epoch_seconds("2096-01-01") + np.arange(400) * HOUR_S
    sentence = warning(check(tmp_path, table(time=time, known=time + 60)), "long after the table was written")
    assert "times run to 2096-01-17" in sentence


def test_what_the_log_remarks_of_its_labels_is_a_warning(tmp_path: Path) -> None:
    known = BEGIN_S + np.arange(400) * HOUR_S - 60
    frame = table(known=pl.Series(known).scatter([1, 2], None))
    seen = check(tmp_path, frame)
    assert warning(seen, "dated before").startswith("398 of 400 labels")
    assert warning(seen, "no time in the column").startswith("2 of 400 labels")
    assert len(seen.labels.event) == 398


def test_refused_events_are_warned_of_with_their_place_and_the_way_out(tmp_path: Path) -> None:
    labels = ["Yes"] * 30 + ["no", "yes"] * 185
    sentence = warning(check(tmp_path, table(label=labels)), "will be refused")
    assert sentence.startswith("30 events will be refused (unknown_class), the first in ")
    assert "visits.parquet, row 1" in sentence
    assert "name every class in target.classes" in sentence


def test_a_log_without_a_single_round_is_told_so_and_a_longer_one_is_not(tmp_path: Path) -> None:
    assert "base rates are all" in warning(
        check(tmp_path, table(6), every=4096), "before the first shared model"
    )
    assert not [one for one in check(tmp_path, table(), every=4096).warnings if "shared model" in one]


def test_a_table_without_a_label_column_is_looked_at_too(tmp_path: Path) -> None:
    columns = replace(COLUMNS, label=None, label_time=None)
    seen = check(tmp_path, table().drop("label", "known"), columns=columns)
    assert "input.label" in warning(seen, "no label column")
    assert re.search(r"rows +400, of 5 tasks", printed(seen))


@pytest.mark.parametrize("rows", [0, 1])
def test_a_table_of_a_row_or_none_is_looked_at_too(tmp_path: Path, rows: int) -> None:
    features = (Numeric("amount"), Category("c"), Cyclic("hour", 24.0), Text("note"))
    frame = table(1, c=["x"], hour=[3.0], note=["hi"]).head(rows)
    seen = check(tmp_path, frame, *features)
    assert seen.sample.rows == rows
    assert "feature" in printed(seen)


def test_a_table_of_nulls_is_looked_at_too(tmp_path: Path) -> None:
    nothing = pl.Series([None] * 400, dtype=pl.Float64)
    frame = table(amount=nothing, label=pl.Series([None] * 400, dtype=pl.String))
    seen = check(tmp_path, frame, Numeric("amount"))
    assert "optional = true" in warning(seen, "bad_feature")
    assert "refused" in printed(seen)


def test_a_longer_table_is_looked_at_in_its_first_rows_and_that_is_said(tmp_path: Path) -> None:
    seen = check(tmp_path, table(), most_rows=100)
    assert seen.sample.rows == 100
    assert "of 800 events in time" in printed(seen)


def test_what_is_printed_begins_with_the_warnings_a_line_each_and_its_tables_fit_80_columns(
    tmp_path: Path,
) -> None:
    frame = table(a_feature_with_quite_a_long_name_that_somebody_chose=np.arange(400.0))
    seen = check(tmp_path, frame, Numeric("a_feature_with_quite_a_long_name_that_somebody_chose"))
    lines = printed(seen).splitlines()
    warned = len(seen.warnings)
    assert lines[:warned] == [f"warning {sentence}" for sentence in seen.warnings]
    assert max(map(len, lines[warned:])) <= 80
