"""The garbage collector: what stays is not looked at again, what is garbage goes."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from streams.system.collector import collect_seldom, leave_imports_out, settle


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    thresholds = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)


class Cycle:
    def __init__(self) -> None:
        self.itself = self


def test_a_process_that_settles_drops_its_garbage_and_never_looks_again_at_what_stays() -> None:
    kept, garbage = Cycle(), weakref.ref(Cycle())
    settle()
    assert garbage() is None
    assert kept.itself not in gc.get_objects()
    assert gc.get_threshold()[0] >= 50_000


def test_what_was_imported_is_not_looked_at_by_a_later_collection() -> None:
    stays = Cycle()
    leave_imports_out()
    assert stays not in gc.get_objects()


def test_a_command_collects_seldom() -> None:
    collect_seldom()
    assert gc.get_threshold()[0] >= 50_000
