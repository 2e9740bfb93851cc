"""Encoders: values by hand; and total: whatever JSON brings is at worst a fault, never an exception."""

from __future__ import annotations

import math
from collections import defaultdict
from decimal import Decimal
from hashlib import blake2b
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.features.columns import (
    MAX_BUCKETS,
    MAX_TEXT_CHARACTERS,
    MAX_TEXT_IDS,
    STANDARDISED_LIMIT,
    Category,
    Cyclic,
    Numeric,
    Text,
)
from engine.features.encoder import Features
from engine.features.front_end import FrontEnd
from engine.features.history import MOST_CLASSES, HistoryColumns
from engine.features.stored import stored_numbers
from engine.types import EngineError

EVERY_COLUMN = Features(
    (
        Numeric("n"),
        Numeric("maybe", optional=True),
        Category("c", buckets=16, embedding=3),
        Cyclic("h", 24.0),
        Text("t", buckets=64, embedding=5),
    )
)
GOOD = {"n": 1.0, "maybe": None, "c": "NL", "h": 6, "t": "abc"}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
json_rows = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("n", "maybe", "c", "h", "t", "other"), json_values)
)


@given(st.lists(json_rows, max_size=5))
def test_any_json_is_encoded_or_a_fault_and_never_raises(rows: list[Any]) -> None:
    encoded = EVERY_COLUMN.encode(rows)
    assert encoded.x.shape == (len(rows), EVERY_COLUMN.width)
    assert encoded.x.dtype == np.float32
    assert set(encoded.faults) <= set(range(len(rows)))
    sound = np.delete(encoded.x, 1, axis=1)  # only the optional number may be missing
    assert np.isfinite(sound).all()
    assert not encoded.x[list(encoded.faults)].any()


@given(st.lists(json_rows, min_size=2, max_size=5))
def test_a_row_is_encoded_the_same_whatever_rows_stand_beside_it(rows: list[Any]) -> None:
    together = EVERY_COLUMN.encode(rows)
    for n, row in enumerate(rows):
        alone = EVERY_COLUMN.encode([row])
        assert alone.x[0].tobytes() == together.x[n].tobytes()
        assert alone.faults.get(0) == together.faults.get(n)


@given(st.lists(json_rows, max_size=5), st.lists(st.floats() | st.just(1.5), min_size=5, max_size=5))
def test_columns_are_encoded_to_the_bits_of_their_rows(rows: list[Any], numbers: list[float]) -> None:
    for n, maybe in zip(rows, numbers, strict=False):
        n["maybe"] = maybe
    by_row = EVERY_COLUMN.encode(rows)
    columns: list[Any] = [[row.get(column.name) for row in rows] for column in EVERY_COLUMN.columns]
    for exact in (columns[1], np.array(columns[1], np.float64)):
        columns[1] = exact
        by_column = EVERY_COLUMN.encode_columns(columns, len(rows))
        assert by_column.x.tobytes() == by_row.x.tobytes()
        assert by_column.faults.keys() == by_row.faults.keys()
    both = Features((Numeric("maybe", optional=True), Numeric("maybe")))
    arrays = [np.array(columns[1], np.float64)] * 2
    assert both.encode_columns(arrays, len(rows)).x.tobytes() == both.encode(rows).x.tobytes()


AWKWARD = [[1.0], [1.0, 2.0], [], [[1.0]], 10**400, 10**5000, -(10**5000), 1e39, b"1"]


@pytest.mark.parametrize("value", AWKWARD, ids=range(len(AWKWARD)))
@pytest.mark.parametrize("field", ["n", "maybe", "c", "h", "t"])
def test_values_that_numpy_or_python_would_trip_over_are_faults_or_categories(
    field: str, value: object
) -> None:
    encoded = EVERY_COLUMN.encode([{**GOOD, field: value}, GOOD])
    assert field in encoded.faults.get(0, field)
    assert 1 not in encoded.faults
    if isinstance(value, list | bytes):
        assert 0 in encoded.faults


