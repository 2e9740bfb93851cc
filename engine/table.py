"""The state of many tasks as one numpy structured array: one task, one fixed-size row.

A row of zeros is a task never seen. The support set is a small persistent set: an example has the label
count at which it came (`support_seq`) and, once it has left, the count at which it went
(`support_dropped`), and its slot is reused only when the last adaptation no longer needs it. At most
`policy.every` labels pass between adaptations, so S + every slots always hold, exactly, both the current
support set and the one that the last adaptation read. Fast parameters are therefore a cache, for a
class-balanced support set too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from engine.compiled import arrays, compiled_as, read_rows
from engine.fingerprints import row_fingerprint
from engine.history import EVENT_RATES, RATES, History
from engine.learners.base import Learner, fast_size
from engine.mixture import EXPERTS, MIXED, STATE
from engine.soundness import unsound
from engine.spec import TaskSpec
from engine.types import PREDICTORS, Bool, EngineError, Outcome, UInt64

RECENT_IDS = 64
"""How many resolved observation ids a task remembers."""

LABELLED, EXPIRED, FORGOTTEN = 1, 2, 3
"""How a remembered id was resolved; forgotten: labelled, but before the window that an alarm kept."""


Buffer = bytes | memoryview

DAMAGED = "is damaged (its checksum does not match); restore the store or run `reptide rebuild`"


class RowError(EngineError):
    """Stored rows that must not be used: damaged, cut short, or of another layout."""

    def __init__(self, reasons: Mapping[str, str]) -> None:
        """`reasons` has a sentence for each task; the message is the first of them."""
        more = f" (and {len(reasons) - 1} more of the rows read)" * (len(reasons) > 1)
        super().__init__(next(iter(reasons.values())) + more)
        self.reasons = reasons


class Columns(NamedTuple):
    """Views of a table's fields, [U, ...] each; writing to them writes the rows."""

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
    """[U, P, 7] of the hedge: losses of the five above the least, AdaHedge's gap, nats spent (engine/mixture.py)."""
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
    """[U, 64] 0 empty, LABELLED, EXPIRED or FORGOTTEN."""
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


COLUMN_TYPES: list[tuple[str, int]] = [
    ("int64", 2), ("int64", 2), ("float64", 1), ("int64", 1), ("int64", 1), ("int64", 1), ("int64", 1),
    ("int64", 2), ("int64", 2), ("float64", 1), ("float64", 2), ("float64", 3), ("float32", 3), ("float64", 2),
    ("float64", 2), ("int64", 2), ("int64", 2), ("uint64", 2), ("uint64", 2), ("int64", 2), ("float64", 2),
    ("float32", 3), ("int64", 2), ("int64", 2), ("int64", 2), ("uint64", 2), ("int64", 2), ("int64", 1),
    ("float32", 3), ("float32", 2), ("float32", 3), ("float32", 4), ("float32", 2),
    ("int64", 1), ("uint64", 1),
    ("int64", 1), ("float64", 1), ("float64", 2), ("float64", 3), ("float64", 2), ("float64", 2),
    ("float64", 2), ("float64", 2), ("float64", 2), ("int64", 2), ("float32", 3), ("int64", 3), ("float32", 4),
]  # fmt: skip
"""Scalar type and dimensions of each of `Columns`, in order."""

COLUMNS_LAYOUT = arrays(Columns, COLUMN_TYPES, strided=True)


@dataclass(frozen=True)
class Layout:
    """The row of a task spec: a numpy structured dtype and its fingerprint."""

    dtype: np.dtype[np.void]
    fingerprint: int
    spec: TaskSpec = field(repr=False)

    @property
    def bytes_per_task(self) -> int:
        """What one task costs in the store."""
        return self.dtype.itemsize


