"""Each batch is folded while the one before it is written: in a thread, with whatever may go wrong in either."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from engine.stream.fold import Engine
from engine.stream.in_progress import Folded
from streams.errors import StoreError
from streams.program.embedded import Embedded, steps
from tests.faults.model import GRID, World, stream, uninterrupted

RECORDS = stream(5, 3 * GRID)
BATCH = 2
FULL = "the disk is full; make room and start again"


def world(before: Callable[[str, int], object] = lambda effect, nth: None) -> World:
    """A world that is told of each effect, and which of its kind it is, from 1."""
    made, counts = World(RECORDS, is_late=True), Counter[str]()

    def hook(effect: str) -> None:
        counts[effect] += 1
        before(effect, counts[effect])

    made.hook = hook
    return made


def in_threads(world: World) -> Embedded:
    program = world.program(BATCH)
    worker = replace(program.worker, forgets_for_s=None)
    return replace(program, worker=worker, beside=partial(ThreadPoolExecutor, 1, "writer"))


def is_writing() -> bool:
    return any(thread.name.startswith("writer") for thread in threading.enumerate())


def test_a_batch_is_folded_while_the_one_before_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    folds, second_is_folded, first_is_written = Counter[str](), threading.Event(), threading.Event()
    fold_into = Engine.fold_into

    def folding(*arguments: Any) -> Folded:
        folds["begun"] += 1
        if folds["begun"] == 2:
            second_is_folded.set()
            assert first_is_written.wait(60)
        return fold_into(*arguments)

    def before(effect: str, nth: int) -> None:
        if (effect, nth) == ("swap", 1):
            assert second_is_folded.wait(60)
            first_is_written.set()

    monkeypatch.setattr(Engine, "fold_into", folding)
    made = world(before)
    assert sum(step.conflicts for step in steps(in_threads(made))) == 0
    monkeypatch.undo()
    assert made.left().differs(uninterrupted(RECORDS, is_late=True)) == []
    assert not is_writing()


def test_what_writing_raises_is_raised_and_nothing_of_a_later_batch_is_written() -> None:
    def before(effect: str, nth: int) -> None:
        if (effect, nth) == ("confirm", 3):
            raise StoreError(FULL)

    made = world(before)
    with pytest.raises(StoreError, match=FULL):
        for _ in steps(in_threads(made)):
            pass
    assert made.committed == 2 * BATCH
    assert max(row["position"][0] for row in rows(made)) == 3 * BATCH
    assert not is_writing()


def test_what_folding_raises_is_raised_once_all_before_it_is_committed() -> None:
    def before(effect: str, nth: int) -> None:
        if (effect, nth) == ("load", 3):
            raise StoreError(FULL)

    made, seen = world(before), 0
    with pytest.raises(StoreError, match=FULL):
        for step in steps(in_threads(made)):
            seen += step.events + step.rejected
    assert made.committed == seen == 2 * BATCH


def test_who_stops_has_all_that_was_given_committed_and_may_go_on() -> None:
    made = world()
    program = in_threads(made)
    batches = steps(program)
    next(batches), next(batches)
    batches.close()
    assert made.committed == program.log.position() == 2 * BATCH
    assert not is_writing()
    for _ in steps(program):
        pass
    assert made.left().differs(uninterrupted(RECORDS, is_late=True)) == []


def test_an_interrupt_waits_for_no_batch_but_one_that_is_being_written() -> None:
    def before(effect: str, nth: int) -> None:
        if (effect, nth) == ("load", 3):
            raise KeyboardInterrupt

    made = world(before)
    program = in_threads(made)
    with pytest.raises(KeyboardInterrupt):
        for _ in steps(program):
            pass
    assert made.committed == program.log.position() == BATCH
    assert not is_writing()
    for _ in steps(program):
        pass
    assert made.left().differs(uninterrupted(RECORDS, is_late=True)) == []


@pytest.mark.parametrize("effect", ["append", "sync", "swap", "confirm", "commit"])
def test_who_goes_on_after_a_batch_could_not_be_written_loses_none_of_it(effect: str) -> None:
    def failing(at: int, done: str, nth: int) -> None:
        if (done, nth) == (effect, at):
            raise StoreError(FULL)

    for at in range(1, 8):
        made = world(partial(failing, at))
        program = in_threads(made)
        with pytest.raises(StoreError, match=FULL):
            for _ in steps(program):
                pass
        for _ in steps(program):
            pass
        assert made.left().differs(uninterrupted(RECORDS, is_late=True)) == []


class _Interrupted(ThreadPoolExecutor):
    """Ctrl-C comes again while its thread is waited for."""

    is_interrupted = False

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        if not self.is_interrupted:
            self.is_interrupted = True
            raise KeyboardInterrupt
        super().shutdown(wait, cancel_futures=cancel_futures)


def test_who_is_interrupted_twice_leaves_no_thread_that_writes_into_files_that_are_closed() -> None:
    program = replace(in_threads(world()), beside=partial(_Interrupted, 1, "writer"))
    with pytest.raises(KeyboardInterrupt):
        for _ in steps(program):
            pass
    assert not is_writing()


def rows(made: World) -> list[dict[str, tuple[int, ...]]]:
    """Of each row how far it was folded."""
    layout = World([]).program(1).engine.layout
    table = made.store.load(layout, [f"task {n}" for n in range(3)])
    return [{"position": tuple(row["position"].tolist())} for row in table.rows]