def test_no_rows_are_encoded_as_no_rows() -> None:
    assert EVERY_COLUMN.encode([]).x.shape == (0, EVERY_COLUMN.width)


def test_a_number_is_stored_as_it_is() -> None:
    encoded = Features((Numeric("n"),)).encode([{"n": 3}, {"n": -2.5}, {"n": np.float32(0.1)}])
    assert encoded.x.ravel().tolist() == [3.0, -2.5, pytest.approx(0.1)]
    assert encoded.faults == {}


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("nine", "field 'n': expected a number, got 'nine'"),
        (True, "field 'n': expected a number, got bool"),
        (None, "field 'n': expected a number, got NoneType"),
        (math.inf, "field 'n': inf is not a finite number"),
        (math.nan, "field 'n': nan is not a finite number"),
        (4e38, "field 'n': 4e+38 is not a finite number"),
        (np.float32("nan"), "field 'n': nan is not a finite number"),
        (np.complex64(1), "field 'n': expected a number, got complex64"),
        ([1.0], "field 'n': expected a number, got list"),
    ],
)
def test_a_fault_names_the_field_and_what_is_wrong(value: Any, reason: str) -> None:
    assert Features((Numeric("n"),)).encode([{"n": value}]).faults == {0: reason}


def test_a_missing_field_is_called_missing() -> None:
    assert EVERY_COLUMN.encode([{**GOOD}, {k: v for k, v in GOOD.items() if k != "h"}]).faults == {
        1: "field 'h' is missing"
    }


@pytest.mark.parametrize("beside", [[], [{"n": 2.0}]])
def test_a_field_that_a_mapping_would_make_up_is_missing_and_not_made(beside: list[Any]) -> None:
    row = defaultdict(float, n=1.0)
    encoded = Features((Numeric("n"), Numeric("maybe", optional=True))).encode([row, *beside])
    assert encoded.x[0].tolist() == pytest.approx([1.0, math.nan], nan_ok=True)
    assert dict(row) == {"n": 1.0}


def test_the_first_of_several_faults_is_told() -> None:
    assert EVERY_COLUMN.encode([{**GOOD, "n": "x", "t": 1}]).faults[0].startswith("field 'n'")


def test_a_missing_optional_number_is_stored_as_nan_and_read_as_the_mean_with_a_flag() -> None:
    features = Features((Numeric("n", optional=True),))
    encoded = features.encode([{"n": None}, {}, {"n": 7.0}])
    assert encoded.faults == {}
    assert np.isnan(encoded.x[:2]).all()
    front = features.front_end()
    front.mean.fill_(5.0)
    front.std.fill_(2.0)
    assert front(torch.from_numpy(encoded.x)).tolist() == [[0.0, 1.0], [0.0, 1.0], [1.0, 0.0]]


@pytest.mark.parametrize("beside", [7.0, "x"])
def test_nan_is_a_missing_optional_number(beside: float | str) -> None:
    encoded = Features((Numeric("n", optional=True),)).encode([{"n": math.nan}, {"n": beside}])
    assert np.isnan(encoded.x[0]).all()
    assert 0 not in encoded.faults


def test_a_missing_text_is_an_empty_one() -> None:
    features = Features((Text("t"),))
    encoded = features.encode([{"t": ""}, {"t": None}, {}, {"t": "word"}])
    assert encoded.faults == {}
    assert np.count_nonzero(encoded.x[0]) == 1
    assert (encoded.x[:3] == encoded.x[0]).all()
    assert (encoded.x[3] != encoded.x[0]).any()


def test_numbers_are_standardised_by_the_model_and_clipped() -> None:
    front = Features((Numeric("a"), Numeric("b"))).front_end()
    front.mean.copy_(torch.tensor([1.0, 0.0]))
    front.std.copy_(torch.tensor([2.0, 1.0]))
    dense = front(torch.tensor([[5.0, 3e38], [-1.0, -3e38]]))
    assert dense.tolist() == [[2.0, STANDARDISED_LIMIT], [-1.0, -STANDARDISED_LIMIT]]