def layout_of(learner: Learner) -> Layout:
    """Derive the row layout of the learner's tasks."""
    spec = learner.spec
    slots, lanes, width, outputs = spec.slots, spec.memory.pending, spec.width, spec.target.outputs
    past, kept = spec.history_columns, spec.history or History()
    # One of each at least: a view of no numbers at all is not strided, as the scan expects it.
    by, numbers, rates = max(1, len(past.by)), max(1, len(past.numbers)), max(1, past.label_width)
    kinds = (by, kept.slots if past.by else 1)
    shapes: dict[str, tuple[int, ...]] = {
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
    head: list[Any] = [
        ("fingerprint", "<u8"),
        ("checksum", "<u8"),
        ("revision", "<i8"),
        ("incarnation", "<u8", (spec.topics,)),
        ("partition", "<i8", (spec.topics,)),
        ("fast_version", "<i8"),
    ]
    fields: list[Any] = [
        (name, np.dtype(scalar).newbyteorder("<"), shapes.get(name, ()))
        for name, (scalar, _) in zip(Columns._fields, COLUMN_TYPES, strict=True)
    ]
    packed = np.dtype([*head, *fields, ("fast", "<f4", (fast_size(learner),))])
    padding = -packed.itemsize % 8
    dtype = np.dtype([*head, *fields, ("fast", "<f4", (fast_size(learner),)), ("padding", "u1", (padding,))])
    return Layout(dtype, row_fingerprint(learner), spec)


@dataclass(frozen=True)
class TaskTable:
    """U tasks, each once: their ids, and their rows [U] in one structured array."""

    layout: Layout
    ids: tuple[str, ...]
    rows: npt.NDArray[np.void]

    def __post_init__(self) -> None:
        if self.rows.shape != (len(self.ids),) or self.rows.dtype != self.layout.dtype:
            raise EngineError(
                f"a table of {len(self.ids)} tasks needs as many rows of its layout, got {self.rows.shape} "
                f"of {self.rows.dtype.itemsize} bytes; make it with TaskTable.empty or TaskTable.decode"
            )
        if len(set(self.ids)) != len(self.ids):
            repeated = next(task for n, task in enumerate(self.ids) if task in self.ids[:n])
            raise EngineError(f"task {repeated!r} is twice in one table; name each task once")

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def empty(cls, layout: Layout, ids: Sequence[str]) -> TaskTable:
        """Tasks never seen."""
        rows = np.zeros(len(ids), layout.dtype)
        rows["fingerprint"] = layout.fingerprint
        return cls(layout, tuple(ids), rows)

    @classmethod
    def decode(cls, layout: Layout, ids: Sequence[str], stored: Sequence[Buffer | None]) -> TaskTable:
        """Rows read from a store, None for a task never seen.

        Raises:
            RowError: rows are cut short, damaged, or of another layout; names the task of each.

        """
        faults = {
            u: fault for u, row in enumerate(stored) if row is not None and (fault := _fault(layout, row))
        }
        blank = TaskTable.empty(layout, ["?"]).rows.tobytes()
        sound = (blank if row is None or u in faults else row for u, row in enumerate(stored))
        rows = np.frombuffer(bytearray().join(sound), layout.dtype)
        sums = checksums(rows, layout.bytes_per_task)
        for u in np.flatnonzero(sums != rows["checksum"]).tolist():
            if stored[u] is not None:
                faults.setdefault(u, DAMAGED)
        for u, fault in unsound(layout.spec, rows, _have_labels(rows)).items():
            faults.setdefault(u, fault)
        if faults:
            raise RowError({ids[u]: f"the stored row of task {ids[u]!r} {faults[u]}" for u in sorted(faults)})
        return cls(layout, tuple(ids), rows)

    def encode(self, raise_revision: bool = False) -> list[memoryview]:
        """Rows as bytes, checksummed; as the next revision, where they are to replace the ones read."""
        rows, size = self.rows.copy(), self.layout.bytes_per_task
        rows["revision"] += raise_revision
        rows["checksum"] = checksums(rows, size)
        buffer = rows.view(np.uint8).data
        return [buffer[start : start + size] for start in range(0, len(buffer), size)]

    def take(self, index: npt.NDArray[np.integer[Any]]) -> TaskTable:
        """A copy of some of the tasks."""
        return TaskTable(self.layout, tuple(self.ids[i] for i in index), self.rows[index])

    def columns(self) -> Columns:
        """Views of the fields."""
        return Columns(*(self.rows[name] for name in Columns._fields))


def _fault(layout: Layout, row: Buffer) -> str:
    """What is wrong with the head or the length of a stored row; empty where nothing is."""
    fingerprint = fingerprint_of(row)
    if len(row) >= 8 and fingerprint != layout.fingerprint:
        return (
            f"has layout {fingerprint:016x}, this task spec has "
            f"{layout.fingerprint:016x}; run `reptide rebuild` to make the rows anew from the log"
        )
    if len(row) != layout.bytes_per_task:
        return (
            f"has {len(row)} bytes instead of {layout.bytes_per_task}; "
            "restore the store or run `reptide rebuild`"
        )
    return ""


def check_layouts(layout: Layout, stored: Iterable[Buffer]) -> None:
    """Refuse rows all of which are of another layout; one alone is damaged, and its task's to bear.

    Raises:
        RowError: there are rows, and none of this layout.

    """
    others = (fingerprint_of(row) for row in stored)
    first = next(others, layout.fingerprint)
    if first != layout.fingerprint and all(other != layout.fingerprint for other in others):
        raise RowError({
            "": f"all stored rows have another layout, {first:016x}, than this task spec, {layout.fingerprint:016x}; "
            "run `reptide rebuild` to make the rows anew from the log"
        })  # fmt: skip


def fingerprint_of(row: Buffer) -> int:
    """The layout that a stored row names."""
    return int.from_bytes(row[:8], "little")


def _have_labels(rows: npt.NDArray[np.void]) -> Bool:
    """Which of the ids that are remembered [U, 64] have a label."""
    return np.asarray((rows["recent_status"] == LABELLED) | (rows["recent_status"] == FORGOTTEN))


def checksums(rows: npt.NDArray[np.void], size: int) -> UInt64:
    """One checksum a row [U]: the 64-bit words, each times an odd number of its own, summed.

    An odd factor is invertible modulo 2^64, so a change to any one word changes the sum.
    """
    words = np.ascontiguousarray(rows).view(np.uint64).reshape(len(rows), size // 8)
    sums = np.zeros(len(rows), np.uint64)
    _weighted_sums(words, sums)
    return sums


@compiled_as(read_rows("uint64"), "uint64[]")
def _weighted_sums(words: UInt64, sums: UInt64) -> None:
    for u in range(words.shape[0]):
        total = np.uint64(0)
        for i in range(2, words.shape[1]):
            total += words[u, i] * np.uint64(2 * i + 1)
        sums[u] = total ^ (words[u, 0] * np.uint64(3))
