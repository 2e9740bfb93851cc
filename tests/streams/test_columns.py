"""Records that are looked at column by column become the events, and the refusals, that each becomes by itself."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.features.columns import Category, Cyclic, Numeric, Text
from engine.features.encoder import Features
from engine.problem import Problem
from engine.targets import Classification, Regression
from streams.events import sound
from streams.events.decoding import Decoded, decode
from streams.events.reading import Event, Rejected, read
from streams.events.record import Polled, Record
from streams.logs.file import cells
from streams.logs.file.log import FileLog, TableColumns, open_table
from streams.logs.file.records import TableEvents
from tests.streams.test_wire import RECORDS

FEATURES = Features(
    (Numeric("n"), Numeric("o", optional=True), Category("c"), Cyclic("p", 24), Text("t"), Category("n"))
)
PROBLEMS = (
    Problem(FEATURES, Classification(("no", "yes", 1, "2.5"), reserve=5)),
    Problem(FEATURES, Regression(-5.0, 1e9)),
)
WRITTEN_S = 1_600_000_000
INCARNATIONS = (4, 5)
WRITES: dict[str, Callable[[pl.DataFrame, Path], object]] = {
    "parquet": pl.DataFrame.write_parquet,
    "csv": pl.DataFrame.write_csv,
    "jsonl": pl.DataFrame.write_ndjson,
}


def by_themselves(records: Sequence[Record], problem: Problem) -> tuple[list[Any], list[Rejected]]:
    """What each record becomes alone: an event with its bits, or a refusal."""
    events, refused = list[Any](), list[Rejected]()
    for record in records:
        alone = read([record], problem)
        refused += alone.rejected
        for verdict in alone.verdicts:
            if isinstance(verdict, Event):
                y = np.float32(verdict.y).tobytes()
                events.append((repr(record), verdict.task, verdict.id, np.float64(verdict.time_s).tobytes(), y,
                               alone.x[0].tobytes(), bool(alone.has_x[0]), np.float64(record.latest_s)))  # fmt: skip
    refused.sort(key=lambda one: (one.record.partition, one.record.offset))
    return events, refused


def check_alike(polled: Polled, problem: Problem) -> Decoded:
    """Decoded by column, and read one by one, records are the same."""
    together = decode([polled], problem)
    records, events = [*polled.records], together.events
    alone, refused = by_themselves(records, problem)
    assert repr([*together.records]) == repr([r for r in records if repr(r) in {one[0] for one in alone}])
    found = [
        (repr(record), together.tasks[events.row[n]], int(events.id[n]), events.time_s[n].tobytes(),
         events.y[n].tobytes(), events.x[n].tobytes(), bool(events.has_x[n]))
        for n, record in enumerate(together.records)
    ]  # fmt: skip
    assert found == [one[:-1] for one in alone]
    assert repr(together.rejected) == repr(refused)
    assert list(together.tasks) == [*dict.fromkeys(one[1] for one in alone)]
    for n, record in enumerate(together.records):
        place = record.kind, record.topic, record.partition, record.offset
        assert (events.kind[n], events.topic[n], events.partition[n], events.offset[n]) == place
        assert events.incarnation[n] == polled.incarnations[record.topic]
        assert np.broadcast_to(events.not_after_s, len(events))[n] == (
            np.inf if np.isnan(record.latest_s) else record.latest_s
        )
    return together


# Any records


@given(records=st.lists(RECORDS, max_size=8), topics=st.lists(st.integers(0, 1), min_size=8, max_size=8))
def test_any_records_become_what_each_becomes_alone(records: list[Any], topics: Any) -> None:
    numbered = [
        record._replace(offset=7 + n, topic=topic, partition=3, latest_s=1e9)
        for n, (record, topic) in enumerate(zip(records, topics, strict=False))
    ]
    for problem in PROBLEMS:
        check_alike(Polled(3, INCARNATIONS, 7, numbered), problem)


# Any tables

NUMBERS = st.sampled_from([0, 1, 2, 7, 2**53 + 1, 2**62, -3])
REALS = (
    st.sampled_from([0.0, -0.0, 1.0, 2.5, 24.0, float("nan"), float("inf"), 1e300, -1e39, 2.0**53, 2.0**60])
    | st.floats()
)
TEXTS = st.sampled_from(
    ["", "ann", "bob", "a|b", "a\\", "1", "1.0", "01", "2.5", "nan", "true", "yes", "no", "é", "2020-01-01",
     "2020-01-01T10:00:00+01:00", "12.5", "1_0", " 1", "1e400", "9" * 400, "x" * 20_000, "y" * 70_000]
) | st.text(st.characters(exclude_categories=["Cs"]), max_size=4)  # fmt: skip
MOMENTS = st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1))
DTYPES: dict[Any, st.SearchStrategy[Any]] = {
    pl.Int64: NUMBERS,
    pl.Int8: st.integers(-2, 24),
    pl.UInt64: st.sampled_from([0, 1, 2**63, 2**64 - 1]),
    pl.Float64: REALS,
    pl.Float32: REALS.map(lambda value: float(np.float32(value)) if abs(value) < 3e38 else value),
    pl.Boolean: st.booleans(),
    pl.String: TEXTS,
    pl.Categorical: TEXTS,
    pl.Enum(["no", "yes", "1"]): st.sampled_from(["no", "yes", "1"]),
    pl.Decimal(20, 2): st.decimals(-(10**9), 10**9, places=2) | st.integers(0, 9).map(Decimal),
    pl.Decimal(38, 0): st.integers(0, 10**30).map(Decimal),
    pl.Datetime("us"): MOMENTS,
    pl.Datetime("ms", "UTC"): MOMENTS.map(lambda moment: moment.replace(tzinfo=UTC)),
    pl.Date: MOMENTS.map(lambda moment: moment.date()),
    pl.Time: MOMENTS.map(lambda moment: moment.time()),
    pl.Duration("ms"): st.integers(0, 10**9).map(lambda seconds: timedelta(seconds=seconds)),
    pl.Binary: st.binary(max_size=3),
    pl.List(pl.Int64): st.lists(NUMBERS, max_size=2),
    pl.Struct({"a": pl.Int64}): st.fixed_dictionaries({"a": NUMBERS}),
    pl.Null: st.none(),
}
NAMES = ("u", "v", "at", "known", "id", "y", "n", "o", "c", "p", "t")
USUAL = {
    "u": pl.String, "v": pl.Int64, "at": pl.Float64, "known": pl.Float64, "id": pl.String, "y": pl.String,
    "n": pl.Float64, "o": pl.Float64, "c": pl.String, "p": pl.Float64, "t": pl.String,
}  # fmt: skip


@st.composite
def tables(draw: Any) -> pl.DataFrame:
    """A table, some of whose columns are of the usual type."""
    rows, columns = draw(st.integers(1, 6)), {}
    for name in NAMES:
        dtype = draw(st.just(USUAL[name]) | st.sampled_from(list(DTYPES)))
        values = st.none() | DTYPES[dtype] if draw(st.booleans()) else DTYPES[dtype]
        columns[name] = pl.Series(name, draw(st.lists(values, min_size=rows, max_size=rows)), dtype=dtype)
    return pl.DataFrame(columns)


CHOICES = st.builds(
    TableColumns,
    task=st.sampled_from([("u",), ("v",), ("u", "v"), ("v", "id")]),
    time=st.sampled_from(["at", "at", "n", "id"]),
    id=st.sampled_from([None, "id", "at"]),
    label=st.sampled_from([None, "y", "y", "y"]),
    label_time=st.sampled_from([None, "known"]),
)


def check_table(path: Path, columns: TableColumns, at_once: int) -> None:
    os.utime(path, (WRITTEN_S, WRITTEN_S))
    table, log = open_table(path, columns, FEATURES), FileLog(path, columns, FEATURES)
    count = len(table.clock().times)
    one_by_one, together = table.read(range(count)), table.rows(np.arange(count))
    assert together.whole.tolist() == [row.fault is None for row in one_by_one]
    for name in NAMES:
        assert repr([*together.values(name)]) == repr([row.values.get(name) for row in one_by_one])
    while polled := log.poll(at_once):
        for problem in PROBLEMS:
            check_alike(polled[0], problem)
            check_alike(polled[0]._replace(records=polled[0].records[1:]), problem)


@given(table=tables(), columns=CHOICES, at_once=st.integers(1, 12))
def test_a_parquet_table_of_any_types_becomes_what_each_record_becomes_alone(
    table: pl.DataFrame, columns: TableColumns, at_once: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("any") / "any.parquet"
    table.write_parquet(path)
    check_table(path, columns, at_once)


@pytest.mark.parametrize("features", [FEATURES, Features((Text("t"),))])
@pytest.mark.parametrize("kind", WRITES)
def test_of_an_ordinary_table_no_record_is_made(
    kind: str, features: Features, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, path = 50, tmp_path / f"table.{kind}"
    table = pl.DataFrame(
        {
            "u": [f"u{n % 7}" for n in range(rows)], "v": range(rows), "id": [f"e{n}" for n in range(rows)],
            "at": [1e9 + n for n in range(rows)], "known": [1e9 + n + 3.5 for n in range(rows)],
            "y": ["yes", "no"] * (rows // 2), "n": np.linspace(-1, 1, rows), "o": [None, 1.5] * (rows // 2),
            "c": ["red", None] * (rows // 2), "p": range(rows), "t": ["some text"] * rows,
        }
    )  # fmt: skip
    WRITES[kind](table, path)
    columns = TableColumns(task=("u", "v"), time="at", id="id", label="y", label_time="known")
    log = FileLog(path, columns, features)
    monkeypatch.setattr(cells, "FEW", 10)
    for place, name in ((sound, "read"), (TableEvents, "record"), (cells.Cells, "parse")):
        monkeypatch.setattr(place, name, None)
    events = decode(log.poll(2 * rows), replace(PROBLEMS[0], features=features)).events
    assert (len(events), int(events.has_x.sum())) == (2 * rows, rows)


NUMERALS = st.floats().map(repr) | st.text("0123456789.+-eE naifNINF_\t", max_size=6) | st.integers().map(str)
CELLS = (
    TEXTS | NUMERALS | st.sampled_from(["3", "NaN", 'a "quoted" cell', "one, two", "two\nlines", "\ufeff1"])
)
BROKEN = st.sampled_from([b"", b"{", b'"open', b"1,2", b"[]", b'{"u": }', b"\xff\xfe", b"nul\x00"])
FINE = {"u": "ann", "v": "7", "at": "1e9", "known": "2001-10-01", "id": "e1", "y": "2.5"} | {
    "n": "1", "o": "", "c": "red", "p": "23.5", "t": "words",
}  # fmt: skip
ROWS = st.fixed_dictionaries({name: st.just(fine) | CELLS for name, fine in FINE.items()})


@given(
    rows=st.lists(ROWS, min_size=1, max_size=5),
    broken=st.lists(BROKEN, max_size=2),
    columns=CHOICES,
    at_once=st.integers(1, 12),
    few=st.sampled_from([0, 0, 2]),
)
def test_a_csv_table_of_any_cells_becomes_what_each_record_becomes_alone(
    rows: Any,
    broken: Any,
    columns: TableColumns,
    at_once: Any,
    few: Any,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    path = tmp_path_factory.mktemp("any") / "any.csv"
    content = pl.DataFrame(rows, schema=dict.fromkeys(NAMES, pl.String)).write_csv().encode()
    head, _, tail = content.partition(b"\n")
    path.write_bytes(b"\n".join([head, *(line.replace(b'"', b"'") for line in broken), tail]))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(cells, "FEW", few)
        check_table(path, columns, at_once)


JSON = st.none() | st.booleans() | NUMBERS | REALS | CELLS | st.lists(NUMBERS, max_size=1) | st.just({"a": 1})


@given(
    rows=st.lists(st.fixed_dictionaries({}, optional=dict.fromkeys(NAMES, JSON)), max_size=5),
    broken=st.lists(BROKEN, max_size=2),
    columns=CHOICES,
    at_once=st.integers(1, 12),
)
def test_a_table_of_any_json_lines_becomes_what_each_record_becomes_alone(
    rows: Any, broken: Any, columns: TableColumns, at_once: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("any") / "any.jsonl"
    lines = [orjson.dumps(row) for row in [dict.fromkeys(NAMES, "1"), *rows]]
    path.write_bytes(b"\n".join([*lines, *broken, lines[-1]]))
    check_table(path, columns, at_once)