def test_standardisation_belongs_to_theta() -> None:
    assert {"mean", "std"} <= set(EVERY_COLUMN.front_end().state_dict())


def test_equal_categories_share_an_id_and_a_missing_one_has_its_own() -> None:
    x = (
        Features((Category("c", buckets=1000),))
        .encode([{"c": "a"}, {"c": "b"}, {"c": "a"}, {"c": None}, {}])
        .x
    )
    ids = x.ravel().tolist()
    assert ids[0] == ids[2]
    assert ids[3] == ids[4]
    assert len({ids[0], ids[1], ids[3]}) == 3
    assert all(0 <= id < 1000 and id == int(id) for id in ids)


ONE_CATEGORY: dict[str, list[Any]] = {
    "a whole number": [
        1,
        1.0,
        "1",
        "1.0",
        np.int64(1),
        np.uint8(1),
        np.float32(1),
        Decimal("1"),
        Decimal("1.00"),
    ],
    "a large one": [10**16, 1e16, "10000000000000000", "1e+16", Decimal("1E+16")],
    "zero": [0, 0.0, -0.0, "0", "0.0", "-0.0", Decimal("-0")],
    "below zero": [-7, -7.0, "-7", "-7.0"],
    "a fraction": [0.5, "0.5", np.float32(0.5), Decimal("0.50")],
    "true": [True, "true", "True", "TRUE", np.True_],
    "false": [False, "false", "False", np.False_],
    "missing": [None, math.nan, np.float32("nan"), Decimal("NaN"), Decimal("sNaN"), ""],
}
OTHERS: list[Any] = [
    "01",
    "1.00",
    "1.10",
    "1e5",
    "v1.0",
    "None",
    "nan",
    "+1",
    "1_0.0",
    "None.0",
    math.inf,
    10**5000,
    1e300,
]


def test_a_category_is_the_same_whatever_wrote_it() -> None:
    column = Category("c", buckets=2**24)
    for name, values in ONE_CATEGORY.items():
        encoded = column.encode(values)
        assert encoded.faults == {}
        assert len(set(encoded.x[:, 0].tolist())) == 1, name


def test_categories_of_other_values_are_others_whatever_came_first() -> None:
    values = [*(same[0] for same in ONE_CATEGORY.values()), *OTHERS]
    column = Category("c", buckets=2**24)
    together = column.encode(values).x[:, 0].tolist()
    assert len(set(together)) == len(values)
    assert column.encode(values[::-1]).x[::-1, 0].tolist() == together
    assert [column.encode([value]).x[0, 0] for value in values] == together


@given(st.text())
def test_a_text_that_is_no_number_and_no_boolean_stands_for_itself(text: str) -> None:
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    own = int.from_bytes(digest, "little") % 2**20
    special = not text or text.lower() in ("true", "false") or text.endswith(".0")
    assert special or Category("c", buckets=2**20).encode([text]).x[0, 0] == own


@given(st.integers() | st.floats(allow_nan=False) | st.booleans() | st.integers().map(Decimal))
def test_a_value_and_what_python_writes_of_it_are_one_category(value: Any) -> None:
    x = Category("c", buckets=2**24).encode([value, str(value)]).x
    assert x[0, 0] == x[1, 0]


@pytest.mark.parametrize("value", [Decimal("1E+999999999"), Decimal("1E-999999999"), Decimal("Infinity")])
def test_a_number_too_long_to_write_out_is_a_category_all_the_same(value: Decimal) -> None:
    assert Category("c").encode([value]).faults == {}


def test_a_category_is_hashed_alike_in_every_process() -> None:
    assert Features((Category("c", buckets=256),)).encode([{"c": "NL"}]).x[0, 0] == 7


def test_the_clock_is_a_circle() -> None:
    x = Features((Cyclic("h", 24.0),)).encode([{"h": h} for h in (0, 6, 12, 18, 24, 30)]).x
    expected = [[0, 1], [1, 0], [0, -1], [-1, 0], [0, 1], [1, 0]]
    assert x == pytest.approx(np.array(expected, np.float32), abs=1e-6)


