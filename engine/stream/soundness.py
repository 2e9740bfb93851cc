"""What a stored row must hold, whatever its checksum says.

The numbers that a fold takes as an index are ones, and its labels can be counted on.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from engine.problem import Problem
from engine.targets import Regression
from engine.types import Bool, is_index

UNSOUND = "holds {} that this stream spec cannot have made; restore the store or run `reptide rebuild`"

MOST_LABELS = 2**62
"""Of one task: what a batch adds to them is still a number."""


def unsound(problem: Problem, rows: Any, labelled: Bool) -> dict[int, str]:
    """Why rows [U] must not be folded on, by place; `labelled` [U, 64] says which remembered ids have a label."""
    kept, waiting = rows["support_seq"] != 0, rows["pending_order"] != 0
    places = problem.stored.buckets
    found = {
        "a label count": (rows["seq"] < 0) | (rows["seq"] > MOST_LABELS),
        "a label": (kept & ~_is_label(problem, rows["support_y"])).any(1)
        | (labelled & ~_is_label(problem, rows["recent_y"])).any(1),
    }
    if len(places):
        found["a bucket"] = np.zeros(len(rows), np.bool_)
        for used, name in ((kept, "support_x"), (waiting, "pending_x")):
            x = rows[name][..., places]
            is_bucket = is_index(x, problem.stored.high[places] + 1)
            found["a bucket"] |= (used & ~is_bucket.all(2)).any(1)
    return {u: UNSOUND.format(what) for what, wrong in found.items() for u in np.flatnonzero(wrong).tolist()}


def _is_label(problem: Problem, y: Any) -> Bool:
    """Which labels are an output's index, with a name yet or not; or a number."""
    if isinstance(problem.target, Regression):
        return np.asarray(np.isfinite(y))
    return is_index(y, problem.target.outputs)
