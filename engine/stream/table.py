"""The state of many tasks as one numpy structured array: one task, one fixed-size row.

A row of zeros is a task never seen. The support set is a small persistent set: an example has the label
count at which it came (`support_seq`) and, once it has left, the count at which it went
(`support_dropped`), and its slot is reused only when the last adaptation no longer needs it. At most
`policy.every` labels pass between adaptations, so S + every slots always hold, exactly, both the current
support set and the one that the last adaptation read. Fast parameters are therefore a cache, for a
class-balanced support set too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.batches import blocks
from engine.compiled import compiled_as, read_rows
from engine.located import Located
from engine.stream.layout import EMPTY, EXPIRED, Columns, Layout
from engine.stream.packed import Buffer, packed, unpack
from engine.stream.soundness import unsound
from engine.types import Bool, EngineError, UInt64

AT_ONCE = 16
"""Rows that are read, or made ready to be written, while they lie in the processor's nearest memory."""

DAMAGED = "is damaged (its checksum does not match); restore the store or run `reptide rebuild`"


class RowError(EngineError):
    """Stored rows that must not be used: damaged, cut short, or of another layout."""

    def __init__(self, reasons: Mapping[str, str]) -> None:
        """`reasons` has a sentence for each task; the message is the first of them."""
        more = f" (and {len(reasons) - 1} more of the rows read)" * (len(reasons) > 1)
        super().__init__(next(iter(reasons.values())) + more)
        self.reasons = reasons


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

    def __getstate__(self) -> dict[str, Any]:
        """What is copied and pickled: where its own rows lie, a copy finds out by itself."""
        return {name: value for name, value in vars(self).items() if name != "_located"}

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
        size, (blank,) = layout.bytes_per_task, packed(TaskTable.empty(layout, ["?"]).rows)
        never_seen = np.array([row is None for row in stored], np.bool_)
        read = [blank if row is None else row for row in stored]
        rows, whole = np.zeros(len(read), layout.dtype), np.zeros(len(read), np.bool_)
        sums = np.zeros(len(read), np.uint64)
        for part in blocks(len(read), AT_ONCE):
            whole[part] = unpack(read[part], rows[part])
            sums[part] = checksums(rows[part], size)
        others = ~whole | (rows["fingerprint"] != layout.fingerprint)
        faults = {u: _fault(layout, stored[u] or b"") for u in np.flatnonzero(others).tolist()}
        in_one_piece(rows)[others] = b""  # which hold anything
        for u in np.flatnonzero((sums != rows["checksum"]) & ~never_seen).tolist():
            faults.setdefault(u, DAMAGED)
        for u, fault in unsound(layout.problem, rows, _have_labels(rows)).items():
            faults.setdefault(u, fault)
        if faults:
            raise RowError({ids[u]: f"the stored row of task {ids[u]!r} {faults[u]}" for u in sorted(faults)})
        return cls(layout, tuple(ids), rows)

    def encode(self, pack: bool = False) -> list[memoryview]:
        """Rows as bytes, checksummed; with `pack` without zeros (`engine.stream.packed`). `decode` takes both."""
        return _sealed(self.copy(), pack)

    @contextmanager
    def next_revision(self, pack: bool = False) -> Iterator[list[memoryview]]:
        """Rows as bytes, checksummed, as the revision that is to replace the one read, while that is written.

        Nothing is copied: meanwhile the table's own rows are of that revision.
        """
        self.rows["revision"] += 1
        try:
            yield _sealed(self, pack)
        finally:
            self.rows["revision"] -= 1

    def copy(self) -> TaskTable:
        """A copy."""
        # numpy asks every field what a new array of them needs: on memory that is there it does not.
        rows = np.ndarray(len(self.ids), self.rows.dtype, in_one_piece(self.rows).copy())
        return TaskTable(self.layout, self.ids, rows)

    def take(self, index: npt.NDArray[np.integer[Any]]) -> TaskTable:
        """A copy of some of the tasks."""
        return TaskTable(self.layout, tuple(self.ids[i] for i in index), taken(self.rows, index))

    def columns(self) -> Columns:
        """Views of the fields."""
        return Columns._make(map(self.rows.__getitem__, Columns._fields))

    @property
    def located(self) -> Located:
        """The rows, as compiled code is given them.

        Raises:
            EngineError: they cannot be written.

        """
        if not self.rows.flags.writeable:
            raise EngineError(
                "rows that are folded in place are written, and these cannot be: make a copy of the table"
            )
        return self._located

    @cached_property
    def _located(self) -> Located:
        return self.layout.located(self.rows)


def in_one_piece(rows: npt.NDArray[np.void]) -> npt.NDArray[np.void]:
    """Rows [U] as bytes without fields: numpy copies fields one by one, which takes forty times as long."""
    return rows.view(_bytes(rows.dtype.itemsize))


@cache
def _bytes(count: int) -> np.dtype[np.void]:
    return np.dtype((np.void, count))


def taken(rows: npt.NDArray[np.void], index: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.void]:
    """A copy of some rows."""
    return np.ndarray(len(index), rows.dtype, in_one_piece(rows)[index])


def _sealed(table: TaskTable, pack: bool) -> list[memoryview]:
    """Its rows as bytes, checksummed in place."""
    size, written = table.layout.bytes_per_task, list[memoryview]()
    for part in blocks(len(table), AT_ONCE):
        rows = table.rows[part]
        rows["checksum"] = checksums(rows, size)
        written += packed(rows) if pack else []
    buffer = table.rows.view(np.uint8).data
    return written if pack else [buffer[start : start + size] for start in range(0, len(buffer), size)]


def _fault(layout: Layout, row: Buffer) -> str:
    """What is wrong with the head or the length of a stored row."""
    fingerprint = fingerprint_of(row)
    if len(row) >= 8 and fingerprint != layout.fingerprint:
        return (
            f"has layout {fingerprint:016x}, this stream spec has "
            f"{layout.fingerprint:016x}; run `reptide rebuild` to make the rows anew from the log"
        )
    return (
        f"has {len(row)} bytes instead of {layout.bytes_per_task}; restore the store or run `reptide rebuild`"
    )


def check_layouts(layout: Layout, stored: Iterable[Buffer]) -> None:
    """Refuse rows all of which are of another layout; one alone is damaged, and its task's to bear.

    Raises:
        RowError: there are rows, and none of this layout.

    """
    others = (fingerprint_of(row) for row in stored)
    first = next(others, layout.fingerprint)
    if first != layout.fingerprint and all(other != layout.fingerprint for other in others):
        raise RowError({
            "": f"all stored rows have another layout, {first:016x}, than this stream spec, "
            f"{layout.fingerprint:016x}; run `reptide rebuild` to make the rows anew from the log"
        })  # fmt: skip


def fingerprint_of(row: Buffer) -> int:
    """The layout that a stored row names."""
    return int.from_bytes(row[:8], "little")


def _have_labels(rows: npt.NDArray[np.void]) -> Bool:
    """Which of the ids that are remembered [U, 64] have a label, or are taken by the scan to have one."""
    return np.asarray((rows["recent_status"] != EMPTY) & (rows["recent_status"] != EXPIRED))


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
        # Sums of sums, from the last word to the third: no product, each of which takes as long as four sums.
        plain, by_place = np.uint64(0), np.uint64(0)
        for i in range(words.shape[1] - 1, 1, -1):
            plain += words[u, i]
            by_place += plain  # in the end the i-th word, counted from 0, i - 1 times
        total = np.uint64(2) * by_place + np.uint64(3) * plain
        sums[u] = total ^ (words[u, 0] * np.uint64(3))
