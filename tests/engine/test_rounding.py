"""Half precision: what is rounded, what never is, and that rows are the same bits wherever they come from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.detectors.detectors import Never
from engine.features.columns import Category, Cyclic, Encoded, Numeric, Text
from engine.features.encoder import Features
from engine.features.history import History
from engine.learners.matching import MatchingLearner
from engine.stream.fold import Engine
from engine.stream.rounding import own_places, round_all, rounded
from engine.stream.spec import Memory, StreamSpec
from engine.stream.table import RowError, TaskTable
from engine.targets import Regression
from engine.types import EngineError, Meta, Outcome
from streams.stores.lmdb import LmdbStore
from tests.engine.driving import (
    SMALL,
    SPECS,
    Driven,
    Event,
    actions,
    batch_of,
    drive,
    fold_in_cuts,
    label,
    long_stream,
    observation,
    sequence,
    theta,
)
from tests.varied import varied

VERSIONS = [(0, 0), (7, 1), (23, 2), (40, 5)]
KINDS = ("balanced", "unbalanced", "river", "history", "regression with history", "auto rate")
every_kind = pytest.mark.parametrize("name", KINDS)
HALF = replace(SMALL.memory, precision="half")


@cache
def half(name: str) -> Engine:
    return Engine(varied(SPECS[name], memory=replace(SPECS[name].memory, precision="half")))


def uneven(events: list[Event]) -> list[Event]:
    """The same events, with numbers of more digits than half precision keeps."""
    return [e if e.x is None else e._replace(x=(e.x[0] / 3.0 + 0.1, *e.x[1:])) for e in events]


def have_low_bits(numbers: Any) -> Any:
    return np.ascontiguousarray(numbers).view(np.uint32) & np.uint32(0xFFFF) != 0


any_float = st.floats(width=32) | st.floats(-1000, 1000, width=32)


@example(np.finfo(np.float32).max.item())
@example(-np.finfo(np.float32).max.item())
@example(1.00390625)
@example(1.01171875)
@example(-0.0)
@given(any_float)
def test_a_number_is_rounded_as_torch_rounds_to_bfloat16_but_stays_finite(value: float) -> None:
    expected = torch.tensor(value).to(torch.bfloat16).float().item()
    if math.isinf(expected) and math.isfinite(value):
        expected = math.copysign(float.fromhex("0x1.fep127"), value)
    x = np.array([[value]], np.float32)
    round_all(x, np.zeros(1, np.int64))
    python: Any = getattr(rounded, "py_func", rounded)
    for found in (x[0, 0], rounded(value), python(value)):
        assert np.float32(found).tobytes() == np.float32(expected).tobytes()
    assert not have_low_bits(x).any()


# Wherever a row comes from


@every_kind
@settings(max_examples=25)
@given(script=st.lists(actions, max_size=70), cuts=st.lists(st.integers(1, 69), max_size=12))
def test_any_cut_into_batches_gives_the_same_bits(name: str, script: list[Any], cuts: list[int]) -> None:
    events = uneven([*sequence(script, name), observation(1)])
    whole = fold_in_cuts(name, events, [], VERSIONS, 3, half(name))
    cut = fold_in_cuts(name, events, cuts, VERSIONS, 3, half(name))
    assert cut.same_bits(whole) == []


@every_kind
def test_rows_that_come_from_a_store_fold_on_to_the_bits_of_those_in_memory(
    name: str, tmp_path: Path
) -> None:
    engine, events = half(name), uneven(long_stream(4, 300, 3, name))
    whole = fold_in_cuts(name, events, [40, 90, 200], VERSIONS, 3, engine)
    store, driven = LmdbStore(tmp_path, 0.01, False), drive(engine, 3)
    for start, stop in ((0, 7), (7, 23), (23, 40), (40, 90), (90, 200), (200, 300)):
        driven.table = store.load(engine.layout, driven.table.ids)
        driven.fold(events[start:stop], theta(name, max(v for p, v in VERSIONS if p <= start)))
        store.swap(driven.table)
    store.close()
    driven.table.rows["revision"] = 0
    driven.table.rows["checksum"] = 0
    assert driven.same_bits(whole) == []


@every_kind
def test_what_was_served_is_what_is_scored(name: str) -> None:
    driven = fold_in_cuts(name, uneven(long_stream(2, 300, 3, name)), [50, 120], VERSIONS, 3, half(name))
    events = [(e.task, e.id) for e in uneven(long_stream(2, 300, 3, name))]
    codes, predictions = driven.outcome("code"), driven.outcome("prediction")
    served = {events[n]: predictions[n].tobytes() for n in np.flatnonzero(codes == Outcome.PREDICTED)}
    scored = np.flatnonzero(codes == Outcome.SCORED).tolist()
    assert len(scored) > 30
    assert all(served[events[n]] == predictions[n].tobytes() for n in scored)


# What is rounded, and what never is


@dataclass(frozen=True)
class Code:
    """A column of a user's own, whose numbers mean what they are."""

    name: str = "code"
    width: int = 1

    def encode(self, values: Sequence[Any]) -> Encoded:
        return Encoded(np.array(values, np.float32).reshape(-1, 1), {})


