"""Rows without their zeros: the same bits come back, and bytes that were never packed reach nothing outside."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.stream.layout import HEAD_BYTES
from engine.stream.packed import BITS, WORD, packed, unpack
from engine.stream.table import RowError, TaskTable
from tests.engine.driving import SPECS, batch_of, engine_for, fold_in_cuts, long_stream, theta

ROW = np.dtype([("bytes", "V520")])
FIRST = HEAD_BYTES + 4
"""Where the first group of a packed row begins, behind a bit for each,"""
WORDS_OF = [BITS] * 7 + [24]
"""and how many words each has."""


def rows_of(words: Any) -> Any:
    return np.array(words, np.uint16).reshape(len(words), ROW.itemsize // WORD).view(ROW).reshape(-1)


def unpacked(stored: list[Any]) -> tuple[Any, Any]:
    rows = np.zeros(len(stored), ROW)
    return rows, unpack(stored, rows)


def some_rows(seed: int, share: float) -> Any:
    """Four rows of which that share of words is not zero."""
    draws = np.random.default_rng(seed)
    words = draws.integers(1, 2**16, (4, ROW.itemsize // WORD), dtype=np.uint16)
    return rows_of(words * (draws.random(words.shape) < share))


def kept_by(content: bytes) -> int:
    """Bytes of a packed row that its masks say are kept, the masks of groups included."""
    masks = np.unpackbits(np.frombuffer(content[HEAD_BYTES:FIRST], np.uint8), bitorder="little")
    place = FIRST
    for group in np.flatnonzero(masks[: len(WORDS_OF)]).tolist():
        mask = np.unpackbits(np.frombuffer(content[place : place + 4], np.uint8), bitorder="little")
        place += 4 + WORD * (int(mask[: WORDS_OF[group]].sum()) if not mask.all() else BITS)
    return place


@given(seed=st.integers(0, 2**32 - 1), share=st.sampled_from([0.0, 0.02, 0.3, 0.9, 0.97, 1.0]))
def test_what_is_packed_comes_back_to_the_same_bits_and_is_never_longer(seed: int, share: float) -> None:
    rows = some_rows(seed, share)
    stored = packed(rows)
    again, whole = unpacked(stored)
    assert whole.all()
    assert again.tobytes() == rows.tobytes()
    assert max(map(len, stored)) <= ROW.itemsize


def test_no_rows_are_packed_to_nothing() -> None:
    assert packed(rows_of([])) == []
    assert not len(unpacked([])[1])


def test_a_row_of_zeros_takes_its_head_and_a_bit_for_each_group() -> None:
    assert [len(row) for row in packed(some_rows(0, 0.0))] == [FIRST] * 4


def test_a_small_count_takes_one_word_and_the_bits_of_its_group() -> None:
    rows = some_rows(0, 0.0)
    rows.view(np.int64).reshape(4, -1)[:, 20] = 7
    assert [len(row) for row in packed(rows)] == [FIRST + 4 + WORD] * 4


def test_a_row_that_packing_would_not_shorten_is_left_as_it_is() -> None:
    rows = some_rows(0, 1.0)
    assert b"".join(packed(rows)) == rows.tobytes()


@settings(max_examples=300)
@given(st.lists(st.binary(max_size=ROW.itemsize + 8), min_size=1, max_size=4))
def test_any_bytes_are_unpacked_or_told_apart_without_reaching_outside(stored: list[bytes]) -> None:
    rows, whole = unpacked(stored)
    for row, content, is_whole in zip(rows, stored, whole.tolist(), strict=True):
        if is_whole and len(content) < ROW.itemsize:
            assert len(content) == kept_by(content)
            assert row.tobytes()[:HEAD_BYTES] == content[:HEAD_BYTES]


@given(cut=st.integers(1, 200), place=st.integers(0, 3), longer=st.booleans())
def test_a_packed_row_cut_short_or_run_on_is_not_whole_and_its_neighbours_are(
    cut: int, place: int, longer: bool
) -> None:
    rows = some_rows(1, 0.5)
    stored = [bytes(row) for row in packed(rows)]
    stored[place] = stored[place] + b"\1" * cut if longer else stored[place][:-cut]
    again, whole = unpacked(stored)
    left = np.arange(4) != place
    assert whole.tolist() == left.tolist()
    assert again[left].tobytes() == rows[left].tobytes()


@pytest.mark.parametrize("name", SPECS)
def test_rows_that_were_stored_packed_fold_on_to_the_same_bits(name: str) -> None:
    events = long_stream(1, 400, 3, name)
    half = fold_in_cuts(name, events[:200], [], [(0, 1)], 3).table
    again = TaskTable.decode(half.layout, half.ids, half.encode(pack=True))
    assert again.encode() == half.encode()
    batch = batch_of(events[200:])
    on, from_store = (engine_for(name).fold(t, batch, theta(name, 2)).states for t in (half, again))
    assert on.encode() == from_store.encode()


def test_a_packed_row_with_a_flipped_bit_is_refused_and_the_task_named() -> None:
    table = fold_in_cuts("balanced", long_stream(1, 20, 3, "balanced"), [], [(0, 1)], 3).table
    stored = [bytes(row) for row in table.encode(pack=True)]
    for at in range(8, len(stored[1]), 7):
        damaged = bytearray(stored[1])
        damaged[at] ^= 4
        with pytest.raises(RowError, match=r"row of task 'b' (is damaged|has \d+ bytes).*reptide rebuild"):
            TaskTable.decode(table.layout, "abc", [stored[0], bytes(damaged), stored[2]])


def test_a_young_task_takes_a_fraction_of_a_row() -> None:
    table = fold_in_cuts("history", long_stream(1, 9, 3, "history"), [], [(0, 1)], 3).table
    assert max(map(len, table.encode(pack=True))) < table.layout.bytes_per_task / 2


def test_what_has_left_a_row_takes_no_room_any_more() -> None:
    table = fold_in_cuts("history", long_stream(1, 300, 3, "history"), [], [(0, 1)], 3).table
    free = table.rows["pending_order"] == 0
    assert free.any()
    for name in ("pending_id", "pending_s", "pending_x", "pending_p", "pending_mix", "pending_version"):
        assert not table.rows[name][free].any()
