"""How a task's row is laid out: columns, their types and sizes, in bytes that a fingerprint names."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from engine.compiled import arrays
from engine.features.history import EVENT_RATES, RATES, History
from engine.learners.base import Learner, fast_size
from engine.learners.fingerprint import fingerprint, theta_fingerprint
from engine.located import Located, columns_in
from engine.problem import Problem
from engine.stream.mixture import EXPERTS, MIXED, STATE
from engine.stream.rounding import own_places
from engine.stream.spec import StreamSpec
from engine.types import PREDICTORS, Int64, Outcome

LAYOUT_VERSION = 2
"""Raised whenever the meaning of a row's bytes changes."""

HEAD_BYTES = 24
"""Of a stored row: fingerprint, checksum and revision, which stores read."""

RECENT_IDS = 64
"""How many resolved observation ids a task remembers."""


EMPTY, LABELLED, EXPIRED, FORGOTTEN = range(4)
"""How a remembered id was resolved, if any; forgotten: labelled, but before the window that an alarm kept."""


class Columns(NamedTuple):
    """Views of a table's fields, [U, ...] each, in their order; writing to them writes the rows."""

    incarnation: Any
    """[U, T] of each input topic from which the task was folded: another number where it was created anew."""
    partition: Any
    """[U, T] and its partition."""
    fast_version: Any
    """[U] the version of theta behind `fast`."""
    position: Any
    """[U, T] next offset to fold of each input topic; 0 for none yet."""
    counts: Any
    """[U, outcomes] how often each `Outcome` happened."""
    clock_s: Any
    """[U] the latest event time seen."""
    seq: Any
    """[U] label count: how many examples have entered the support set."""
    adapted_through: Any
    """[U] the label count at the last adaptation."""
    epoch: Any
    """[U] adaptation epoch: how many alarms there were."""
    quiet_until: Any
    """[U] no alarm up to this label count."""
    class_counts: Any
    """[U, C] examples of each class since the start or the last alarm (a regression: all in one)."""
    adapted_counts: Any
    """[U, C] `class_counts` at the last adaptation."""
    label_sum: Any
    """[U] sum of the labels of a regression."""
    score_sums: Any
    """[U, 5] sum of losses of base, recent, theta, adapted, and as served."""
    lanes: Any
    """[U, P, 7] of the hedge (`engine.stream.mixture`): losses of the five above the least, its gap, nats spent."""
    lane_prior: Any
    """[U, P, 5] the prior that it goes by; 0 where it was never used."""
    shared: Any
    """[U, 5] of the shared mixture: losses of the four experts, above the least, and the gap."""
    detector: Any
    """[U, D] state of the drift detector."""
    support_seq: Any
    """[U, R] label count at which the example came; 0 where the slot was never used."""
    support_dropped: Any
    """[U, R] label count at which it went; 0 while it is in the support set."""
    support_id: Any
    """[U, R] id of its observation."""
    pending_id: Any
    """[U, P] id of the observation."""
    pending_order: Any
    """[U, P] 1 for the first observation predicted, 2 for the next; 0 where the slot is free."""
    pending_s: Any
    """[U, P] event time."""
    pending_mix: Any
    """[U, P, 4] the experts' weights in the shared mixture when the prediction was made."""
    pending_seen: Any
    """[U, P] the label count when the prediction was made."""
    pending_version: Any
    """[U, P] the version of theta."""
    pending_epoch: Any
    """[U, P] the adaptation epoch."""
    recent_id: Any
    """[U, 64] ids resolved last, a ring."""
    recent_status: Any
    """[U, 64] EMPTY, LABELLED, EXPIRED or FORGOTTEN."""
    recent_count: Any
    """[U] ids ever resolved; modulo 64 the next place in the ring."""
    support_x: Any
    """[U, R, W]"""
    support_y: Any
    """[U, R]"""
    pending_x: Any
    """[U, P, W]"""
    pending_p: Any
    """[U, P, 4, C] predictions of the experts."""
    recent_y: Any
    """[U, 64] the label, where LABELLED or FORGOTTEN."""
    labels: Any
    """[U] labels learned from so far; a correction is none."""
    last_id: Any
    """[U] id of the observation of the last of them."""
    events: Any
    """[U] observations so far."""
    event_s: Any
    """[U] time of the last of them."""
    event_rates: Any
    """[U, 3] decayed counts of observations."""
    label_rates: Any
    """[U, 3, L] decayed counts of labels: of each class, or count and mean."""
    last_labels: Any
    """[U, 2] the last label and the one before."""
    label_s: Any
    """[U, 2] when these became known."""
    number_mean: Any
    """[U, M] decayed mean of each number."""
    number_variance: Any
    """[U, M] about it."""
    number_last: Any
    """[U, M] last value."""
    number_count: Any
    """[U, M] values so far; what is missing is none."""
    by_id: Any
    """[U, B, K] bucket + 1 of the categories seen last; 0 where the slot is free."""
    by_seen: Any
    """[U, B, K] label count at which each was counted last."""
    by_rates: Any
    """[U, B, K, L] decayed counts of its labels."""
    fast: Any
    """[U, F] fast parameters."""


