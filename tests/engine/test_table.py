"""Rows: what is written is what is read, and a row that is not sound is refused by name."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.detectors.detectors import Never, PageHinkley
from engine.detectors.river import River
from engine.features.columns import Numeric
from engine.features.encoder import Features
from engine.features.history import History
from engine.learners.gradient import GradientLearner
from engine.networks.mlp import mlp
from engine.stream.fold import Engine
from engine.stream.layout import layout_of, row_fingerprint
from engine.stream.spec import Memory, Policy
from engine.stream.table import RowError, TaskTable, checksums
from engine.targets import Classification, Regression
from tests.engine.driving import SMALL, SPECS, batch_of, engine_for, fold_in_cuts, long_stream, theta
from tests.varied import varied

every_spec = pytest.mark.parametrize("name", SPECS)


def folded(name: str) -> TaskTable:
    return fold_in_cuts(name, long_stream(1, 200, 3, name), [], [(0, 1)], 3).table


@every_spec
def test_what_is_encoded_is_decoded_to_the_same_bits(name: str) -> None:
    table = folded(name)
    again = TaskTable.decode(table.layout, table.ids, table.encode())
    assert again.ids == table.ids
    for field in set(table.rows.dtype.names or ()) - {"checksum"}:
        assert again.rows[field].tobytes() == table.rows[field].tobytes()
    assert again.encode() == table.encode()


def test_as_the_next_revision_rows_are_encoded_where_they_lie_and_are_what_they_were_after_it() -> None:
    table, expected = folded("balanced"), folded("balanced")
    expected.rows["revision"] += 1
    before = table.encode()
    with table.next_revision() as written:
        assert written == expected.encode()
        assert np.shares_memory(np.frombuffer(written[1], np.uint8), table.rows.view(np.uint8))
    assert table.encode() == before


def test_encoding_changes_no_row() -> None:
    table = folded("balanced")
    before = table.rows.tobytes()
    table.encode()
    assert table.rows.tobytes() == before


def test_decoded_rows_can_be_folded_on() -> None:
    table = folded("balanced")
    again = TaskTable.decode(table.layout, table.ids, table.encode())
    assert again.rows.flags.writeable


def test_a_task_the_store_does_not_know_is_a_task_never_seen() -> None:
    layout, stored = engine_for("balanced").layout, folded("balanced").encode()
    table = TaskTable.decode(layout, ["a", "b", "c"], [None, stored[1], None])
    blank = TaskTable.empty(layout, ["a"]).rows
    assert table.rows[[0]].tobytes() == table.rows[[2]].tobytes() == blank.tobytes()
    assert table.rows["seq"][1] > 0


def test_a_task_never_seen_is_all_zeros_but_for_the_fingerprint() -> None:
    layout = engine_for("balanced").layout
    row = TaskTable.empty(layout, ["a"]).rows.tobytes()
    assert row[:8] == layout.fingerprint.to_bytes(8, "little")
    assert not any(row[8:])


@settings(max_examples=200)
@given(st.data())
def test_a_flipped_bit_anywhere_is_refused_and_the_task_named(data: st.DataObject) -> None:
    layout, stored = engine_for("balanced").layout, ROWS
    at = data.draw(st.integers(0, layout.bytes_per_task - 1))
    damaged = bytearray(stored[1])
    damaged[at] ^= 1 << data.draw(st.integers(0, 7))
    reason = "has layout" if at < 8 else "is damaged"
    with pytest.raises(RowError, match=rf"row of task 'second' {reason}.*reptide rebuild"):
        TaskTable.decode(layout, ["first", "second", "third"], [stored[0], bytes(damaged), stored[2]])


ROWS = [bytes(row) for row in folded("balanced").encode()]


@pytest.mark.parametrize("kept", [0, 1, 7, 8, 100, -1])
def test_a_row_cut_short_is_refused_and_the_task_named(kept: int) -> None:
    layout = engine_for("balanced").layout
    with pytest.raises(
        RowError, match=r"row of task 'cut' has \d+ bytes instead of \d+; .*restore the store"
    ):
        TaskTable.decode(layout, ["cut"], [ROWS[0][:kept]])


def test_a_row_with_something_after_it_is_refused() -> None:
    with pytest.raises(RowError, match="bytes instead of"):
        TaskTable.decode(engine_for("balanced").layout, ["long"], [ROWS[0] + b"\0" * 8])


def test_a_row_of_another_stream_spec_is_refused_with_the_way_out() -> None:
    other = engine_for("regression").layout
    with pytest.raises(
        RowError, match=rf"task 'a' has layout .*{other.fingerprint:016x}; run `reptide rebuild`"
    ):
        TaskTable.decode(other, ["a"], [ROWS[0]])


def test_two_rows_swapped_in_place_are_still_two_sound_rows_but_words_swapped_inside_are_not() -> None:
    row, layout = bytearray(ROWS[0]), engine_for("balanced").layout
    words = [bytes(row[i : i + 8]) for i in range(0, len(row), 8)]
    first = next(i for i in range(2, len(words) - 1) if words[i] != words[i + 1])
    words[first], words[first + 1] = words[first + 1], words[first]
    with pytest.raises(RowError, match="damaged"):
        TaskTable.decode(layout, ["a"], [b"".join(words)])


def test_taking_some_tasks_copies_them() -> None:
    table = folded("balanced")
    some = table.take(np.array([2, 0]))
    some.rows["seq"] = -1
    assert some.ids == ("task-2", "task-0")
    assert (table.rows["seq"] >= 0).all()


def forged(name: str, field: str, place: tuple[int, ...], value: float) -> list[bytes]:
    """Sound rows but for one number, with the checksum of what they hold."""
    table = folded(name)
    table.rows[field][place] = value
    return [bytes(row) for row in table.encode()]


@pytest.mark.parametrize("value", [3.0, -1.0, 1e9, 0.5, np.nan, np.inf])
@pytest.mark.parametrize(("field", "used"), [("support_y", "support_seq"), ("recent_y", "recent_status")])
def test_a_row_whose_labels_are_no_classes_is_refused_whatever_its_checksum(
    field: str, used: str, value: float
) -> None:
    table = folded("balanced")
    place = (
        1,
        int(np.flatnonzero(table.rows[used][1] == (1 if field == "recent_y" else table.rows["seq"][1]))[0]),
    )
    with pytest.raises(
        RowError, match="row of task 'b' holds a label that this stream spec cannot have made"
    ):
        TaskTable.decode(table.layout, "abc", forged("balanced", field, place, value))


@pytest.mark.parametrize("value", [4.0, -1.0, 0.5, np.nan])
@pytest.mark.parametrize(("field", "used"), [("support_x", "support_seq"), ("pending_x", "pending_order")])
def test_a_row_whose_categories_are_no_buckets_is_refused_whatever_its_checksum(
    field: str, used: str, value: float
) -> None:
    table = folded("history")
    slot = int(np.flatnonzero(table.rows[used][2])[0])
    with pytest.raises(
        RowError, match="row of task 'c' holds a bucket that this stream spec cannot have made"
    ):
        TaskTable.decode(table.layout, "abc", forged("history", field, (2, slot, 1), value))


def test_a_row_of_a_regression_whose_labels_are_no_numbers_is_refused() -> None:
    table = folded("regression")
    slot = int(np.flatnonzero(table.rows["support_seq"][0])[0])
    with pytest.raises(RowError, match="holds a label that this stream spec cannot have made"):
        TaskTable.decode(table.layout, "abc", forged("regression", "support_y", (0, slot), np.nan))


@settings(max_examples=60)
@given(data=st.data())
def test_a_row_of_any_bytes_with_a_right_checksum_is_refused_or_folded_without_reaching_outside(
    data: st.DataObject,
) -> None:
    name = data.draw(st.sampled_from(["balanced", "history", "wide", "regression with history"]))
    layout, row = engine_for(name).layout, bytearray(folded_rows(name)[0])
    for _ in range(data.draw(st.integers(1, 30))):
        at = data.draw(st.integers(8, layout.bytes_per_task - 8))
        row[at : at + 8] = data.draw(st.binary(min_size=8, max_size=8))
    sums = checksums(np.frombuffer(bytes(row), layout.dtype), layout.bytes_per_task)
    row[8:16] = sums.tobytes()
    try:
        table = TaskTable.decode(layout, ["a"], [bytes(row)])
        table.rows["position"], table.rows["incarnation"], table.rows["partition"] = 0, 0, 0
        engine_for(name).fold(table, batch_of(long_stream(3, 40, 1, name)), theta(name, 2))
    except RowError as refused:
        assert "row of task 'a'" in str(refused)


def test_a_label_of_a_remembered_id_of_no_known_status_is_looked_at_like_any_other() -> None:
    table = folded("balanced")
    table.rows["recent_status"][1, 0], table.rows["recent_y"][1, 0] = 7, -1e12  # an index far outside
    with pytest.raises(
        RowError, match=r"row of task '.*' holds a label that this stream spec cannot have made"
    ):
        TaskTable.decode(table.layout, table.ids, table.encode())


@pytest.mark.parametrize("labels", [-1, 2**63 - 1])
def test_a_label_count_that_cannot_be_counted_on_is_refused(labels: int) -> None:
    table = folded("balanced")
    table.rows["seq"][1] = labels
    with pytest.raises(RowError, match=r"row of task '.*' holds a label count that this stream spec"):
        TaskTable.decode(table.layout, table.ids, table.encode())


@cache
def folded_rows(name: str) -> list[bytes]:
    return [bytes(row) for row in folded(name).encode()]


CHANGES = {
    "a feature": varied(SMALL, features=Features((Numeric("a"), Numeric("c")))),
    "one more feature": varied(SMALL, features=Features((Numeric("a"), Numeric("b"), Numeric("c")))),
    "whether a feature is optional": varied(SMALL, features=Features((Numeric("a"), Numeric("b", True)))),
    "the classes": varied(SMALL, target=Classification(("x", "y", "w"))),
    "the order of the classes": varied(SMALL, target=Classification(("y", "x", "z"))),
    "the floor": varied(SMALL, target=Classification(("x", "y", "z"), floor=1e-4)),
    "a range": varied(SMALL, target=Regression(0.0, 1.0)),
    "another range": varied(SMALL, target=Regression(0.0, 2.0)),
    "the network": varied(SMALL, network=mlp),
    "what adapts": varied(SMALL, adapts="all"),
    "the support set": varied(SMALL, support=5),
    "support for interval": varied(SMALL, support=5, policy=replace(SMALL.policy, every=3)),
    "the pending observations": varied(SMALL, memory=replace(SMALL.memory, pending=4)),
    "the topics": varied(SMALL, topics=2),
    "the detector": varied(SMALL, detector=Never()),
    "a detector of the same width": varied(SMALL, detector=River("ADWIN", window=5)),
    "a linear part": varied(SMALL, wide=True),
    "a history": varied(SMALL, history=History()),
    "a history of a number": varied(SMALL, history=History(numbers=("a",))),
    "of another number": varied(SMALL, history=History(numbers=("b",))),
    "how many categories it keeps": varied(SMALL, history=History(slots=5)),
    "half precision": varied(SMALL, memory=replace(SMALL.memory, precision="half")),
    "half precision of another number": varied(
        SMALL, memory=replace(SMALL.memory, precision="half", exact=("a",))
    ),
}


def test_each_change_of_what_a_row_means_changes_the_fingerprint() -> None:
    prints = {name: row_fingerprint(spec, GradientLearner(spec.problem)) for name, spec in CHANGES.items()}
    prints["as it was"] = row_fingerprint(SMALL, GradientLearner(SMALL.problem))
    assert len(set(prints.values())) == len(prints)


def test_what_does_not_change_a_rows_meaning_keeps_its_fingerprint() -> None:
    same = varied(
        SMALL,
        inner=replace(SMALL.problem.inner, lr=0.7, steps=9),
        memory=replace(SMALL.memory, ttl_s=1.0),
        policy=replace(SMALL.policy, recent=1),
        detector=PageHinkley(min_instances=3, delta=0.0, threshold=9.0),
        share=0.1,
    )
    one, other = (row_fingerprint(spec, GradientLearner(spec.problem)) for spec in (same, SMALL))
    assert one == other


def test_bytes_per_task_are_fixed_by_the_spec_and_counted_by_hand() -> None:
    layout = layout_of(SMALL, GradientLearner(SMALL.problem))
    header = 8 * (
        1 + 1 + 1 + 1 + 1 + 1
    )  # fingerprint, checksum, revision, incarnation, partition, fast_version
    scalars = 8 * (1 + 10 + 1 + 1 + 1 + 1 + 1 + 3 + 3 + 1 + 5 + 3 * 7 + 5 + 6)  # position .. detector
    support, pending, recent = 8 * 8 * 3, 3 * 8 * (1 + 1 + 1 + 1 + 1 + 1), 8 * (64 + 64 + 1)
    # labels, their last id, events, their time and rates, rates of labels, last two and their times, a number, a slot
    history = 8 * (1 + 1 + 1 + 1 + 3 + 3 * 3 + 2 + 2 + 4 + 1) + 4 * (1 + 3)
    floats = 4 * (8 * 2 + 8 + 3 * 2 + 3 * 4 * 3 + 3 * 4 + 3 * 5 + 64 + 43)
    whole = header + scalars + support + pending + recent + history + floats
    assert layout.bytes_per_task == whole + -whole % 8
    assert all(len(row) == engine_for("balanced").layout.bytes_per_task for row in ROWS)


def test_bytes_per_task_grow_with_what_a_task_remembers() -> None:
    more = Engine(varied(SMALL, support=64, memory=Memory(pending=64), policy=Policy(every=16)))
    assert more.layout.bytes_per_task > engine_for("balanced").layout.bytes_per_task
