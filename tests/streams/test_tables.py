"""Tables as people write them: quoted line breaks, parts in a folder, odd names, and times that cannot be true."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.features.columns import Category, Numeric, Text
from engine.features.encoder import Features
from engine.problem import Problem
from engine.targets import Classification
from engine.types import Kind
from streams.errors import InputError
from streams.events.decoding import Decoded, decode
from streams.events.reading import MAX_RECORD_BYTES
from streams.events.record import Record
from streams.events.times import epoch_seconds
from streams.logs.file.log import FileLog, TableColumns
from streams.logs.file.text_records import TextRecords

FEATURES = Features((Text("note"),))
COLUMNS = TableColumns(task=("user",), time="at", label="bought")
DATED = TableColumns(task=("user",), time="at", label="bought", label_time="known")
WRITTEN = "2024-06-01"
FORMATS = ("csv", "jsonl", "parquet")


def written(folder: Path, content: bytes | pl.DataFrame, kind: str = "csv", name: str = "table") -> Path:
    """A table that was last written on the day `WRITTEN`."""
    path = folder / f"{name}.{kind}"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        writes: dict[str, Callable[[Path], object]] = {
            "csv": content.write_csv,
            "jsonl": content.write_ndjson,
            "parquet": content.write_parquet,
        }
        writes[kind](path)
    os.utime(path, (epoch_seconds(WRITTEN),) * 2)
    return path


def opened(
    path: Path, columns: TableColumns = COLUMNS, features: Features = FEATURES
) -> tuple[FileLog, Decoded]:
    log = FileLog(path, columns, features)
    return log, decode(log.poll(10_000), Problem(features, Classification(("no", "yes"))))


def refusal(path: Path, columns: TableColumns = COLUMNS, features: Features = FEATURES) -> str:
    with pytest.raises(InputError) as caught:
        FileLog(path, columns, features)
    assert str(path) in str(caught.value)
    return str(caught.value)


def notes(decoded: Decoded) -> list[object]:
    return [record.fields["note"] for record in decoded.records if record.fields is not None]


# Records of CSV


def test_a_line_break_in_a_quoted_cell_is_a_part_of_it(tmp_path: Path) -> None:
    content = (
        b'user,at,note,bought\nann,1,"I liked it.\nmallory,2,injected,yes\n\nBye",no\r\nbob,3,fine,yes\n'
    )
    log, decoded = opened(written(tmp_path, content))
    assert decoded.tasks == ("ann", "bob")
    assert notes(decoded) == ["I liked it.\nmallory,2,injected,yes\n\nBye", "fine"]
    assert [(r.line, r.id) for r in decoded.records] == [(2, 1), (2, 1), (6, 2), (6, 2)]
    assert decoded.records[0].raw == content.split(b"\n", 1)[1].split(b"\r")[0]
    assert log.origin(decoded.records[2]).endswith("line 6")


CELLS = st.text(alphabet='a,"\n\r é', max_size=6).filter(lambda cell: "\r" not in cell.replace("\r\n", ""))


@given(
    rows=st.lists(st.lists(CELLS, min_size=2, max_size=2), max_size=5), end=st.sampled_from(["\n", "\r\n"])
)
def test_what_a_csv_writer_writes_is_read_as_it_was(
    rows: list[Any], end: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rows = [["key", *cells] for cells in rows]
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator=end).writerows(rows)
    path = tmp_path_factory.mktemp("any") / "any.csv"
    path.write_bytes(text.getvalue().encode())
    records = TextRecords(path, quoted=True)
    read = [records.text(n) for n in range(len(records))]
    assert [next(csv.reader([one.decode()], strict=True)) for one in read] == rows


@pytest.mark.parametrize(
    "row", [b'ann,2,"never closed,no\n', b'ann,2,"over\nlines" and text,no\n', b'ann,2,"5"" wide,no\n']
)
def test_a_quote_that_leaves_the_next_row_unknown_refuses_the_file_by_its_line(
    row: bytes, tmp_path: Path
) -> None:
    content = b"user,at,note,bought\nann,1,fine,no\n" + row + b'bob,3,"ok",yes\nbob,4,ok,yes\n'
    said = refusal(written(tmp_path, content))
    assert "line 3: a quoted cell is not closed" in said
    assert "write quotes within quotes twice" in said


def test_a_fault_of_quotes_within_a_line_is_a_fault_of_that_line_alone(tmp_path: Path) -> None:
    content = b'user,at,note,bought\nann,1,5" pipe,no\nann,2,"abc"def,no\nbob,3,"ok",yes\n'
    _, decoded = opened(written(tmp_path, content))
    assert notes(decoded) == ['5" pipe', "ok"]
    assert [(one.record.line, one.reason) for one in decoded.rejected] == [(3, "malformed")]


@pytest.mark.parametrize(("length", "reasons"), [(200_000, []), (MAX_RECORD_BYTES, ["too_large"])])
def test_a_quoted_cell_may_be_as_long_as_a_record(length: int, reasons: Any, tmp_path: Path) -> None:
    content = b'user,at,note,bought\nann,1,"a\n' + b"x" * length + b'",no\nbob,2,ok,yes\n'
    _, decoded = opened(written(tmp_path, content))
    assert [one.reason for one in decoded.rejected] == reasons
    assert decoded.tasks[-1] == "bob"


@pytest.mark.parametrize(
    ("kind", "long"),
    [
        ("csv", b"ann,yes,1," + b"x" * MAX_RECORD_BYTES),
        ("jsonl", b'{"user": "ann"}' + b" " * MAX_RECORD_BYTES),
    ],
)
def test_a_record_that_is_too_long_is_one_event_whatever_it_begins_with(
    kind: str, long: bytes, tmp_path: Path
) -> None:
    first = {
        "csv": b"user,bought,at,note\nbob,no,1,ok\n",
        "jsonl": b'{"user": "bob", "bought": "no", "at": 1, "note": "ok"}\n',
    }
    log, decoded = opened(written(tmp_path, first[kind] + long + b"\n", kind))
    assert [(one.reason, one.record.line) for one in decoded.rejected] == [("too_large", 2 + (kind == "csv"))]
    assert (len(decoded.events), log.end()) == (2, 3)


@pytest.mark.parametrize(
    ("content", "way_out"),
    [
        (b"user;at;note;bought\nann;1;x;no\n", "separate cells by commas, not semicolons"),
        (b"user\tat\tnote\tbought\n", "separate cells by commas, not tabs"),
        ("user,at,note,bought\n".encode("utf-16"), "as CSV in UTF-8"),
        (b"\x1f\x8b\x08\x00\x00\xff", "as CSV in UTF-8, not packed"),
        (b"user,at,note,bought\rann,1,x,no\r", "without a line feed: end every line in LF, or in CR and LF"),
    ],
)
def test_a_file_of_another_form_is_refused_with_the_form_that_is_read(
    content: bytes, way_out: str, tmp_path: Path
) -> None:
    assert way_out in refusal(written(tmp_path, content))


def test_a_packed_file_is_to_be_unpacked(tmp_path: Path) -> None:
    assert "unpacked" in refusal(written(tmp_path, b"\x1f\x8b", "csv.gz"))


def test_a_table_of_a_header_alone_says_so(tmp_path: Path) -> None:
    log, _ = opened(written(tmp_path, b"user,at,note,bought\n"))
    assert log.remarks() == ["the table has no rows"]


# Cells


@pytest.mark.parametrize("cell", ["1_000", " 1", "1 ", "\u0661", "inf", "infinity", "0x1", "1,5", "N/A"])
def test_a_cell_that_only_python_takes_for_a_number_is_refused_as_it_is_written(
    cell: str, tmp_path: Path
) -> None:
    features = Features((Numeric("amount"),))
    content = f'user,at,amount,bought\nann,1,"{cell}",no\n'.encode()
    (rejected,) = opened(written(tmp_path, content), features=features)[1].rejected
    assert (rejected.reason, rejected.detail) == (
        "bad_feature",
        f"field 'amount': expected a number, got {cell!r}",
    )


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_nan_is_a_missing_optional_number(kind: str, tmp_path: Path) -> None:
    table = pl.DataFrame(
        {"user": ["a", "b"], "at": [1, 2], "amount": [math.nan, 2.0], "bought": ["no", "yes"]}
    )
    features = Features((Numeric("amount", optional=True),))
    _, decoded = opened(written(tmp_path, table, kind), features=features)
    assert not decoded.rejected
    assert [math.isnan(x) for x in decoded.events.x[decoded.events.has_x, 0]] == [True, False]


@pytest.mark.parametrize("empty", ["", None])
@pytest.mark.parametrize("kind", FORMATS)
def test_an_empty_text_is_a_text_and_its_label_is_met(kind: str, empty: str | None, tmp_path: Path) -> None:
    schema = {"user": pl.String, "at": pl.Int64, "note": pl.String, "bought": pl.String}
    table = pl.DataFrame([("ann", 1, empty, "no"), ("ann", 2, "fine", "yes")], schema=schema, orient="row")
    _, decoded = opened(written(tmp_path, table, kind))
    assert not decoded.rejected
    assert decoded.events.kind.tolist() == [0, 1, 0, 1]
    assert [int((x > 0).sum()) for x in decoded.events.x[[0, 2]]] == [1, 4]


# Ids


KINDS = {
    "whole numbers": (pl.Series([1, 20, None, 7]), (pl.Int64, pl.Float64, pl.Float32, pl.String)),
    "fractions": (pl.Series([0.5, 20.25, None, 1.0]), (pl.Float64, pl.Float32)),
    "booleans": (pl.Series([True, False, None, True]), (pl.Boolean,)),
    "texts": (pl.Series(["01", "None", None, "nan"]), (pl.String,)),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_category_has_the_same_bucket_in_every_format_and_type_of_column(name: str, tmp_path: Path) -> None:
    values, types = KINDS[name]
    at, features = ["2024-01-01"] * len(values), Features((Category("store", buckets=2**24),))
    stored = set()
    for n, (kind, dtype) in enumerate((kind, dtype) for kind in FORMATS for dtype in types):
        table = pl.DataFrame({"user": at, "at": at, "store": values.cast(dtype), "bought": ["no"] * len(at)})
        decoded = opened(written(tmp_path, table, kind, f"table{n}"), features=features)[1]
        assert not decoded.rejected
        stored.add(decoded.events.x[decoded.events.kind == Kind.OBSERVATION].tobytes())
    assert len(stored) == 1


def test_a_whole_id_is_one_id_in_every_type_of_column(tmp_path: Path) -> None:
    ids = pl.Series([7, 8])
    kinds = [ids, ids.cast(pl.UInt64), ids.cast(pl.Float64), ids.cast(pl.Decimal(20, 2)), ids.cast(pl.String)]
    columns = TableColumns(task=("user",), id="id", time="at")
    for column in kinds:
        table = pl.DataFrame({"user": column, "id": column, "at": [1, 2], "note": ["x", "x"]})
        _, decoded = opened(written(tmp_path, table, "parquet"), columns)
        assert (decoded.tasks, decoded.rejected) == (("7", "8"), [])


def test_a_decimal_id_loses_no_digit_and_a_fraction_is_refused(tmp_path: Path) -> None:
    ids = [Decimal(12345678901234567890), Decimal(12345678901234567891), Decimal("1.5")]
    user = pl.Series(ids, dtype=pl.Decimal(30, 1))
    table = pl.DataFrame({"user": user, "at": [1, 2, 3], "note": ["x"] * 3})
    columns = TableColumns(task=("user",), time="at")
    _, decoded = opened(
        written(tmp_path, table, "parquet"), columns, Features((Text("note"), Category("user")))
    )
    assert decoded.tasks == ("12345678901234567890", "12345678901234567891")
    assert [(one.reason, "got 1.5" in one.detail) for one in decoded.rejected] == [("bad_task", True)]


def test_composite_tasks_with_a_bar_in_a_part_are_told_apart(tmp_path: Path) -> None:
    content = b"tenant,user,at,note\na|b,c,1,x\na,b|c,2,x\na,b,3,x\n"
    _, decoded = opened(written(tmp_path, content), TableColumns(task=("tenant", "user"), time="at"))
    assert decoded.tasks == (r"a\|b|c", r"a|b\|c", "a|b")


# Paths


def table_of(*users: str) -> pl.DataFrame:
    return pl.DataFrame({"user": users, "at": range(len(users)), "note": "x", "bought": "no"})


@pytest.mark.parametrize("name", ["events[1]", "a*", "a?", "year=2024"])
def test_a_path_is_no_pattern(name: str, tmp_path: Path) -> None:
    for other in ("events1", "ab", "abc"):
        written(tmp_path, table_of("other"), "parquet", other)
    _, decoded = opened(written(tmp_path, table_of("ann"), "parquet", name))
    assert decoded.tasks == ("ann",)
    assert decoded.records[0].fields == {"user": "ann", "at": 0, "note": "x", "bought": "no"}


def parts(folder: Path, *names: str) -> Path:
    """A folder as Spark writes it."""
    table = folder / "events"
    table.mkdir()
    for name in names:
        written(table, table_of(name), "parquet", name)
    (table / "_SUCCESS").touch()
    (table / f".{names[0]}.parquet.crc").touch()
    return table


def test_a_folder_of_parquet_parts_is_one_table_in_the_order_of_their_names(tmp_path: Path) -> None:
    log, decoded = opened(parts(tmp_path, "part-1", "part-0", "part-2"))
    assert decoded.tasks == ("part-0", "part-1", "part-2")
    assert log.origin(decoded.records[-1]) == f"{tmp_path / 'events'}, row 3"


def test_a_part_more_at_the_end_is_the_same_log_and_one_before_is_refused(tmp_path: Path) -> None:
    folder = parts(tmp_path, "part-5")
    first = FileLog(folder, COLUMNS, FEATURES, tmp_path).poll(1)[0].incarnations
    written(folder, table_of("part-9"), "parquet", "part-9")
    assert FileLog(folder, COLUMNS, FEATURES, tmp_path).poll(1)[0].incarnations == first
    written(folder, table_of("part-0"), "parquet", "part-0")
    with pytest.raises(InputError, match="put it back as it was, with new rows at its end"):
        FileLog(folder, COLUMNS, FEATURES, tmp_path)


def test_parts_of_different_columns_are_refused_by_part_and_column(tmp_path: Path) -> None:
    folder = parts(tmp_path, "part-0", "part-1")
    written(folder, table_of("x").with_columns(pl.col("at").cast(pl.String)), "parquet", "part-2")
    said = refusal(folder)
    assert "part-2.parquet: its columns are not those of part-0.parquet: they differ in 'at'" in said


@pytest.mark.parametrize("name", ["day=1/part-0.parquet", "table.csv"])
def test_a_folder_of_anything_else_is_refused_by_what_it_holds(name: str, tmp_path: Path) -> None:
    folder = parts(tmp_path, "part-0")
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).touch()
    assert repr(name.split("/")[0]) in refusal(folder)
    (tmp_path / "empty").mkdir()
    assert "Parquet files alone" in refusal(tmp_path / "empty")


# Times


def order(log: FileLog) -> list[tuple[object, Kind]]:
    log.seek(0)
    return [(record.id, record.kind) for part in log.poll(10_000) for record in part.records]


def dated(*rows: tuple[str, str | None, str | None]) -> pl.DataFrame:
    schema = {"at": pl.String, "known": pl.String, "bought": pl.String}
    return pl.DataFrame(rows, schema=schema, orient="row").with_columns(user=pl.lit("ann"), note=pl.lit("x"))


@pytest.mark.parametrize("kind", FORMATS)
def test_a_label_dated_before_its_observation_comes_right_after_it_at_its_time(
    kind: str, tmp_path: Path
) -> None:
    table = dated(
        ("2024-01-01T10:00", "2024-01-01", "no"),
        ("2024-01-02T10:00", "2024-01-03", "yes"),
        ("2024-01-02T11:00", "2023-01-01", "yes"),
    )
    log, decoded = opened(written(tmp_path, table, kind), DATED)
    assert order(log) == [(1, 0), (1, 1), (2, 0), (3, 0), (3, 1), (2, 1)]
    assert decoded.events.time_s[[0, 3]].tolist() == decoded.events.time_s[[1, 4]].tolist()
    (remark,) = log.remarks()
    assert remark.startswith(
        "2 of 3 labels are dated before their observation, and are placed right after it"
    )


@pytest.mark.parametrize("kind", FORMATS)
def test_labels_without_a_time_of_their_own_never_arrive_and_are_counted(kind: str, tmp_path: Path) -> None:
    table = dated(("2024-01-01", None, "no"), ("2024-01-02", "2024-01-03", "yes"), ("2024-01-02", None, None))
    log, _ = opened(written(tmp_path, table, kind), DATED)
    assert order(log) == [(1, 0), (2, 0), (3, 0), (2, 1)]
    (remark,) = log.remarks()
    assert remark.startswith("1 of 2 labels have no time in the column input.label_time")


def refused_times(decoded: Decoded) -> list[Record]:
    assert {one.reason for one in decoded.rejected} <= {"bad_time"}
    return [one.record for one in decoded.rejected]


@pytest.mark.parametrize("kind", FORMATS)
def test_a_row_of_2096_in_a_table_of_2024_is_bad_time_in_the_place_of_the_row_before(
    kind: str, tmp_path: Path
) -> None:
    table = dated(
        ("2024-01-01", "2024-01-02", "no"),
        ("2096-01-01", "2096-01-02", "no"),
        ("2024-01-02", "2096-01-03", "yes"),
        ("2024-01-03", "2024-01-04", "yes"),
    )
    log, decoded = opened(written(tmp_path, table, kind), DATED)
    assert [(record.id, record.kind) for record in refused_times(decoded)] == [(2, 0), (2, 1), (3, 1)]
    assert order(log)[:2] == [(1, 0), (2, 0)]
    assert decoded.events.time_s.max() == epoch_seconds("2024-01-04")


@pytest.mark.parametrize(
    "times",
    [
        ["2010-01-01", "2010-01-02", "2010-01-03", "2023-12-01"],  # a long gap in the past
        ["1890-01-01", "1950-01-01", "2024-01-01"],  # sparse
        ["2096-01-01"],
        ["2096-01-01", "2096-01-02", "2099-01-01"],  # a table of the future
        ["2024-01-01", "2025-01-01", "2025-12-01", "2026-11-01"],  # planned ahead, step by step
    ],
)
def test_long_gaps_few_rows_and_tables_of_the_future_are_taken_as_they_are(
    times: list[str], tmp_path: Path
) -> None:
    table = dated(*((time, None, None) for time in times))
    assert not refused_times(opened(written(tmp_path, table), DATED)[1])


def test_a_table_that_grows_refuses_the_same_row_in_the_same_place(tmp_path: Path) -> None:
    rows = [("2024-01-01", None, None), ("2096-01-01", None, None), ("2024-01-02", None, None)]
    before = order(opened(written(tmp_path, dated(*rows)), DATED)[0])
    after = order(opened(written(tmp_path, dated(*rows, ("2024-05-05", None, None))), DATED)[0])
    assert after == [*before, (4, Kind.OBSERVATION)]
