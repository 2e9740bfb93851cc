"""Batches of the embedded program: one after the other, or each folded while the one before it is written.

    this thread        poll 2, decode, load   fold 2                           poll 3, decode, load   fold 3
    one beside it                             produce 1, sync, swap, commit                           produce 2, ...

Rows of a batch that is not written yet are taken from memory (`streams.program.unwritten`). Nothing of a batch is
written before all of the one before it is committed, so whatever dies, and whenever, leaves what one thread would.
Folding is compiled code for the most part, which other threads need not wait for. Decoding and producing are Python,
of which one runs at a time: so a batch is written from the moment on when the next is to be folded.

Of a log of this process alone: members of a group commit and are revoked by a clock, so a worker of theirs has one
batch in hand.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from engine.types import Int64
from streams.events.record import Polled
from streams.logs.base import ReplayLog
from streams.program.step import Step
from streams.program.unwritten import Unwritten
from streams.program.worker import Worker

TURN_S = 0.0002
"""How long one thread may hold Python while the other waits for it. Folding needs it often and shortly, between two
calls of compiled code; with the 5 ms of Python's own setting each time would cost as much."""


@contextmanager
def in_short_turns() -> Iterator[None]:
    """Let threads take turns at Python often."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(min(before, TURN_S))
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def finish_writing(beside: Executor) -> None:
    """End a thread once it has written what it began, however often Ctrl-C is pressed: then files are closed."""
    try:
        beside.shutdown()
    except KeyboardInterrupt:
        finish_writing(beside)
        raise


class Batches(Protocol):
    """Goes through a log, batch by batch."""

    is_over: bool
    """Whether the log has come to its end."""

    def step(self, at_most: int, meanwhile: Callable[[], object]) -> Iterator[Step]:
        """Fold the next batch, of so many events at most; gives the batches that are committed by then.

        `meanwhile` is called once, when the disk may be waited for.
        """
        ...

    def finish(self) -> Iterator[Step]:
        """Wait until all that is folded is committed."""
        ...


class OneByOne:
    """`Batches` each of which is committed before the next is polled."""

    def __init__(self, worker: Worker) -> None:
        self.worker, self.is_over = worker, False

    def step(self, at_most: int, meanwhile: Callable[[], object]) -> Iterator[Step]:
        """Fold, write and commit the next batch."""
        step = self.worker.step(at_most)
        self.is_over = step is None
        meanwhile()
        if step is not None:
            yield step

    def finish(self) -> Iterator[Step]:
        """Nothing is left to do."""
        return iter(())


@dataclass
class _Behind:
    """A batch that is folded."""

    position: int
    """Where it begins."""
    polled: Sequence[Polled]
    batch: Unwritten
    lost: Future[Int64] | None = None
    """Which of its rows are to be folded again, once it is written; None: that has not begun."""


class SideBySide:
    """`Batches` each of which is folded here while the one before it is written beside."""

    def __init__(self, worker: Worker, log: ReplayLog, beside: Executor) -> None:
        """`beside` has one thread."""
        self.worker, self.log, self.beside, self.is_over = worker, log, beside, False
        self._behind: _Behind | None = None

    def step(self, at_most: int, meanwhile: Callable[[], object]) -> Iterator[Step]:
        """Fold the next batch; gives the one before it.

        Raises what folding raises once the batch before is committed, or what writing that one raises instead. What
        was polled and does not come to be written is polled again.
        """
        position = self.log.position()
        try:
            try:
                ahead = self._folded(at_most)
                meanwhile()
            except Exception:
                yield from self.finish()
                raise
            for step in self.finish():
                if step.conflicts:  # rows are others than those that it was folded onto
                    self.log.seek(position)
                    ahead = self._folded(at_most)
                yield step
        except BaseException:
            left = self._behind  # which may have been written or not: then it is folded again
            self.log.seek(position if left is None else left.position)
            raise
        self._behind, self.is_over = ahead, ahead is None

    def finish(self) -> Iterator[Step]:
        """Write the batch that is folded, or wait for it where the other thread does already.

        Where that raises, the batch is polled again.
        """
        if (behind := self._behind) is not None:
            try:
                step = self._settled(behind)
            except BaseException:
                self.log.seek(behind.position)
                raise
            self._behind = None
            yield step

    def _settled(self, behind: _Behind) -> Step:
        beside = behind.lost
        lost = self._written(behind.polled, behind.batch) if beside is None else beside.result()
        step = self.worker.settle(behind.batch, lost)
        if len(lost):
            self.worker.commit(behind.polled)
        return step

    def _folded(self, at_most: int) -> _Behind | None:
        position, behind = self.log.position(), self._behind
        polled = self.worker.poll(at_most)
        if not polled:
            return None
        before = None if behind is None else behind.batch
        return _Behind(position, polled, self.worker.fold(polled, before, self._write_behind))

    def _write_behind(self) -> None:
        """Have the batch behind written from now on, if there is one."""
        behind = self._behind
        if behind is not None:
            behind.lost = self.beside.submit(self._written, behind.polled, behind.batch)

    def _written(self, polled: Sequence[Polled], batch: Unwritten) -> Int64:
        """Write a batch, and commit it where none of its rows is to be folded again."""
        lost = self.worker.write(batch)
        if not len(lost):
            self.worker.commit(polled)
        return lost
