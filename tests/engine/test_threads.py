"""Threads may share an engine: each is served by the theta that it asked for, while another adopts the next."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from engine.kernels.latest import Latest
from engine.stream.fold import KEPT, Engine
from engine.stream.table import TaskTable
from engine.types import Meta, Params
from tests.engine.driving import SMALL, batch_of, long_stream

THREADS = 4


@pytest.fixture
def often_switched() -> Iterator[None]:
    """Threads that take turns at nearly every operation."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_what_is_made_of_parameters_is_theirs_whoever_asks_for_others_meanwhile() -> None:
    first, second = ({"a": torch.full((1,), value)} for value in (1.0, 2.0))

    def make(params: Params) -> float:
        if params is first:  # as another thread would, while this one is made
            assert latest.of(second) == 2.0
        return params["a"].item()

    latest = Latest(make)
    assert latest.of(first) == 1.0


@pytest.mark.usefixtures("often_switched")
def test_folds_of_several_threads_are_each_under_their_own_theta() -> None:
    engine, events = Engine(SMALL), batch_of(long_stream(1, 40, 2, "balanced"))
    metas = [Meta(1 + n, engine.learner.init(n)) for n in range(2 * KEPT)]
    states = TaskTable.empty(engine.layout, ["task 0", "task 1"])

    def served(meta: Meta) -> bytes:
        return engine.fold(states, events, meta).outcomes.prediction.tobytes()

    expected = [served(meta) for meta in metas]
    with ThreadPoolExecutor(THREADS) as threads:
        assert list(threads.map(served, metas * 20)) == expected * 20


@pytest.mark.usefixtures("often_switched")
def test_models_that_several_threads_make_at_once_begin_as_their_seeds_say() -> None:
    def begun(seed: int) -> bytes:
        return b"".join(value.numpy().tobytes() for value in SMALL.problem.model(seed).state_dict().values())

    expected = [begun(seed) for seed in range(THREADS)]
    with ThreadPoolExecutor(THREADS) as threads:
        assert list(threads.map(begun, [*range(THREADS)] * 30)) == expected * 30
