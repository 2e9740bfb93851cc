"""Support sets as they are read back from rows: what their examples weigh, to the last bit."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from engine.batches import class_weights
from engine.stream.support import room_of, weighed


@given(
    sizes=st.lists(st.integers(0, 150), min_size=1, max_size=4),
    classes=st.integers(1, 6),
    balanced=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_weights_are_what_arrays_make_of_class_counts(
    sizes: list[int], classes: int, balanced: bool, seed: int
) -> None:
    drawn, slots = np.random.default_rng(seed), 150
    sets = room_of(len(sizes), slots, 2, classes)
    sets.ends[1:] = np.cumsum(sizes)
    sets.y[:] = drawn.integers(0, classes, len(sets.y))
    sets.counts[:] = drawn.integers(0, 10_000, sets.counts.shape)
    found = weighed(sets, len(sizes), slots, balanced)
    present = np.arange(slots) < np.array(sizes)[:, None]
    expected = np.where(present, 1.0, 0.0)
    if balanced:
        labels = np.zeros(present.shape, np.int64)
        labels[present] = sets.y[: sum(sizes)]
        expected *= class_weights(labels, expected, sets.counts)
    expected /= np.maximum(expected.sum(axis=1, keepdims=True), 1e-12)
    assert found.weight.tobytes() == expected[present].astype(np.float32).tobytes()
    assert found.ends.tolist() == [0, *np.cumsum(sizes)]
