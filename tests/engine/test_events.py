"""What is no batch of events is refused in one sentence, before anything indexes memory by it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.features.columns import Category, Cyclic, Numeric, Text
from engine.features.encoder import Features
from engine.stream.events import DTYPES, EventBatch
from engine.stream.fold import Engine
from engine.stream.requirements import Requirements
from engine.stream.table import TaskTable
from engine.targets import Classification, Regression
from engine.types import EngineError, Meta
from tests.engine.driving import SMALL, batch_of, drive, engine_for, label, observation, theta
from tests.varied import varied

FIRST = "topic 0, partition 0, offset"
EVERY_COLUMN = Features(
    (Numeric("n", optional=True), Category("c", 4), Cyclic("h", 24.0), Text("t", 16), Numeric("m"))
)


def four_events() -> EventBatch:
    return batch_of(
        [observation(1), label(1, 2.0), observation(2, x=(1.0, 0.0)), label(2, 0.0)], width=2, offset=10
    )


def changed(column: str, n: int, value: Any) -> EventBatch:
    batch = four_events()
    values = getattr(batch, column).copy()
    values[n] = value
    return replace(batch, **{column: values})


def refusal(batch: EventBatch, spec: Any = SMALL, tasks: int = 1) -> str:
    with pytest.raises(EngineError) as refused:
        Requirements(spec).checked(batch, tasks)
    return str(refused.value)


def test_a_sound_batch_is_taken() -> None:
    Requirements(SMALL).checked(four_events(), 1)
    Requirements(SMALL).checked(batch_of([]), 0)


@pytest.mark.parametrize(
    ("column", "n", "value", "expected"),
    [
        ("row", 2, 1, f"event 2 ({FIRST} 12): row is 1, expected the place of its task in a table of 1"),
        ("row", 0, -1, f"event 0 ({FIRST} 10): row is -1, expected the place of its task"),
        ("kind", 1, 2, f"event 1 ({FIRST} 11): kind is 2, expected 0 (Kind.OBSERVATION) or 1"),
        ("topic", 1, 1, "event 1 (topic 1, partition 0, offset 11): topic is 1, expected one of 1"),
        ("topic", 1, -1, "event 1 (topic -1, partition 0, offset 11): topic is -1, expected one of 1"),
        ("offset", 0, -1, f"event 0 ({FIRST} -1): offset is -1, expected its place in the log, 0 or more"),
        ("offset", 3, 2**63 - 1, "offset is 9223372036854775807, expected its place in the log"),
        ("time_s", 3, np.nan, f"event 3 ({FIRST} 13): time_s is nan, expected seconds since the epoch"),
        ("time_s", 3, -np.inf, "time_s is -inf, expected seconds since the epoch"),
        ("has_x", 2, False, f"event 2 ({FIRST} 12): has_x is False, expected true: an observation has"),
        (
            "x",
            2,
            (np.nan, 0.0),
            f"event 2 ({FIRST} 12): x is nan in field 'a', expected what features.encode",
        ),
        ("x", 2, (0.0, np.inf), "x is inf in field 'b', expected what features.encode makes"),
        ("y", 1, 3.0, f"event 1 ({FIRST} 11): y is 3.0, expected the index of one of 3 classes, 0 to 2;"),
        ("y", 1, 1e9, "y is 1e+09, expected the index of one of 3 classes"),
        ("y", 1, -1.0, "y is -1.0, expected the index of one of 3 classes"),
        ("y", 1, 0.5, "y is 0.5, expected the index of one of 3 classes"),
        ("y", 1, np.nan, "y is nan, expected the index of one of 3 classes"),
        ("y", 1, np.inf, "y is inf, expected the index of one of 3 classes"),
    ],
)
def test_a_value_that_cannot_be_folded_is_named_with_its_event_and_what_was_expected(
    column: str, n: int, value: float | tuple[float, float], expected: str
) -> None:
    assert expected in refusal(changed(column, n, value))


@pytest.mark.parametrize("y", [-1.01, 2.01, np.nan, np.inf])
def test_a_label_outside_the_range_of_a_regression_is_refused(y: float) -> None:
    spec = varied(SMALL, target=Regression(-1.0, 2.0))
    assert "expected a number from -1 to 2; leave other labels out" in refusal(changed("y", 1, y), spec)


def test_the_ends_of_a_range_that_float32_has_not_are_inside() -> None:
    spec = varied(SMALL, target=Regression(-0.1, 0.1))
    for y in (-0.1, 0.1):
        Requirements(varied(spec, target=Regression(-0.1, 2.0))).checked(changed("y", 1, y), 1)
    Requirements(spec).checked(batch_of([label(1, 0.1), label(2, -0.1)]), 1)


def test_a_class_that_there_is_room_for_but_has_no_name_is_refused() -> None:
    spec = varied(SMALL, target=Classification(("x", "y"), reserve=3))
    assert "y is 2.0, expected the index of one of 2 classes, 0 to 1" in refusal(four_events(), spec)


def test_what_is_undefined_is_not_looked_at() -> None:
    Requirements(SMALL).checked(changed("y", 0, np.nan), 1)  # of an observation
    Requirements(SMALL).checked(changed("x", 1, np.nan), 1)  # of a label without features


@pytest.mark.parametrize(
    ("place", "value", "field"),
    [
        (0, np.inf, "n"),
        (1, 4.0, "c"),
        (1, -1.0, "c"),
        (1, 0.5, "c"),
        (1, np.nan, "c"),
        (2, np.nan, "h"),
        (4, 16.0, "t"),
        (67, 2.5, "t"),
        (68, np.nan, "m"),
    ],
)
def test_a_stored_number_that_no_encoder_makes_is_refused_by_its_field(
    place: int, value: float, field: str
) -> None:
    spec, batch = (
        varied(SMALL, features=EVERY_COLUMN),
        batch_of([observation(1, x=(0.0,) * EVERY_COLUMN.width)], width=EVERY_COLUMN.width),
    )
    x = EVERY_COLUMN.encode([{"n": None, "c": "a", "h": 3, "t": "text", "m": 1.5}]).x
    Requirements(spec).checked(replace(batch, x=x), 1)
    x[0, place] = value
    assert f"x is {value} in field '{field}'" in refusal(replace(batch, x=x), spec)


@pytest.mark.parametrize("column", DTYPES)
def test_a_column_of_another_type_is_refused_with_the_way_out(column: str) -> None:
    batch, other = four_events(), np.float16 if DTYPES[column] != np.float16 else np.int8
    with pytest.raises(
        EngineError, match=rf"EventBatch.{column} is float16, expected an array of .*np.asarray"
    ):
        Requirements(SMALL).checked(replace(batch, **{column: getattr(batch, column).astype(other)}), 1)
    with pytest.raises(EngineError, match=f"EventBatch.{column} is list, expected an array of"):
        Requirements(SMALL).checked(replace(batch, **{column: getattr(batch, column).tolist()}), 1)


@pytest.mark.parametrize("column", DTYPES)
def test_a_column_of_another_length_is_refused(column: str) -> None:
    shorter = replace(four_events(), **{column: getattr(four_events(), column)[:-1]})
    assert "has shape (" in refusal(shorter)


@pytest.mark.parametrize("tasks", [[], ["a"], ["a", "b"]])
def test_no_events_are_folded_into_any_table(tasks: Any) -> None:
    engine = engine_for("balanced")
    folded = engine.fold(TaskTable.empty(engine.layout, tasks), batch_of([]), theta("balanced", 1))
    assert folded.states.rows.tobytes() == TaskTable.empty(engine.layout, tasks).rows.tobytes()
    assert len(folded.outcomes.code) == 0


def test_features_of_another_width_are_refused() -> None:
    wide = replace(four_events(), x=np.zeros((4, 3), np.float32))
    assert refusal(wide).startswith(
        "EventBatch.x has shape (4, 3), expected (4, 2): 4 events of 2 stored features"
    )


def test_events_at_one_place_of_the_log_or_out_of_its_order_are_refused() -> None:
    assert f"event 2 ({FIRST} 11): offset is 11, expected more than the event before it" in refusal(
        changed("offset", 2, 11)
    )
    assert f"event 3 ({FIRST} 4)" in refusal(changed("offset", 3, 4))


@pytest.mark.parametrize("column", ["partition", "incarnation", "topic"])
def test_each_partition_topic_and_incarnation_counts_its_own_offsets(column: str) -> None:
    batch = replace(four_events(), offset=np.array([5, 0, 6, 1]))
    values = getattr(batch, column).copy()
    values[[1, 3]] = 1
    Requirements(varied(SMALL, topics=2)).checked(replace(batch, **{column: values}), 1)


@pytest.mark.parametrize("limit", [np.nan, np.array([1.0, 2.0]), np.array([1.0, np.nan, 2.0, 3.0])])
def test_a_latest_time_that_is_none_is_refused(limit: float | npt.NDArray[Any]) -> None:
    assert "not_after_s" in refusal(replace(four_events(), not_after_s=limit))


@pytest.mark.parametrize("name", ["balanced", "regression"])
def test_a_fold_refuses_what_it_cannot_fold_and_changes_nothing(name: str) -> None:
    driven = drive(name)
    driven.fold([observation(1)], theta(name, 1))
    before = driven.table.rows.tobytes()
    with pytest.raises(EngineError, match=r"offset 1\): y is 1e\+09"):
        driven.fold([label(1, 1e9)], theta(name, 1))
    assert driven.table.rows.tobytes() == before


@settings(max_examples=200)
@given(data=st.data())
def test_whatever_a_batch_holds_it_is_folded_or_refused_in_a_sentence(data: st.DataObject) -> None:
    batch = four_events()
    for column, dtype in DTYPES.items():
        if data.draw(st.booleans(), column):
            values = getattr(batch, column).copy()
            raw = data.draw(st.binary(min_size=values.nbytes, max_size=values.nbytes))
            if dtype == np.bool_:
                raw = bytes(byte % 2 for byte in raw)
            batch = replace(batch, **{column: np.frombuffer(raw, dtype).reshape(values.shape)})
    engine, table = engine_for("balanced"), TaskTable.empty(engine_for("balanced").layout, ["a"])
    try:
        folded = engine.fold(table, batch, theta("balanced", 1))
    except EngineError as refused:
        assert "\n" not in str(refused)
    else:
        assert np.isfinite(folded.states.rows["fast"]).all()


# Tables and theta


def test_a_task_that_is_twice_in_a_table_is_refused() -> None:
    with pytest.raises(EngineError, match="task 'a' is twice in one table; name each task once"):
        TaskTable.empty(engine_for("balanced").layout, ["a", "b", "a"])


def test_rows_that_are_not_those_of_the_tasks_are_refused() -> None:
    layout = engine_for("balanced").layout
    with pytest.raises(EngineError, match="a table of 2 tasks needs as many rows of its layout"):
        TaskTable(layout, ("a", "b"), np.zeros(3, layout.dtype))
    with pytest.raises(EngineError, match="a table of 1 tasks needs as many rows of its layout"):
        TaskTable(layout, ("a",), np.zeros(1, engine_for("history").layout.dtype))


def test_a_table_of_another_stream_spec_is_refused() -> None:
    other = TaskTable.empty(engine_for("regression").layout, ["a"])
    with pytest.raises(EngineError, match=r"the table has layout .* this engine .*; make or decode"):
        engine_for("balanced").fold(other, four_events(), theta("balanced", 1))


@pytest.mark.parametrize("prior", [(0.5, 0.5), (0.0, 0.25, 0.25, 0.25, 0.25), (np.nan,) * 5, (0.2,) * 6])
def test_a_prior_that_is_none_is_refused(prior: tuple[float, float] | tuple[float, ...]) -> None:
    with pytest.raises(EngineError, match=r"Meta\.prior must be 5 numbers above 0 that sum to 1"):
        Meta(1, {}, prior)


def test_a_version_before_the_first_is_refused() -> None:
    with pytest.raises(EngineError, match=r"Meta\.version must be 0 .*got -1"):
        Meta(-1, {})


def test_a_theta_of_more_classes_is_refused() -> None:
    engine, more = engine_for("balanced"), varied(SMALL, target=Classification(("x", "y", "z", "w")))
    table = TaskTable.empty(engine.layout, ["a"])
    with pytest.raises(EngineError, match="theta 3 has 4 label rates, this problem 3 outputs"):
        engine.fold(table, four_events(), Meta(3, Engine(more).learner.init(0)))