COLUMN_TYPES: list[tuple[str, int]] = [
    ("uint64", 2), ("int64", 2), ("int64", 1),
    ("int64", 2), ("int64", 2), ("float64", 1), ("int64", 1), ("int64", 1), ("int64", 1), ("int64", 1),
    ("int64", 2), ("int64", 2), ("float64", 1), ("float64", 2), ("float64", 3), ("float32", 3), ("float64", 2),
    ("float64", 2), ("int64", 2), ("int64", 2), ("uint64", 2), ("uint64", 2), ("int64", 2), ("float64", 2),
    ("float32", 3), ("int64", 2), ("int64", 2), ("int64", 2), ("uint64", 2), ("int64", 2), ("int64", 1),
    ("float32", 3), ("float32", 2), ("float32", 3), ("float32", 4), ("float32", 2),
    ("int64", 1), ("uint64", 1),
    ("int64", 1), ("float64", 1), ("float64", 2), ("float64", 3), ("float64", 2), ("float64", 2),
    ("float64", 2), ("float64", 2), ("float64", 2), ("int64", 2), ("float32", 3), ("int64", 3), ("float32", 4),
    ("float32", 2),
]  # fmt: skip
"""Scalar type and dimensions of each of `Columns`, in order."""


COLUMNS_LAYOUT = arrays(Columns, COLUMN_TYPES, strided=True)

columns_at = columns_in(COLUMNS_LAYOUT)
"""What compiled code finds the columns of `Located` rows by."""


@dataclass(frozen=True)
class Layout:
    """The row of a stream spec: a numpy structured dtype and its fingerprint."""

    dtype: np.dtype[np.void]
    fingerprint: int
    problem: Problem = field(repr=False)

    @property
    def bytes_per_task(self) -> int:
        """What one task costs in the store."""
        return self.dtype.itemsize

    @cached_property
    def places(self) -> Int64:
        """Where each column begins in a row, and its shape there [columns, 4]."""
        fields: Any = self.dtype.fields
        found = np.zeros((len(Columns._fields), 4), np.int64)
        for place, (kind, start, *_) in zip(found, map(fields.get, Columns._fields), strict=True):
            place[: 1 + kind.ndim] = start, *kind.shape
        return found

    def located(self, rows: npt.NDArray[np.void]) -> Located:
        """Rows [U] of this layout, as compiled code is given them."""
        return Located(rows[:, None].view(np.uint8), self.places)


def row_fingerprint(spec: StreamSpec, learner: Learner) -> int:
    """Hash of what gives a row its meaning: theta's, and everything the layout is derived from."""
    memory = [spec.problem.support, spec.policy.every, spec.memory.pending, spec.topics]
    detector = [type(spec.detector).__name__, spec.detector.width]
    sizes = {name: list(shape) for name, shape in learner.fast_shapes.items()}
    past = spec.problem.history
    kept = [] if past is None else [past.slots]
    rounded = [own_places(spec).tolist()] if spec.memory.precision == "half" else []
    return int(
        fingerprint([LAYOUT_VERSION, theta_fingerprint(learner), memory, detector, sizes, *kept, *rounded]),
        16,
    )


def layout_of(spec: StreamSpec, learner: Learner) -> Layout:
    """Derive the row layout of a stream's tasks, which a learner adapts."""
    shapes = _shapes(spec) | {"fast": (fast_size(learner),)}
    head: list[Any] = [
        ("fingerprint", "<u8"),
        ("checksum", "<u8"),
        ("revision", "<i8"),
    ]
    fields: list[Any] = [
        (name, np.dtype(scalar).newbyteorder("<"), shapes.get(name, ()))
        for name, (scalar, _) in zip(Columns._fields, COLUMN_TYPES, strict=True)
    ]
    padding = -np.dtype([*head, *fields]).itemsize % 8
    dtype = np.dtype([*head, *fields, ("padding", "u1", (padding,))])
    return Layout(dtype, row_fingerprint(spec, learner), spec.problem)


def _shapes(spec: StreamSpec) -> dict[str, tuple[int, ...]]:
    """The shape of each column in a row; those left out are one number."""
    problem, slots, lanes = spec.problem, spec.slots, spec.memory.pending
    width, outputs = problem.width, problem.target.outputs
    past, kept = problem.history_columns, problem.history or History()
    # One of each at least: a view of no numbers at all is not strided, as the scan expects it.
    by, numbers, rates = max(1, len(past.by)), max(1, len(past.numbers)), max(1, past.label_width)
    kinds = (by, kept.slots if past.by else 1)
    return {
        "incarnation": (spec.topics,),
        "partition": (spec.topics,),
        "position": (spec.topics,),
        "counts": (len(Outcome),),
        "class_counts": (outputs,),
        "adapted_counts": (outputs,),
        "score_sums": (len(PREDICTORS),),
        "lanes": (lanes, STATE),
        "lane_prior": (lanes, MIXED),
        "shared": (EXPERTS + 1,),
        "detector": (spec.detector.width,),
        "support_seq": (slots,),
        "support_dropped": (slots,),
        "support_id": (slots,),
        "pending_id": (lanes,),
        "pending_order": (lanes,),
        "pending_s": (lanes,),
        "pending_mix": (lanes, EXPERTS),
        "pending_seen": (lanes,),
        "pending_version": (lanes,),
        "pending_epoch": (lanes,),
        "recent_id": (RECENT_IDS,),
        "recent_status": (RECENT_IDS,),
        "support_x": (slots, width),
        "support_y": (slots,),
        "pending_x": (lanes, width),
        "pending_p": (lanes, EXPERTS, outputs),
        "recent_y": (RECENT_IDS,),
        "event_rates": (EVENT_RATES,),
        "label_rates": (RATES, rates),
        "last_labels": (2,),
        "label_s": (2,),
        "number_mean": (numbers,),
        "number_variance": (numbers,),
        "number_last": (numbers,),
        "number_count": (numbers,),
        "by_id": kinds,
        "by_seen": kinds,
        "by_rates": (*kinds, rates),
    }
