"""Which rows go where there is room for so many tasks: those of tasks that were seen least, and longest ago.

A row holds a count of its task's observations that halves with every week of event time. The tasks whose counts, as
they all stand at one moment, are least are the coldest: one that was seen once goes before one that was seen often,
unless that was many weeks before. (Least frequently used, with aging.) It is a function of the rows alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np

from engine.features.history import EVENT_HALF_LIVES_S
from engine.stream.layout import Layout
from engine.stream.packed import Buffer, unpack
from engine.types import Float64

WEEKS = -1
"""Which of the counts is the one that halves with every week."""

SPARE = 8
"""One in so many places is made free, so that all rows are looked at once in as many new tasks."""

AT_ONCE = 256


def drop_coldest(transaction: Any, rows: Any, layout: Layout, most: int) -> int:
    """Delete the rows of the coldest tasks where there are more than `most`; returns how many.

    `transaction` is one of LMDB that writes, `rows` the table. A row that cannot be read stays.
    """
    if transaction.stat(rows)["entries"] <= most:
        return 0
    cursor = transaction.cursor(rows)
    warm = np.concatenate([warmth(page, layout) for page in _pages(cursor.iternext(keys=False))])
    is_cold = np.zeros(len(warm), np.bool_)
    is_cold[np.argsort(warm, kind="stable")[: len(warm) - (most - most // SPARE)]] = True
    is_cold &= np.isfinite(warm)
    cursor.first()
    for cold in is_cold.tolist():
        if cold:
            cursor.delete()  # which goes on to the next
        else:
            cursor.next()
    return int(is_cold.sum())


def warmth(stored: Sequence[Buffer], layout: Layout) -> Float64:
    """How warm the tasks of stored rows [U] are: the logarithm of their counts, as they all stand at one moment."""
    rows = np.zeros(len(stored), layout.dtype)
    is_read = unpack(stored, rows) & (rows["fingerprint"] == layout.fingerprint)
    count, week_s = np.maximum(rows["event_rates"][:, WEEKS], 1.0), EVENT_HALF_LIVES_S[WEEKS]
    last_s = np.where(rows["events"] > 0, rows["event_s"], rows["clock_s"])
    return np.where(is_read, np.log2(count) + last_s / week_s, np.inf)


def _pages(stored: Iterable[Buffer]) -> Iterator[list[Buffer]]:
    rest = iter(stored)
    while page := list(islice(rest, AT_ONCE)):
        yield page
