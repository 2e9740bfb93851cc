"""One malformed line never stops a log, never disappears, and never touches another event."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.features.columns import Category, Numeric, Text
from engine.features.encoder import Features
from engine.problem import Problem
from engine.targets import Classification
from engine.types import Kind
from streams.events.decoding import Decoded, Tally, decode, tally
from streams.events.record import Record
from streams.logs.file.log import FileLog, TableColumns

PROBLEM = Problem(Features((Numeric("amount"), Category("country"), Text("note"))), Classification((0, 1)))
COLUMNS = TableColumns(task=("card",), id="id", time="at", label="fraud", label_time="known")
BAD_LINE = 3


def row(n: int, **changes: object) -> dict[str, object]:
    content = {"card": f"c{n % 2}", "id": f"e{n}", "at": n, "amount": n / 2, "country": "NL", "note": "hi"}
    return {**content, "fraud": n % 2, "known": n + 10, **changes}


def text(**changes: object) -> bytes:
    return json.dumps(row(BAD_LINE, **changes)).encode()


def polled(folder: Path, line: bytes) -> tuple[FileLog, Decoded]:
    good = [json.dumps(row(n)).encode() for n in range(1, 6)]
    path = folder / "events.jsonl"
    path.write_bytes(b"\n".join([*good[:2], line, *good[3:]]))
    log = FileLog(path, COLUMNS, PROBLEM.features)
    return log, decode(log.poll(100), PROBLEM)


def told(record: Record, out: Decoded) -> tuple[object, ...]:
    """Everything the engine is told of one event, but for its offset and the task's place in the batch."""
    i = out.records.index(record)
    e = out.events
    values = (e.kind[i], e.id[i], e.time_s[i], e.has_x[i], e.y[i], *e.x[i])
    return (out.tasks[e.row[i]], *map(float, values))


def others(out: Decoded) -> list[tuple[object, ...]]:
    return [told(record, out) for record in out.records if record.line != BAD_LINE]


def outcome(folder: Path, line: bytes) -> tuple[list[Kind], dict[str, Tally]]:
    """What became of the bad line: the kinds of its events that were delivered, and the tally."""
    _, undisturbed = polled(folder, text())
    log, out = polled(folder, line)
    assert others(out) == others(undisturbed)
    return [record.kind for record in out.records if record.line == BAD_LINE], tally(
        {}, out.rejected, log.origin
    )


def refused(folder: Path, line: bytes, reason: str, detail: str, delivered: list[Kind]) -> None:
    kinds, counted = outcome(folder, line)
    assert kinds == delivered
    assert list(counted) == [reason]
    assert counted[reason].count == 1
    assert counted[reason].origin == f"{folder / 'events.jsonl'}, line {BAD_LINE}"
    assert detail in counted[reason].detail


def accepted(folder: Path, line: bytes) -> None:
    assert outcome(folder, line) == ([Kind.OBSERVATION, Kind.LABEL], {})


LABEL_ONLY = [Kind.LABEL]


def test_a_malformed_line(tmp_path: Path) -> None:
    refused(tmp_path, text()[:-9], "malformed", "unexpected end of data", [])


def test_a_line_that_is_no_object(tmp_path: Path) -> None:
    refused(tmp_path, b"[1, 2]", "malformed", "expected a JSON object, got list", [])


def test_a_line_that_is_not_utf8(tmp_path: Path) -> None:
    refused(tmp_path, text().replace(b"NL", b"\xff\xfe"), "malformed", "UTF-8", [])


