"""Rounds fall due early at first and then evenly; the places cut the log into cells, whatever asks for them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise, takewhile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.events.record import Polled, Record
from streams.program.schedule import FIRST, Schedule, cut_at_cells
from tests.faults.model import observation


def places(every: int, below: int) -> list[int]:
    """Where rounds fall due, walked from the start of the log."""
    found, at = [], 0
    while (at := Schedule(every).next(at)) < below:
        found.append(at)
    return found


@pytest.mark.parametrize(
    ("every", "due"),
    [
        (4096, [64, 128, 192, 256, 320, 400, 500, 625, 781, 976]),
        (100, [64, 128, 192, 256, 320, 400, 500, 600]),
        (64, [64, 128, 192, 256]),
        (65, [64, 128, 192, 256, 260, 325]),
        (8, [8, 16, 24, 32, 40, 48, 56, 64, 72]),
        (1, [1, 2, 3, 4]),
    ],
)
def test_rounds_fall_due_ever_further_apart_and_then_evenly(every: int, due: list[int]) -> None:
    assert places(every, due[-1] + 1) == due


@given(st.integers(1, 6000))
def test_soon_every_round_is_at_a_multiple(every: int) -> None:
    later = 5 * every + FIRST
    assert [at for at in places(every, 2 * later) if at > later and at % every] == []


@given(st.integers(1, 5000), st.integers(0, 20_000))
def test_every_position_lies_in_the_one_cell_that_begins_at_or_below_it(every: int, position: int) -> None:
    schedule = Schedule(every)
    cell = schedule.cell(position)
    assert cell <= position < schedule.next(position)
    assert schedule.cell(cell) == cell
    assert schedule.next(cell) == schedule.next(position)
    assert schedule.cell(schedule.next(position)) == schedule.next(position)


@given(st.integers(1, 3000))
def test_no_two_rounds_are_further_apart_than_every_so_many_events(every: int) -> None:
    due = [0, *places(every, 3 * every + 200)]
    assert max(after - before for before, after in pairwise(due)) <= every


@given(st.integers(1, 300), st.integers(0, 700), st.integers(1, 700))
def test_what_was_polled_is_cut_where_cells_begin_and_nowhere_else(
    every: int, start: int, length: int
) -> None:
    schedule = Schedule(every)
    records = [observation("a", "1", 0.0)._replace(offset=start + n) for n in range(length)]
    parts = list(cut_at_cells(Polled(0, (1,), start, records), schedule))
    assert [record for part in parts for record in part.records] == records
    begins = takewhile(lambda at: at < start + length, _cells_from(schedule, start))
    assert [part.position for part in parts] == [start, *begins]
    assert all(part.position == part.records[0].offset for part in parts)


def test_records_of_a_second_topic_stay_with_those_of_the_first_around_them() -> None:
    first = [observation("a", "1", 0.0)._replace(offset=n) for n in (62, 63, 64, 65)]
    label = Record(500, first[0].kind, "a", "1", 0.0, None, None, topic=1)
    polled = Polled(0, (1, 1), 62, [first[0], label, first[1], label, first[2], label, first[3]])
    assert [len(part.records) for part in cut_at_cells(polled, Schedule(1024))] == [4, 3]


def _cells_from(schedule: Schedule, position: int) -> Iterator[int]:
    while True:
        position = schedule.next(position)
        yield position
