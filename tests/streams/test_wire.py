"""Records become events or rejections: one of the two, for any record, without an exception."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from hashlib import blake2b
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.features.columns import Category, Cyclic, Numeric, Text
from engine.features.encoder import Features
from engine.problem import Problem
from engine.targets import Classification, Regression
from engine.types import Kind
from streams.events.decoding import Decoded, Tally, decode, tally
from streams.events.identity import joined_task
from streams.events.reading import MAX_RECORD_BYTES, Rejected
from streams.events.record import Polled, Record
from streams.events.times import epoch_seconds

PROBLEM = Problem(Features((Numeric("amount"),)), Classification((0, 1)))
REGRESSION = Problem(PROBLEM.features, Regression(-1.0, 1.0))


def observation(**changes: Any) -> Record:
    record = Record(0, Kind.OBSERVATION, "ann", "e1", 1.0, fields={"amount": 2.0})
    return record._replace(**changes)


def label(value: object, **changes: Any) -> Record:
    return Record(0, Kind.LABEL, "ann", "e1", 1.0, label=value)._replace(**changes)


def decoded(*records: Record, problem: Problem = PROBLEM, topic: int = 0) -> Decoded:
    numbered = [record._replace(offset=7 + i, topic=topic, partition=3) for i, record in enumerate(records)]
    return decode([Polled(3, (4, 5), 7, numbered)], problem)


def reason(record: Record, problem: Problem = PROBLEM) -> str:
    (rejected,) = decoded(record, problem=problem).rejected
    assert rejected.record == record._replace(offset=7, partition=3)
    return rejected.reason


def ids(*values: object) -> list[int]:
    return list(decoded(*(observation(id=value) for value in values)).events.id.tolist())


# Events


def test_a_batch_keeps_log_order_and_numbers_tasks_as_they_appear() -> None:
    bad = observation(task="never seen", time="soon")
    out = decoded(observation(task="b"), bad, label(1, task="a"), observation(task="b", fields={"amount": 4}))
    assert out.tasks == ("b", "a")
    assert out.events.row.tolist() == [0, 1, 0]
    assert out.events.kind.tolist() == [0, 1, 0]
    assert out.events.offset.tolist() == [7, 9, 10] == [record.offset for record in out.records]
    assert out.events.has_x.tolist() == [True, False, True]
    assert out.events.x.tolist() == [[2.0], [0.0], [4.0]]
    assert [rejected.record.offset for rejected in out.rejected] == [8]


def test_arrays_have_the_types_the_engine_declares() -> None:
    for events in (decoded(observation(), label(1)).events, decoded().events):
        types = ["i8", "u1", "u8", "f8", "f4", "?", "f4", "i8", "i8", "i8", "u8"]
        fields = ["row", "kind", "id", "time_s", "x", "has_x", "y", "topic", "offset"]
        fields += ["partition", "incarnation"]
        assert [getattr(events, name).dtype for name in fields] == [np.dtype(t) for t in types]
        assert events.x.shape == (len(events), 1)


def test_an_event_knows_the_partition_and_incarnation_of_its_topic() -> None:
    events = decoded(observation(), topic=1).events
    assert (events.topic.tolist(), events.partition.tolist(), events.incarnation.tolist()) == ([1], [3], [5])


def test_partitions_polled_together_are_one_batch() -> None:
    parts = [Polled(p, (10 + p,), 0, [observation()._replace(task=f"t{p}", partition=p)]) for p in (2, 0)]
    events = decode(parts, PROBLEM).events
    assert (events.partition.tolist(), events.incarnation.tolist()) == ([2, 0], [12, 10])
    assert events.row.tolist() == [0, 1]


def test_a_label_may_carry_features() -> None:
    events = decoded(label(1, fields={"amount": 9.0})).events
    assert (events.has_x.tolist(), events.x.tolist()) == ([True], [[9.0]])


# Ids


def test_an_id_is_the_same_as_text_and_as_a_number() -> None:
    first, second = ids("12", 12)
    assert first == second == int.from_bytes(blake2b(b"12", digest_size=8).digest(), "little")


def test_a_whole_number_is_one_id_however_it_is_typed() -> None:
    values = "12", 12, 12.0, np.int64(12), np.float32(12), Decimal(12), Decimal("12.00")
    assert len(set(ids(*values))) == 1
    assert decoded(*(observation(task=value) for value in values)).tasks == ("12",)
    assert ids(-0.0) == ids(0)


@pytest.mark.parametrize(
    "value", [2.0**53 * 2, -(2.0**60), Decimal("1.5"), Decimal("NaN"), math.nan, math.inf]
)
def test_a_number_that_is_not_exactly_whole_is_no_id(value: float | Decimal) -> None:
    assert reason(observation(task=value)) == "bad_task"


def test_a_decimal_id_keeps_every_digit() -> None:
    first, second = Decimal(10**30), Decimal(10**30 + 1)
    assert decoded(observation(task=first), observation(task=second)).tasks == (str(10**30), str(10**30 + 1))


@given(st.lists(st.lists(st.text(alphabet="a|\\"), min_size=2, max_size=2), min_size=2, max_size=2))
def test_tasks_of_several_columns_are_one_only_where_every_column_is(two: list[Any]) -> None:
    first, second = map(joined_task, two)
    if all(map(all, two)):
        assert (first == second) == (two[0] == two[1])


def test_a_task_of_several_columns_is_joined_by_a_bar_and_an_odd_part_stands_for_the_whole() -> None:
    assert joined_task(["a", 7, 8.0, Decimal(9)]) == "a|7|8|9"
    assert joined_task(["a|b", "c\\d"]) == "a\\|b|c\\\\d"
    assert [joined_task(["a", odd]) for odd in (None, "", True, 1.5)] == [None, "", True, 1.5]
    assert joined_task([1.0]) == 1.0


def test_different_ids_differ() -> None:
    assert len(set(ids("1", "01", "1.0", " 1", "\uff11"))) == 5


@pytest.mark.parametrize("task", ["a\nb", "{slot}", "\x00", "*", "../../etc", "é" * 32_768, 0, -5])
def test_hostile_but_harmless_ids_are_accepted_as_they_are(task: str | int) -> None:
    assert decoded(observation(task=task, id=task)).tasks == (str(task),)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "missing"),
        ("", "missing"),
        (1.5, "bad"),
        (True, "bad"),
        ([1], "bad"),
        (np.arange(2), "bad"),
        (b"ann", "bad"),
        ("\ud800", "bad"),
        pytest.param(10**5000, "bad", id="5000 digits"),
    ],
)
def test_what_is_no_id_is_refused(value: Any, expected: str) -> None:
    assert reason(observation(task=value)) == f"{expected}_task"
    assert reason(observation(id=value)) == f"{expected}_id"


def test_ids_longer_than_the_limit_are_too_large() -> None:
    assert reason(observation(task="x" * 65_537)) == "too_large"
    assert reason(observation(id="é" * 32_769)) == "too_large"


# Times


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (12, 12.0),
        (12.5, 12.5),
        (np.float32(12.5), 12.5),
        ("12.5", 12.5),
        ("1970-01-01T00:01:00Z", 60.0),
        ("1970-01-01 00:01:00", 60.0),
        ("1970-01-01T01:01:00+01:00", 60.0),
        (datetime(1970, 1, 1, 0, 1), 60.0),
        (datetime(1970, 1, 1, 1, 1, tzinfo=timezone(timedelta(hours=1))), 60.0),
        (-1.0, -1.0),
    ],
)
def test_times_are_seconds_since_the_epoch(value: Any, expected: float) -> None:
    assert epoch_seconds(value) == expected


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        "soon",
        "1_000",
        True,
        [],
        float("nan"),
        float("inf"),
        10**400,
        1.7e12,
        "0001-01-01T00:00+14:00",
        " 1",
        "1 ",
        "\u0661",
        "nan",
        "infinity",
        "0x10",
    ],
)
def test_what_is_no_time_is_refused(value: Any) -> None:
    assert reason(observation(time=value)) == "bad_time"


def detail(record: Record, problem: Problem = PROBLEM) -> str:
    return decoded(record, problem=problem).rejected[0].detail


@pytest.mark.parametrize("as_given", [float, int, str])
@pytest.mark.parametrize(
    ("factor", "unit"), [(10**3, "milliseconds"), (10**6, "microseconds"), (10**9, "nanoseconds")]
)
def test_a_time_in_another_unit_is_told_what_it_would_be(
    factor: int, unit: str, as_given: type[float] | type[int] | type[str]
) -> None:
    said = detail(observation(time=as_given(1_700_000_000 * factor)))
    assert "too large for seconds since the epoch" in said
    assert f"as {unit} it is 2023-11-14 22:13" in said
    assert "1.7" in said or "1700" in said


@pytest.mark.parametrize("value", ["01/31/2024", "2024-13-01", "N/A", "", None, "x" * 500])
def test_what_is_no_time_is_shown_with_a_form_that_is_one(value: str | None) -> None:
    said = detail(observation(time=value))
    assert "2024-01-31T12:00:00" in said
    assert repr(value)[:20] in said


def test_a_time_after_the_latest_that_the_log_can_hold_is_refused_and_one_at_it_is_not() -> None:
    late = observation(time="2096-01-01", latest_s=1_700_000_000.0)
    assert reason(late) == reason(late._replace(kind=Kind.LABEL, label=1)) == "bad_time"
    assert "is 2096-01-01 00:00" in detail(late)
    assert "no event after 2023-11-14 22:13" in detail(late)
    for latest_s, told in ((1.0, 1.0), (math.inf, math.inf), (math.nan, math.inf)):
        at_it = decoded(observation(time=1.0, latest_s=latest_s))
        assert (at_it.rejected, np.broadcast_to(at_it.events.not_after_s, 1).tolist()) == ([], [told])


# Labels


@pytest.mark.parametrize("value", [1, 1.0, True, "1", "1.0", "true", "True", np.int64(1), np.bool_(True)])
@pytest.mark.parametrize("classes", [(0, 1), ("0", "1"), (False, True), (0.0, 1.0)])
def test_one_has_many_spellings(
    classes: tuple[int, int] | tuple[str, str] | tuple[bool, bool] | tuple[float, float], value: Any
) -> None:
    problem = Problem(PROBLEM.features, Classification(classes))
    assert decoded(label(value), problem=problem).events.y.tolist() == [1.0]


def test_a_class_as_declared_goes_before_one_that_means_the_same() -> None:
    problem = Problem(PROBLEM.features, Classification(("1", "01", 1, "red")))
    out = decoded(label("1"), label("01"), label(1), label("red"), problem=problem)
    assert out.events.y.tolist() == [0.0, 1.0, 2.0, 3.0]
    assert reason(label("1.0"), problem) == "unknown_class"


@pytest.mark.parametrize("value", [2, "yes", "", "0_1", " 1", "\u0661", float("nan"), 10**400, "x" * 10_000])
def test_a_label_that_is_none_of_the_classes_is_refused(value: str | float) -> None:
    assert reason(label(value)) == "unknown_class"


def test_an_unknown_class_is_to_be_appended_where_there_is_room() -> None:
    def said(target: Classification) -> str:
        return decoded(label("c"), problem=Problem(PROBLEM.features, target)).rejected[0].detail

    assert said(Classification(("a", "b"), reserve=5)).endswith(
        "append it to target.classes, there is room for 3"
    )
    assert said(Classification(("a", "b"), reserve=2)) == said(Classification(("a", "b")))


@pytest.mark.parametrize("value", [None, [1], {}, b"1", np.arange(2)])
def test_what_is_no_label_is_refused(value: Any) -> None:
    assert reason(label(value)) == reason(label(value), REGRESSION) == "bad_label"


def test_a_regression_takes_numbers_within_its_range() -> None:
    out = decoded(label(-1), label(0.5), label("0.25"), label(1), problem=REGRESSION)
    assert out.events.y.tolist() == [-1.0, 0.5, 0.25, 1.0]
    assert reason(label(1.01), REGRESSION) == "out_of_range"


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), "high", True, "0_0", " 0", "\u0660", "nan", ""]
)
def test_a_regression_takes_finite_numbers_only(value: float | str) -> None:
    assert reason(label(value), REGRESSION) == "bad_label"
    assert (repr(value) if isinstance(value, str) else str(value)) in detail(label(value), REGRESSION)


@pytest.mark.parametrize("problem", [PROBLEM, REGRESSION])
def test_a_null_label_is_told_what_an_observation_does(problem: Problem) -> None:
    assert detail(label(None), problem) == 'the label is null; an observation leaves the member "label" out'


# Features and whole records


@pytest.mark.parametrize("fields", [None, [("amount", 1.0)], "amount"])
def test_an_observation_without_a_mapping_of_fields_is_refused(
    fields: list[tuple[str, float]] | str | None,
) -> None:
    assert reason(observation(fields=fields)) == "bad_feature"


def test_a_fault_of_the_log_is_malformed_and_keeps_its_words() -> None:
    (rejected,) = decoded(observation(fault="not JSON")).rejected
    assert rejected[1:] == ("malformed", "not JSON")


def test_a_record_over_the_limit_is_too_large() -> None:
    assert reason(observation(raw=b"x" * (MAX_RECORD_BYTES + 1), fault="longer")) == "too_large"
    assert decoded(observation(raw=b"x" * MAX_RECORD_BYTES)).rejected == []


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(width=32)
    | st.text(st.characters(), max_size=8)
    | st.binary(max_size=4)
    | st.datetimes()
    | st.datetimes(timezones=st.just(UTC))
    | st.sampled_from([0, 1, "0", "1", "\udfff", np.float32(2), np.int64(3)])
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner), max_leaves=3
)
FIELDS = (
    st.none() | VALUES | st.fixed_dictionaries({}, optional=dict.fromkeys(["n", "o", "c", "p", "t"], VALUES))
)
RECORDS = st.builds(
    Record,
    offset=st.just(0),
    kind=st.sampled_from(Kind),
    task=VALUES,
    id=VALUES,
    time=VALUES,
    label=VALUES,
    fields=FIELDS,
    fault=st.none() | st.just("broken"),
)
EVERY_COLUMN = Features(
    (Numeric("n"), Numeric("o", optional=True), Category("c"), Cyclic("p", 24), Text("t"))
)


@given(records=st.lists(RECORDS, max_size=3))
def test_any_record_becomes_an_event_or_a_rejection_and_never_an_exception(records: list[Any]) -> None:
    for target in (Classification((0, 1)), Regression(-1, 1)):
        out = decoded(*records, problem=Problem(EVERY_COLUMN, target))
        offsets = [r.offset for r in out.records] + [rejected.record.offset for rejected in out.rejected]
        assert sorted(offsets) == list(range(7, 7 + len(records)))
        assert np.isfinite(out.events.time_s).all()
        assert all(len(rejected.detail) < 300 for rejected in out.rejected)


# Counting


def test_a_tally_counts_by_reason_and_keeps_the_first_case() -> None:
    bad = [Rejected(observation(line=n), why, f"detail {n}") for n, why in enumerate(["a", "b", "a"], 1)]
    once = tally({}, bad[:2], origin=lambda record: f"line {record.line}")
    twice = tally(once, bad[2:], origin=lambda record: f"line {record.line}")
    assert twice == {"a": Tally(2, "line 1", "detail 1"), "b": Tally(1, "line 2", "detail 2")}
    assert once["a"].count == 1