def test_a_csv_line_with_a_wrong_number_of_cells(tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    path.write_bytes(b"card,at,amount\nann,1,2\nann,2\nann,3,4\n")
    features = Features((Numeric("amount"),))
    log = FileLog(path, TableColumns(task=("card",), time="at"), features)
    out = decode(log.poll(9), Problem(features, PROBLEM.target))
    assert [record.line for record in out.records] == [2, 4]
    expected = Tally(1, f"{path}, line 3", "2 cells, the header has 3")
    assert tally({}, out.rejected, log.origin) == {"malformed": expected}


@pytest.mark.parametrize("token", [b"NaN", b"Infinity", b"1e999"])
def test_a_number_that_json_does_not_have(token: bytes, tmp_path: Path) -> None:
    refused(tmp_path, text(amount=77).replace(b"77", token), "malformed", "line 1 column", [])


@pytest.mark.parametrize("cell", ["nan", "inf", "-inf", "1e999"])
def test_a_nan_or_infinite_feature(cell: str, tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    path.write_text(f"card,at,amount\nann,1,2\nann,2,{cell}\nann,3,4\n")
    features = Features((Numeric("amount"),))
    log = FileLog(path, TableColumns(task=("card",), time="at"), features)
    out = decode(log.poll(9), Problem(features, PROBLEM.target))
    assert [record.line for record in out.records] == [2, 4]
    (counted,) = tally({}, out.rejected, log.origin).items()
    detail = {
        "nan": "field 'amount': nan is not a finite number",
        "1e999": "field 'amount': inf is not a finite number",
    }.get(cell, f"field 'amount': expected a number, got {cell!r}")
    assert counted == ("bad_feature", Tally(1, f"{path}, line 3", detail))


def test_a_number_too_large_for_a_feature(tmp_path: Path) -> None:
    refused(tmp_path, text(amount=1e300), "bad_feature", "field 'amount': 1e+300", LABEL_ONLY)


def test_a_category_never_seen_is_accepted(tmp_path: Path) -> None:
    accepted(tmp_path, text(country="Atlantis"))


def test_a_missing_field(tmp_path: Path) -> None:
    line = json.dumps({k: v for k, v in row(BAD_LINE).items() if k != "amount"}).encode()
    refused(tmp_path, line, "bad_feature", "field 'amount' is missing", LABEL_ONLY)


def test_an_extra_field_is_accepted(tmp_path: Path) -> None:
    accepted(tmp_path, text(colour="red", nested={"a": [1]}))


def test_a_value_of_the_wrong_type(tmp_path: Path) -> None:
    refused(
        tmp_path, text(amount="nine"), "bad_feature", "'amount': expected a number, got 'nine'", LABEL_ONLY
    )


def test_a_label_dated_before_its_observation_is_delivered_after_it(tmp_path: Path) -> None:
    accepted(tmp_path, text(known=0.5))


def test_huge_text_within_the_limit_is_accepted(tmp_path: Path) -> None:
    accepted(tmp_path, text(note="x" * 1_000_000))


def test_a_line_over_the_limit(tmp_path: Path) -> None:
    refused(tmp_path, text(note="x" * 1_048_576), "too_large", "longer than 1048576 bytes", [])


def test_a_duplicate_id_is_delivered_twice(tmp_path: Path) -> None:
    kinds, counted = outcome(tmp_path, text(id="e2"))
    assert (kinds, counted) == ([Kind.OBSERVATION, Kind.LABEL], {})


def test_a_label_that_is_no_class(tmp_path: Path) -> None:
    refused(tmp_path, text(fraud="maybe"), "unknown_class", "'maybe' is none of [0, 1]", [Kind.OBSERVATION])


def test_a_label_time_that_is_no_time(tmp_path: Path) -> None:
    refused(tmp_path, text(known="soon"), "bad_time", "'soon'", [Kind.OBSERVATION])


def test_a_time_in_milliseconds(tmp_path: Path) -> None:
    refused(
        tmp_path, text(at=1_700_000_000_000, fraud=None), "bad_time", "as milliseconds it is 2023-11-14", []
    )


@pytest.mark.parametrize("task", [None, ""])
def test_a_missing_task(task: str | None, tmp_path: Path) -> None:
    refused(tmp_path, text(card=task, fraud=None), "missing_task", "no task", [])


def test_a_task_that_is_no_id(tmp_path: Path) -> None:
    refused(tmp_path, text(card=1.5, fraud=None), "bad_task", "got 1.5", [])


def test_a_missing_id(tmp_path: Path) -> None:
    refused(tmp_path, text(id=None, fraud=None), "missing_id", "no id", [])