@pytest.mark.parametrize("value", [1e308, -1e308, 1.7e308])
def test_even_a_huge_number_has_a_place_on_the_circle(value: float) -> None:
    x = Features((Cyclic("h", 0.5),)).encode([{"h": value}]).x
    assert np.hypot(*x[0]) == pytest.approx(1.0)


def test_text_is_a_set_of_hashed_character_ngrams() -> None:
    features = Features((Text("t", buckets=4096, n=3),))
    x = features.encode([{"t": "Cat"}, {"t": "cAT"}, {"t": "cat cat cat"}, {"t": ""}]).x
    assert (x[0] > 0).sum() == 3  # " ca", "cat", "at "
    assert x[0].tolist() == x[1].tolist()
    assert set(x[0]) <= set(x[2])
    assert (x[3] > 0).sum() == 1
    assert x.max() < 4096


def test_long_text_is_thinned_evenly_and_huge_text_is_cut() -> None:
    features = Features((Text("t"),))
    rng = np.random.default_rng(0)
    letters = "".join(rng.choice(list("abcdefghijklmnop"), MAX_TEXT_CHARACTERS))
    x = features.encode([{"t": letters}, {"t": letters + "zzzz" * 1000}]).x
    assert (x[0] > 0).all()
    assert x.shape == (2, MAX_TEXT_IDS)
    assert (x[0] == x[1]).mean() > 0.9


def test_the_front_end_embeds_ids_and_averages_texts() -> None:
    features = Features((Category("c", buckets=8, embedding=2), Text("t", buckets=16, embedding=3)))
    front, x = features.front_end(), np.zeros((2, 1 + MAX_TEXT_IDS), np.float32)
    x[:, 0], x[0, 1:3] = [3, 5], [4, 9]
    dense = front(torch.from_numpy(x))
    category, text = (module.get_parameter("weight") for module in front.embeddings)
    assert dense.shape == (2, front.width)
    assert torch.equal(dense[:, :2], category[[3, 5]])
    assert torch.allclose(dense[0, 2:], (text[4] + text[9]) / 2)
    assert not dense[1, 2:].any()


def test_the_front_end_reads_any_leading_shape() -> None:
    front = EVERY_COLUMN.front_end()
    x = torch.from_numpy(EVERY_COLUMN.encode([GOOD] * 6).x)
    assert torch.equal(front(x.view(2, 3, -1)), front(x).view(2, 3, -1))
    assert front(x[:0]).shape == (0, front.width)


@pytest.mark.parametrize("column", [Category("c", buckets=1), Text("c", buckets=MAX_BUCKETS + 1)])
def test_buckets_that_float32_cannot_tell_apart_are_refused(column: Category | Text) -> None:
    with pytest.raises(EngineError, match="field 'c': buckets must be from 2"):
        Features((column,))


def test_a_period_that_is_no_circle_is_refused() -> None:
    with pytest.raises(EngineError, match="field 'h': period must be positive"):
        Features((Cyclic("h", 0.0),))


def test_what_was_encoded_is_sound_and_its_places_are_known() -> None:
    x, stored = (
        EVERY_COLUMN.encode([GOOD, {**GOOD, "c": None, "h": -1e9, "t": ""}, {}]).x,
        stored_numbers(EVERY_COLUMN),
    )
    assert not stored.unsound(x).any()
    assert stored.buckets.tolist() == [2, *range(5, 5 + MAX_TEXT_IDS)]
    assert stored.high[stored.buckets[[0, 1, -1]]].tolist() == [15, 63, 63]
    assert stored.field == ("n", "maybe", "c", "h", "h", *["t"] * MAX_TEXT_IDS)
    assert stored_numbers(Features(())).buckets.tolist() == []


def test_features_know_their_names_and_width() -> None:
    assert EVERY_COLUMN.names == {"n", "maybe", "c", "h", "t"}
    assert EVERY_COLUMN.width == 1 + 1 + 1 + 2 + MAX_TEXT_IDS


# A task's own past