OF_ALL_KINDS = varied(
    SMALL,
    features=Features((
        Numeric("amount"), Category("shop", buckets=65_536, embedding=2), Cyclic("hour", 24.0),
        Text("text", buckets=4096, embedding=2), Numeric("year"), Code(),
    )),
    history=History(by=("shop",), numbers=("amount", "year"), slots=3),
    memory=replace(HALF, exact=("year",)),
    detector=Never(),
)  # fmt: skip
AMOUNT, HOUR, YEAR = [0], [2, 3], 68


def folded(spec: StreamSpec, y: Sequence[float]) -> Driven:
    """Observations of every kind of column, of which the last is not labelled, under no theta and then under one."""
    rng = np.random.default_rng(0)
    rows = [
        {
            "amount": rng.normal(),
            "shop": f"shop {rng.integers(9)}",
            "hour": rng.uniform(0, 24),
            "text": f"bought {rng.integers(99)}",
            "year": 2013 + n % 3,
            "code": 40_001 + n,
        }
        for n in range(40)
    ]
    x = spec.problem.features.encode(rows).x
    driven, events = drive(Engine(spec)), list[Event]()
    for n, row in enumerate(x.tolist()):
        events.append(observation(1 + n, n, tuple(row)))
        events += [label(1 + n, y[n % len(y)], n)] if n < 39 else []
    meta = Meta(1, driven.engine.learner.init(0))
    for begin, end, of in ((0, 9, Meta(0, {})), (9, 10, meta), (10, len(events), meta)):
        batch = batch_of(events[begin:end], begin, width=x.shape[1])
        result = driven.engine.fold(driven.table, batch, of)
        driven.table = result.states
        driven.outcomes.append(result.outcomes)
    return driven


def test_numbers_are_rounded_and_ids_of_categories_and_texts_and_other_columns_are_as_they_came() -> None:
    single = folded(replace(OF_ALL_KINDS, memory=SMALL.memory), [0.0, 1.0, 2.0])
    driven = folded(OF_ALL_KINDS, [0.0, 1.0, 2.0])
    own = OF_ALL_KINDS.problem.features.width
    assert own_places(OF_ALL_KINDS).tolist() == [*AMOUNT, *HOUR]
    for name in ("support_x", "pending_x"):
        before, after = single.table.rows[name][0], driven.table.rows[name][0]
        short = torch.from_numpy(before[:, AMOUNT + HOUR]).bfloat16().float().numpy()
        assert after[:, AMOUNT + HOUR].tolist() == short.tolist() != before[:, AMOUNT + HOUR].tolist()
        exact = [place for place in range(own) if place not in AMOUNT + HOUR]
        assert after[:, exact].tobytes() == before[:, exact].tobytes()
        assert have_low_bits(after[:, exact]).any()


def test_history_is_rounded_but_for_what_the_last_label_was() -> None:
    driven, past = folded(OF_ALL_KINDS, [0.0, 1.0, 2.0]), OF_ALL_KINDS.problem.history_columns
    single = folded(replace(OF_ALL_KINDS, memory=SMALL.memory), [0.0, 1.0, 2.0])
    places = [place for place in range(past.start, past.stop) if place != past.last]
    assert past.scales == [*range(past.start, past.last), *range(past.by_counts, past.stop), *past.plain]
    assert sorted(past.scales) == places
    for name in ("support_x", "pending_x"):
        before, after = single.table.rows[name][0], driven.table.rows[name][0]
        assert not have_low_bits(after[:, places]).any()
        assert have_low_bits(before[:, places]).any()
        assert after[:, past.last].tolist() == before[:, past.last].tolist()
    assert not have_low_bits(driven.outcomes[-1].learned_x[:, places]).any()


