"""A table in a file is an event log: ordered by event time, dense in offsets, the same after a restart."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.features.columns import Category, Cyclic, Numeric
from engine.features.encoder import Features
from engine.problem import Problem
from engine.targets import Classification
from engine.types import Kind
from streams.errors import InputError
from streams.events.decoding import decode
from streams.events.record import ONLY, Record
from streams.logs.base import ReplayLog
from streams.logs.file.log import FileLog, TableColumns
from streams.logs.memory import Crash, MemoryLog, MemoryOutput

FEATURES = Features((Numeric("amount"), Category("country"), Cyclic("hour", 24)))
PROBLEM = Problem(FEATURES, Classification((0, 1)))
COLUMNS = TableColumns(task=("card",), id="id", time="at", label="fraud", label_time="known")
IMMEDIATE = TableColumns(task=("card",), id="id", time="at", label="fraud")
TABLE = pl.DataFrame(
    [
        ("ann", "a1", 10.0, 1.5, "NL", 3, 1, 30.0),
        ("bob", "b1", 20.0, 2.5, "DE", 4, None, None),
        ("ann", "a2", 20.0, 3.5, "NL", 5, 0, 20.0),
        ("bob", "b2", 5.0, 4.5, "FR", 6, 0, None),
        ("eve", "e1", 40.0, 5.5, "a,b", 7, 1, 35.0),
    ],
    schema=["card", "id", "at", "amount", "country", "hour", "fraud", "known"],
    orient="row",
)
EXPECTED = [
    ("b2", Kind.OBSERVATION),
    ("a1", Kind.OBSERVATION),
    ("b1", Kind.OBSERVATION),
    ("a2", Kind.OBSERVATION),  # at equal times rows keep their order in the file,
    ("a2", Kind.LABEL),  # and labels come after observations
    ("a1", Kind.LABEL),
    ("e1", Kind.OBSERVATION),
    ("e1", Kind.LABEL),  # dated before its observation, and yet it comes after it
]


def written(folder: Path, kind: str, table: pl.DataFrame = TABLE) -> Path:
    path = folder / f"table.{kind}"
    write: dict[str, Callable[[Path], object]] = {
        "csv": table.write_csv,
        "jsonl": table.write_ndjson,
        "parquet": table.write_parquet,
    }
    write[kind](path)
    return path


def lines(folder: Path, content: bytes, kind: str = "jsonl") -> Path:
    path = folder / f"lines.{kind}"
    path.write_bytes(content)
    return path


def everything(log: ReplayLog, at_once: int = 100) -> list[Record]:
    log.seek(0)
    records: list[Record] = []
    for [polled] in iter(lambda: log.poll(at_once), []):
        records += polled.records
    return records


def names(records: list[Record]) -> list[tuple[object, Kind]]:
    return [(record.id, record.kind) for record in records]


@pytest.fixture(params=["csv", "jsonl", "parquet", "memory"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> ReplayLog:
    if request.param == "memory":
        file = FileLog(written(tmp_path, "jsonl"), COLUMNS, FEATURES)
        return MemoryLog(everything(file))
    return FileLog(written(tmp_path, request.param), COLUMNS, FEATURES, tmp_path / "state")


class TestEveryLog:
    def test_events_come_in_the_order_of_their_times(self, log: ReplayLog) -> None:
        assert names(everything(log)) == EXPECTED

    def test_offsets_are_dense_from_zero(self, log: ReplayLog) -> None:
        assert [record.offset for record in everything(log)] == list(range(log.end()))

    def test_a_poll_returns_at_most_what_was_asked_for(self, log: ReplayLog) -> None:
        assert [len(log.poll(3)[0].records) for _ in range(3)] == [3, 3, 2]
        assert log.poll(3) == []

    def test_the_result_does_not_depend_on_how_it_was_polled(self, log: ReplayLog) -> None:
        assert everything(log, at_once=1) == everything(log, at_once=100)

    def test_polling_advances_the_position(self, log: ReplayLog) -> None:
        log.poll(3)
        assert log.position() == 3

    def test_seek_goes_back_and_forth(self, log: ReplayLog) -> None:
        log.poll(5)
        log.seek(2)
        assert [record.offset for record in log.poll(2)[0].records] == [2, 3]
        log.seek(log.end())
        assert log.poll(1) == []

    def test_nothing_is_committed_at_first_and_polling_commits_nothing(self, log: ReplayLog) -> None:
        log.poll(4)
        assert log.committed() == 0

    def test_a_commit_is_read_back(self, log: ReplayLog) -> None:
        log.commit({ONLY: 4})
        assert log.committed() == 4

    def test_every_kind_of_log_gives_identical_decoded_events(self, log: ReplayLog, tmp_path: Path) -> None:
        other = FileLog(written(tmp_path, "parquet"), COLUMNS, FEATURES)
        (tasks, events, _, rejected), expected = (decode(x.poll(100), PROBLEM) for x in (log, other))
        assert not rejected
        assert tasks == expected.tasks == ("bob", "ann", "eve")
        for name in ("row", "kind", "id", "time_s", "x", "has_x", "y", "topic", "offset"):
            np.testing.assert_array_equal(getattr(events, name), getattr(expected.events, name))

    def test_an_origin_tells_records_apart(self, log: ReplayLog) -> None:
        assert len({log.origin(r) for r in everything(log) if r.kind == Kind.OBSERVATION}) == len(TABLE)


# Order


def test_without_a_label_time_a_label_directly_follows_its_own_observation(tmp_path: Path) -> None:
    log = FileLog(written(tmp_path, "csv"), IMMEDIATE, FEATURES)
    assert names(everything(log)) == [
        ("b2", Kind.OBSERVATION),
        ("b2", Kind.LABEL),
        ("a1", Kind.OBSERVATION),
        ("a1", Kind.LABEL),
        ("b1", Kind.OBSERVATION),
        ("a2", Kind.OBSERVATION),
        ("a2", Kind.LABEL),
        ("e1", Kind.OBSERVATION),
        ("e1", Kind.LABEL),
    ]


def test_without_a_label_column_there_are_observations_only(tmp_path: Path) -> None:
    for kind in ("csv", "jsonl", "parquet"):
        log = FileLog(written(tmp_path, kind), TableColumns(task=("card",), time="at"), FEATURES)
        assert [record.id for record in everything(log)] == [4, 1, 2, 3, 5]


ROWS = st.lists(
    st.tuples(st.integers(0, 3), st.none() | st.integers(0, 3), st.none() | st.integers(0, 1)), max_size=12
)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
@given(rows=ROWS)
def test_any_table_is_replayed_by_time_then_kind_then_row(
    kind: str, rows: list[tuple[int, int | None, int | None]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    schema = {"at": pl.Int64, "known": pl.Int64, "fraud": pl.Int64}
    table = pl.DataFrame(rows, schema=schema, orient="row").with_columns(card=pl.lit("c"), amount=1.0)
    path = written(tmp_path_factory.mktemp("any"), kind, table.cast({"at": pl.Float64, "known": pl.Float64}))
    columns = TableColumns(task=("card",), time="at", label="fraud", label_time="known")
    log = FileLog(path, columns, Features((Numeric("amount"),)))
    expected = [(at, 0, n) for n, (at, _, _) in enumerate(rows, 1)]
    expected += [
        (max(known, at), 1, n)
        for n, (at, known, label) in enumerate(rows, 1)
        if known is not None and label is not None
    ]
    assert [(float(r.time), r.kind, r.id) for r in everything(log)] == sorted(expected)


# What rows hold


def test_several_task_columns_are_joined_by_a_bar(tmp_path: Path) -> None:
    columns = TableColumns(task=("card", "country"), time="at")
    log = FileLog(written(tmp_path, "jsonl"), columns, FEATURES)
    assert everything(log)[0].task == "bob|FR"


def test_a_missing_part_of_a_task_makes_it_missing(tmp_path: Path) -> None:
    path = lines(tmp_path, b'{"a": "x", "b": null, "at": 1}\n{"a": "x", "b": 7, "at": 2}\n')
    log = FileLog(path, TableColumns(task=("a", "b"), time="at"), Features(()))
    assert [record.task for record in everything(log)] == [None, "x|7"]


def test_without_an_id_column_the_row_number_is_the_id_in_every_format(tmp_path: Path) -> None:
    columns = TableColumns(task=("card",), time="at")
    ids = [
        [r.id for r in everything(FileLog(written(tmp_path, kind), columns, FEATURES))]
        for kind in ("csv", "jsonl", "parquet")
    ]
    assert ids[0] == ids[1] == ids[2] == [4, 1, 2, 3, 5]


def test_an_empty_csv_cell_is_absent_and_numeric_cells_are_numbers(tmp_path: Path) -> None:
    path = lines(tmp_path, b'card,at,amount,country,hour\nann,1,,NL,2\nbob,2,"1,5","N""L",\n', "csv")
    fields = [r.fields for r in everything(FileLog(path, TableColumns(task=("card",), time="at"), FEATURES))]
    assert fields[0] == {"card": "ann", "at": "1", "country": "NL", "hour": 2.0}
    assert fields[1] == {"card": "bob", "at": "2", "amount": "1,5", "country": 'N"L'}


def test_byte_order_mark_carriage_returns_and_blank_lines_are_no_part_of_the_content(tmp_path: Path) -> None:
    path = lines(tmp_path, b"\xef\xbb\xbfcard,at\r\n\r\nann,1\r\n   \r\nbob,2", "csv")
    records = everything(FileLog(path, TableColumns(task=("card",), time="at"), Features(())))
    assert [(r.task, r.line, r.id, r.raw) for r in records] == [
        ("ann", 3, 1, b"ann,1"),
        ("bob", 5, 2, b"bob,2"),
    ]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_times_may_be_numbers_texts_or_datetimes(kind: str, tmp_path: Path) -> None:
    moment = datetime(2024, 5, 6, 7, 8, 9, 500_000, tzinfo=UTC)
    times = [
        pl.Series([moment]),
        pl.Series([moment.replace(tzinfo=None)]).cast(pl.Datetime("ms")),
        pl.Series([moment.replace(tzinfo=None)]).cast(pl.Datetime("ns")),
        pl.Series([moment.isoformat()]),
        pl.Series(["2024-05-06T09:08:09.5+02:00"]),
        pl.Series([moment.timestamp()]),
    ]
    columns = TableColumns(task=("card",), time="at")
    problem = Problem(Features(()), PROBLEM.target)
    for at in times:
        path = written(tmp_path, kind, pl.DataFrame({"card": ["ann"], "at": at}))
        events = decode(FileLog(path, columns, problem.features).poll(1), problem).events
        assert events.time_s.tolist() == [moment.timestamp()]


def test_dates_decimals_and_times_of_day_become_numbers(tmp_path: Path) -> None:
    table = pl.DataFrame({"card": ["ann"], "day": [datetime(1970, 1, 3, 1).date()]}).with_columns(
        amount=pl.lit("1.25").cast(pl.Decimal(10, 2)), hour=pl.time(1, 0, 30)
    )
    features = Features((Numeric("amount"), Numeric("hour")))
    log = FileLog(written(tmp_path, "parquet", table), TableColumns(task=("card",), time="day"), features)
    (record,) = everything(log)
    assert record.fields is not None
    assert (record.time, record.fields["amount"], record.fields["hour"]) == (172_800.0, 1.25, 3630.0)


# What cannot be read


def test_a_line_that_cannot_be_parsed_takes_the_place_of_its_predecessor(tmp_path: Path) -> None:
    path = lines(tmp_path, b'{"c": 1, "at": 9}\n{"c": 2, "at": 3}\n{nonsense\n{"c": 3, "at": 5}\n')
    records = everything(FileLog(path, TableColumns(task=("c",), time="at"), Features(())))
    assert [record.line for record in records] == [2, 3, 4, 1]
    assert records[1].raw == b"{nonsense"
    assert records[1].fault is not None


def test_rows_without_a_readable_time_keep_their_place_too(tmp_path: Path) -> None:
    table = pl.DataFrame({"card": ["a", "b", "c"], "at": [math.nan, 7.0, math.inf], "fraud": [1, 1, 1]})
    for kind in ("csv", "parquet"):
        columns = TableColumns(task=("card",), time="at", label="fraud")
        records = everything(FileLog(written(tmp_path, kind, table), columns, Features(())))
        assert [(r.task, int(r.kind)) for r in records] == [("a", 0), ("b", 0), ("b", 1), ("c", 0)]


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_label_without_a_readable_time_follows_its_observation(kind: str, tmp_path: Path) -> None:
    table = pl.DataFrame(
        {"card": ["a", "b"], "at": [1.0, 2.0], "fraud": [1, 1], "known": ["soon", "1970-01-02"]}
    )
    columns = TableColumns(task=("card",), time="at", label="fraud", label_time="known")
    records = everything(FileLog(written(tmp_path, kind, table), columns, Features(())))
    assert [(r.task, r.time) for r in records] == [("a", 1.0), ("a", "soon"), ("b", 2.0), ("b", "1970-01-02")]


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@given(junk=st.binary(max_size=200))
def test_any_bytes_in_a_line_never_raise_and_never_take_a_good_line_along(
    kind: str, junk: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    first, last = {
        "csv": (b"card,id,at,amount\nann,first,1,2\n", b"\nann,last,2,3\n"),
        "jsonl": (
            b'{"card":"ann","id":"first","at":1,"amount":2}\n',
            b'\n{"card":"ann","id":"last","at":2,"amount":3}',
        ),
    }[kind]
    if kind == "csv":
        junk = junk.replace(b'"', b"'")  # a quote makes the next line a part of this one
    path = lines(tmp_path_factory.mktemp("junk"), first + junk + last, kind)
    problem = Problem(Features((Numeric("amount"),)), PROBLEM.target)
    polled = FileLog(path, TableColumns(task=("card",), id="id", time="at"), problem.features).poll(1000)
    decoded = decode(polled, problem)
    assert {"first", "last"} <= {record.id for record in decoded.records}
    assert len(decoded.records) + len(decoded.rejected) == len(polled[0].records)


def refusal(path: Path, columns: TableColumns = COLUMNS) -> str:
    with pytest.raises(InputError) as caught:
        FileLog(path, columns, FEATURES)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "nowhere.csv")


def test_an_unknown_suffix_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    assert ".csv, .jsonl, .parquet" in refusal(tmp_path / "table.xlsx")


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("gone", ["card", "id", "at", "fraud", "known", "country"])
def test_a_missing_column_is_named_with_those_there_are(kind: str, gone: str, tmp_path: Path) -> None:
    message = refusal(written(tmp_path, kind, TABLE.drop(gone)))
    assert f"no column '{gone}'" in message
    assert "'amount', " in message


def test_json_lines_may_each_lack_a_column_that_others_have(tmp_path: Path) -> None:
    rows = b'{"card":"a","at":1,"x":1,"y":2,"z":3}\n{"card":"b","at":2,"amount":1}\n'
    log = FileLog(
        lines(tmp_path, rows), TableColumns(task=("card",), time="at"), Features((Numeric("amount"),))
    )
    assert log.end() == 2


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_column_of_optional_numbers_may_be_absent(kind: str, tmp_path: Path) -> None:
    features = Features((Numeric("amount"), Numeric("age", optional=True)))
    assert FileLog(written(tmp_path, kind), COLUMNS, features).end() == len(EXPECTED)


def test_files_that_are_no_table_are_refused(tmp_path: Path) -> None:
    assert "the file is empty" in refusal(lines(tmp_path, b"", "csv"))
    assert "names a column twice" in refusal(lines(tmp_path, b"a,b,a\n", "csv"))
    assert "header cannot be read" in refusal(lines(tmp_path, b"\xff,b\n", "csv"))
    assert "as Parquet" in refusal(lines(tmp_path, b"nonsense", "parquet"))


def test_a_table_without_rows_is_a_log_without_events(tmp_path: Path) -> None:
    for path in (lines(tmp_path, b""), written(tmp_path, "csv", TABLE.clear())):
        log = FileLog(path, COLUMNS, FEATURES)
        assert (log.end(), log.poll(1)) == (0, [])


def test_seeking_beyond_the_end_is_refused(tmp_path: Path) -> None:
    log = FileLog(written(tmp_path, "csv"), COLUMNS, FEATURES)
    with pytest.raises(InputError, match="the log ends at 8"):
        log.seek(9)


# Restarts


def test_a_new_reader_starts_where_the_last_one_committed(tmp_path: Path) -> None:
    path = written(tmp_path, "csv")
    log = FileLog(path, COLUMNS, FEATURES, tmp_path)
    log.poll(6)
    log.commit({ONLY: 5})
    assert [r.offset for r in FileLog(path, COLUMNS, FEATURES, tmp_path).poll(2)[0].records] == [5, 6]


def incarnation(path: Path, columns: TableColumns = COLUMNS) -> int:
    return FileLog(path, columns, FEATURES).poll(1)[0].incarnations[0]


def test_the_incarnation_stays_with_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, "csv")
    first = incarnation(path)
    path.touch()
    assert incarnation(path) == first
    assert 0 < first < 2**63


def test_another_file_is_another_incarnation_and_one_that_grew_is_not(tmp_path: Path) -> None:
    path = written(tmp_path, "csv")
    first = incarnation(path)
    path.write_bytes(path.read_bytes() + b"eve,e2,50.0,1.5,NL,3,1,60.0\n")
    assert incarnation(path) == first
    path.write_bytes(path.read_bytes().replace(b"1.5", b"1.6"))
    assert incarnation(path) != first


def test_other_columns_are_another_incarnation_because_offsets_hang_on_them(tmp_path: Path) -> None:
    path = written(tmp_path, "csv")
    assert incarnation(path, IMMEDIATE) != incarnation(path)


# Injected crashes


def test_a_crash_before_an_effect_leaves_it_undone() -> None:
    def die(effect: str) -> None:
        raise Crash(effect)

    log = MemoryLog([Record(0, Kind.OBSERVATION, "ann", "1", 0.0, fields={})], before=die)
    output = MemoryOutput(before=die)
    for effect in (
        lambda: log.poll(1),
        lambda: log.commit({ONLY: 1}),
        lambda: output.append([b"x"]),
        output.sync,
    ):
        with pytest.raises(Crash):
            effect()
    assert (log.position(), log.committed(), output.lines) == (0, 0, [])
