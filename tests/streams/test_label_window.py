"""Windows of labels: whatever comes and goes, each gives the numbers of its own labels."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from engine.types import Episode, Float32
from streams.events.learned_labels import UNSCORED, LearnedLabel
from streams.events.record import SourcePosition
from streams.program.label_window import LabelWindow

NONE: Float32 = np.zeros(1, np.float32)
ENDED = Episode(-1, 1, -1, NONE[None], NONE, NONE, NONE[None], NONE)


def label(number: int) -> LearnedLabel:
    x = np.array([number, -number, number / 3], np.float32)
    ended = ENDED if number % 3 else None
    return LearnedLabel("ann", SourcePosition(0, 0, number), number + 1, x, number / 7, UNSCORED, ended)


def check(window: LabelWindow, labels: list[LearnedLabel]) -> None:
    """Numbers of all, some of them twice, are those of the labels that it should have."""
    index = np.arange(len(labels)).repeat(2)[::-1]
    x, y = window.numbers(index)
    assert [one.source for one in window.labels] == [one.source for one in labels]
    np.testing.assert_array_equal(x.ravel(), np.array([labels[n].x for n in index], np.float32).ravel())
    np.testing.assert_array_equal(y, np.array([labels[n].y for n in index], np.float32))


@given(
    rounds=st.lists(
        st.tuples(st.integers(0, 9), st.integers(1, 12), st.booleans(), st.booleans()), max_size=12
    )
)
def test_of_any_rounds_a_window_has_the_last_labels_and_their_numbers(
    rounds: list[tuple[int, int, bool, bool]],
) -> None:
    window, expected, count = LabelWindow(), list[LearnedLabel](), 0
    known = [(window, expected)]
    for new, size, is_read, is_given_up in rounds:
        found = [label(n) for n in range(count, count + new)]
        every, whole = window.after(found), [*expected, *found]
        if is_read:
            check(every, whole)
        known.append((every, whole))
        if not is_given_up:  # else the next labels come after what this round began with
            window, expected = every.last(size, new), whole[-size:]
            known.append((window, expected))
        count += new
    for one, labels in known:
        check(one, labels)


def test_the_newest_labels_are_kept_without_their_episodes() -> None:
    window = LabelWindow.of([label(n) for n in range(6)])
    assert [one.episode is None for one in window.last(4, 4).labels] == [True] * 4
    assert [one.episode is None for one in window.last(4, 2).labels] == [False, True, True, True]
    assert any(one.episode for one in window.labels)