def past_of(classes: int | None, *values: float) -> torch.Tensor:
    """A stored row that is history alone: these values, and zeros behind them."""
    columns = HistoryColumns(0, classes or 1, classes is None, (), ())
    row = torch.zeros(columns.stop)
    row[: len(values)] = torch.tensor(values)
    return row


def read_of(classes: int | None, row: torch.Tensor, **buffers: list[float] | float) -> list[float]:
    """What the front end makes of a stored row that is history alone, but for the numbers it standardises."""
    columns = HistoryColumns(0, classes or 1, classes is None, (), ())
    front = FrontEnd(Features(()), classes, columns)
    for name, value in buffers.items():
        getattr(front, name).copy_(torch.tensor(value))
    return list(front(row)[len(columns.plain) :].tolist())


@pytest.mark.parametrize("rate", [[0.5, 0.5], [0.97, 0.03]])
def test_a_task_without_labels_stands_at_zero_whatever_the_rate_of_all_tasks(rate: list[float]) -> None:
    assert read_of(2, past_of(2), label_rate=rate) == pytest.approx([0] * 5, abs=1e-6)
    assert read_of(3, past_of(3), label_rate=[0.5, 0.3, 0.2]) == pytest.approx([0] * 12, abs=1e-6)
    assert read_of(None, past_of(None, *[0.0] * 6, math.nan), label_mean=7.0, label_std=2.0) == [0] * 4


def test_counts_of_two_classes_become_log_odds_above_those_of_all_tasks() -> None:
    dense = read_of(2, past_of(2, 1, 3, 0, 0, 0, 4, 2), label_rate=[0.8, 0.2])
    expected = [(1 + 0.8, 3 + 0.2), (0.8, 0.2), (0.8, 4.2)]
    odds = [math.log(one / none) - math.log(0.2 / 0.8) for none, one in expected]
    assert dense == pytest.approx([*odds, 0.0, 1.0], abs=1e-5)


def test_counts_of_more_classes_become_log_rates_above_those_of_all_tasks() -> None:
    rate = [0.5, 0.3, 0.2]
    dense = read_of(3, past_of(3, 0, 0, 9, *[0] * 6, 3), label_rate=rate)
    logs = [math.log((n + p) / 10 / p) for n, p in zip([0, 0, 9], rate, strict=True)]
    assert dense == pytest.approx([*logs, *[0] * 6, 0, 0, 1], abs=1e-5)


def test_counts_and_means_of_a_regression_become_a_drawn_mean_in_standardised_units() -> None:
    dense = read_of(None, past_of(None, 4, 10, 0, 0, 1, 9, 8), label_mean=7.0, label_std=2.0)
    means = [(40 - 4 * 7) / 4.1 / 2, 0.0, (9 - 7) / 1.1 / 2]
    assert dense == pytest.approx([*means, 0.5], rel=1e-5)


def test_no_label_however_absurd_owns_what_is_said_of_the_past() -> None:
    dense = read_of(None, past_of(None, 4, 1e9, 0, 0, 1, -1e9, 1e9), label_mean=7.0, label_std=2.0)
    assert dense == pytest.approx([STANDARDISED_LIMIT, 0.0, -STANDARDISED_LIMIT, STANDARDISED_LIMIT])


def test_the_mean_of_a_million_labels_far_from_zero_is_not_lost() -> None:
    dense = read_of(None, past_of(None, 1e6, 2013.5, 0, 0, 0, 0, 2013), label_mean=2013.0, label_std=1.0)
    assert dense[0] == pytest.approx(0.5, abs=1e-3)


def test_the_width_is_what_comes_out_with_a_past_by_categories_too() -> None:
    for classes in (2, 3, MOST_CLASSES + 1, None):
        features = Features(
            (Numeric("n", optional=True), Category("c", 8, 3), Cyclic("h", 24.0), Text("t", 16, 2))
        )
        own = features.width
        columns = HistoryColumns(own, classes or 1, classes is None, (1,), (0,))
        for wide in (0, classes or 1):
            front = features.front_end(classes, columns, wide)
            dense = front(torch.zeros(5, columns.stop))
            assert dense.shape == (5, front.width + wide)