def test_values_of_a_regression_may_lie_far_from_zero_and_are_exact() -> None:
    spec = varied(OF_ALL_KINDS, target=Regression(2000.0, 2100.0))
    driven, past = folded(spec, [2013.7, 2014.1, 2090.3]), spec.problem.history_columns
    rows = driven.table.rows[0]
    assert rows["pending_x"][0, past.last] == np.float32(2090.3) == rows["last_labels"][0]
    means = [first + 1 for first in past.sets]
    assert set(past.scales) == set(range(past.start, past.stop)) - {past.last, *means}
    assert rows["pending_x"][0, means[0]] == np.float32(rows["label_rates"][0, 1])
    assert have_low_bits(rows["support_x"][:, means]).any()


def test_fast_parameters_are_rounded_before_anything_is_predicted_from_them() -> None:
    single = folded(replace(OF_ALL_KINDS, memory=SMALL.memory), [0.0, 1.0, 2.0]).table.rows["fast"]
    driven = folded(OF_ALL_KINDS, [0.0, 1.0, 2.0])
    assert have_low_bits(single).any()
    assert driven.table.rows["fast"].any()
    assert not have_low_bits(driven.table.rows["fast"]).any()


def test_of_a_theta_that_is_not_finite_rows_keep_rounded_numbers() -> None:
    driven = drive(half("balanced"))
    broken = theta("balanced", 1)
    name, value = next((k, v) for k, v in broken.params.items() if k in driven.engine.learner.fast_shapes)
    params = {**broken.params, name: torch.full_like(value, math.inf)}
    driven.fold([observation(1), label(1, 1.0)], replace(broken, params=params))
    driven.fold([observation(2)], theta("balanced", 2))
    assert driven.not_finite
    assert not have_low_bits(driven.table.rows["fast"]).any()


def test_a_learner_that_keeps_labels_keeps_them_as_they_are() -> None:
    assert len(half("balanced").rounded_fast)
    spec = varied(SMALL, target=Regression(2000.0, 2100.0), memory=HALF)
    assert not len(Engine(spec, MatchingLearner(spec.problem, width=4)).rounded_fast)


def test_the_largest_number_stays_finite_and_a_missing_one_missing() -> None:
    largest = np.finfo(np.float32).max.item()
    driven = drive(half("history"))
    driven.fold([observation(1, x=(largest, 1.0)), observation(2, x=(math.nan, 1.0))], Meta(0, {}))
    kept = driven.table.rows["pending_x"][0, :, 0]
    assert np.isfinite(kept[0])
    assert np.isnan(kept[1])


def test_a_read_is_what_a_fold_would_serve() -> None:
    driven = fold_in_cuts(
        "history", uneven(long_stream(1, 200, 1, "history")), [90], [(0, 1)], 1, half("history")
    )
    x, now = np.array([[1 / 3, 2.0]], np.float32), driven.table.rows["clock_s"] + 1.0
    said = driven.engine.predict(driven.table, x, theta("history", 1), now)
    event = observation(99_999, now.item(), tuple(x[0].tolist()))
    served = driven.fold([event], theta("history", 1)).outcomes.prediction[0]
    assert np.stack(said)[:, 0].tobytes() == served.tobytes()


def test_a_stored_row_has_a_word_less_for_each_number_of_each_observation() -> None:
    spec = varied(SMALL, features=Features(tuple(Numeric(f"n{n}") for n in range(32))), history=History())
    sizes = []
    for memory in (SMALL.memory, HALF):
        driven = drive(Engine(replace(spec, memory=memory)))
        rng = np.random.default_rng(0)
        events = [observation(1 + n, n, tuple(rng.normal(size=32).tolist())) for n in range(3)]
        events += [label(1 + n, 1.0, n) for n in range(2)]
        batch = batch_of(events, width=32)
        table = driven.engine.fold(driven.table, batch, Meta(1, driven.engine.learner.init(0))).states
        sizes.append(len(table.encode(pack=True)[0]))
    assert sizes[0] - sizes[1] > 2 * 3 * 32


def test_rows_of_another_precision_are_refused_by_name() -> None:
    stored = TaskTable.empty(half("balanced").layout, ["a"]).encode()
    with pytest.raises(RowError, match=r"task 'a' has layout .* run `reptide rebuild`"):
        TaskTable.decode(Engine(SMALL).layout, ["a"], stored)


@pytest.mark.parametrize("name", ["b", "c"])
def test_what_is_exact_must_be_one_of_the_numbers(name: str) -> None:
    features = Features((Numeric("a"), Category("b")))
    with pytest.raises(EngineError, match=rf"memory.exact: '{name}' is not one of the numbers \['a'\]"):
        varied(SMALL, features=features, memory=replace(HALF, exact=(name,)))


def test_there_is_no_third_precision() -> None:
    with pytest.raises(EngineError, match="precision must be 'single' or 'half', got 'eighth'"):
        Memory(precision="eighth")  # type: ignore[arg-type]
