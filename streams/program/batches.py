"""Batches of the embedded program: one after the other, or each folded while the one before it is written.

    this thread        poll 2, decode, load, fold        poll 3, decode, load, fold
    one beside it      produce 1, sync, swap, commit     produce 2, sync, swap, commit

Rows of a batch that is not written yet are taken from memory (`streams.program.unwritten`). Nothing of a batch is
written before all of the one before it is committed, so whatever dies, and whenever, leaves what one thread would.
Folding is compiled code for the most part, which other threads need not wait for, and writing waits for the disk.

Of a log of this process alone: members of a group commit and are revoked by a clock, so a worker of theirs has one
batch in hand.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future
from typing import NamedTuple, Protocol

from engine.types import Int64
from streams.events.record import Polled
from streams.logs.base import ReplayLog
from streams.program.step import Step
from streams.program.unwritten import Unwritten
from streams.program.worker import Worker


class Batches(Protocol):
    """Goes through a log, batch by batch."""

    is_over: bool
    """Whether the log has come to its end."""

    def step(self, at_most: int) -> Iterator[Step]:
        """Fold the next batch, of so many events at most; gives the batches that are committed by then."""
        ...

    def finish(self) -> Iterator[Step]:
        """Wait until all that is folded is committed."""
        ...


class OneByOne:
    """`Batches` each of which is committed before the next is polled."""

    def __init__(self, worker: Worker) -> None:
        self.worker, self.is_over = worker, False

    def step(self, at_most: int) -> Iterator[Step]:
        """Fold, write and commit the next batch."""
        step = self.worker.step(at_most)
        self.is_over = step is None
        if step is not None:
            yield step

    def finish(self) -> Iterator[Step]:
        """Nothing is left to do."""
        return iter(())


class _Behind(NamedTuple):
    """A batch that is being written."""

    polled: Sequence[Polled]
    batch: Unwritten
    lost: Future[Int64]


class SideBySide:
    """`Batches` each of which is folded here while the one before it is written beside."""

    def __init__(self, worker: Worker, log: ReplayLog, beside: Executor) -> None:
        """`beside` has one thread."""
        self.worker, self.log, self.beside, self.is_over = worker, log, beside, False
        self._behind: _Behind | None = None

    def step(self, at_most: int) -> Iterator[Step]:
        """Fold the next batch; gives the one before it. What was polled and is not taken is polled again.

        Raises what folding raises once the batch before is committed, and what writing that one does instead.
        """
        position = self.log.position()
        try:
            try:
                ahead = self._folded(at_most)
            except Exception:
                yield from self.finish()
                raise
            for step in self.finish():
                if step.conflicts:  # rows are others than those that it was folded onto
                    self.log.seek(position)
                    ahead = self._folded(at_most)
                yield step
            self.is_over = ahead is None
            if ahead is not None:
                self._behind = _Behind(*ahead, self.beside.submit(self._written, *ahead))
                position = self.log.position()
        finally:
            self.log.seek(position)

    def finish(self) -> Iterator[Step]:
        """Wait for the batch that is being written."""
        if self._behind is not None:
            behind, self._behind = self._behind, None
            lost = behind.lost.result()
            step = self.worker.settle(behind.batch, lost)
            if len(lost):
                self.worker.commit(behind.polled)
            yield step

    def _folded(self, at_most: int) -> tuple[Sequence[Polled], Unwritten] | None:
        polled = self.worker.poll(at_most)
        if not polled:
            return None
        return polled, self.worker.fold(polled, self._behind and self._behind.batch)

    def _written(self, polled: Sequence[Polled], batch: Unwritten) -> Int64:
        """Write a batch, and commit it where none of its rows is to be folded again."""
        lost = self.worker.write(batch)
        if not len(lost):
            self.worker.commit(polled)
        return lost
