"""Each episode is trained on once, each round is run once, and stopping between them changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from engine.features import Features, Numeric
from engine.learners.gradient import GradientLearner
from engine.outer.backprop import Backprop
from engine.train import FitSettings, start
from streams.errors import CheckpointError
from streams.logs.memory import MemoryOutput, no_crash
from streams.outputs import kept, read_episode
from streams.stores.base import Checkpoint, MetaStore
from streams.stores.checkpoints import DirectoryMeta
from streams.stores.memory import MemoryMeta
from streams.trainer import Trainer
from tests.faults.model import SPEC, World, bits, stream

ENDS = (20, 40, 60)
"""Where the rounds fall due in these tests."""


@pytest.fixture(scope="module")
def lines() -> list[bytes]:
    """The episodes that a worker leaves on a log of 60 events."""
    world = World(stream(1, 60))
    worker = world.program(20).worker
    while worker.step() is not None:
        pass
    return world.outputs["episodes"].lines


def trainer(lines: Sequence[bytes], store: MetaStore) -> Trainer:
    episodes = MemoryOutput()
    episodes.append(lines)
    return Trainer(GradientLearner(SPEC), Backprop(), FitSettings(lr=0.1), episodes, store, seed=1, batch=4)


def ended_below(lines: Sequence[bytes], offset: int) -> list[bytes]:
    return [line for line in lines if read_episode(line)[1] < offset]


def steps_of(lines: Sequence[bytes]) -> int:
    """Outer steps of a round over so many episodes, four at a time."""
    return -(-len(lines) // 4)


def versions(store: MetaStore) -> list[Checkpoint]:
    return [store.load(version) for version in range(1, store.current() + 1)]


def same(one: MetaStore, other: MetaStore) -> bool:
    """Whether both hold the same versions, but for where in their logs the episodes lay."""

    def told(v: Checkpoint) -> tuple[object, ...]:
        return (
            v.version,
            bits(v.params),
            bits(v.trainer),
            {k: n for k, n in v.numbers.items() if k != "position"},
        )

    return list(map(told, versions(one))) == list(map(told, versions(other)))


@pytest.fixture
def whole(lines: list[bytes]) -> MetaStore:
    store = MemoryMeta()
    one = trainer(lines, store)
    for end in ENDS:
        assert one.round(end)
    return store


def test_a_round_takes_every_episode_since_the_last_once(lines, whole):
    first, second, third = (len(ended_below(lines, end)) for end in ENDS)
    assert 0 < first < second < third
    counted = [steps_of(lines[a:b]) for a, b in ((0, first), (first, second), (second, third))]
    assert [v.numbers["step"] for v in versions(whole)] == list(np.cumsum(counted))


def test_an_episode_that_comes_again_is_recognised(lines, whole):
    store = MemoryMeta()
    for end in ENDS:  # all that ended before is there twice, once as it was and once more from the start
        trainer([*ended_below(lines, end), *ended_below(lines, end), *lines], store).round(end)
    assert same(store, whole)


def test_an_episode_of_an_earlier_round_that_comes_again_later_is_recognised(lines):
    store = MemoryMeta()
    old = ended_below(lines, ENDS[0])
    episodes = trainer(old, store)
    episodes.round(ENDS[0])
    episodes.episodes.append(old)
    assert episodes.round(ENDS[1]) == []
    assert store.current() == 1


def test_a_round_that_was_published_is_not_run_again(lines):
    store = MemoryMeta()
    one = trainer(lines, store)
    assert one.round(20)
    assert one.round(20) == []
    assert one.round(10) == []
    assert store.current() == 1


def test_episodes_from_beyond_a_round_are_left_to_the_next(lines, whole):
    store = MemoryMeta()
    for end in ENDS:
        trainer(ended_below(lines, end), store).round(end)
    assert same(store, whole)


def test_a_round_without_episodes_publishes_nothing():
    store = MemoryMeta()
    assert trainer([], store).round(20) == []
    assert store.current() == 0


def test_a_trainer_started_anew_before_every_round_goes_on_bit_for_bit(lines, whole, tmp_path):
    for end in ENDS:
        trainer(lines, DirectoryMeta(tmp_path)).round(end)
    assert same(DirectoryMeta(tmp_path), whole)


@pytest.mark.parametrize("optimizer", ["SGD", "Adam", "AdamW", "RMSprop", "NAdam"])
def test_going_on_from_a_checkpoint_is_going_on_in_memory_bit_for_bit(lines, optimizer, tmp_path):
    fit = FitSettings(optimizer, lr=0.1, warmup=2, schedule="cosine", steps=9)
    stopped = replace(trainer(lines, DirectoryMeta(tmp_path)), fit=fit)
    state, since = start(stopped.learner, stopped.seed), 0
    for version, end in enumerate(ENDS, 1):
        found, _ = stopped.episodes_from(0, since, end)
        state, _ = stopped.take(found, stopped.counted(found, state))
        since = end
        stopped.round(end)
        published = DirectoryMeta(tmp_path).load(version)
        assert bits(published.params) == bits(state.params)
        assert published.numbers["step"] == state.step


def test_the_first_version_standardises_by_the_episodes_it_was_trained_on(lines, whole):
    seen = np.concatenate([read_episode(line)[2].query_x for line in ended_below(lines, ENDS[0])]).astype(
        np.float64
    )
    params = whole.load(1).params
    np.testing.assert_allclose(params["0.mean"].numpy(), seen.mean(0), rtol=1e-6)
    np.testing.assert_allclose(params["0.std"].numpy(), seen.std(0), rtol=1e-6)


def test_the_last_version_standardises_by_all_episodes(lines, whole):
    seen = np.concatenate([read_episode(line)[2].query_x for line in lines]).astype(np.float64)
    assert whole.load(3).trainer["statistics.count"].tolist() == [len(seen)] * 2
    np.testing.assert_allclose(whole.load(3).params["0.mean"].numpy(), seen.mean(0), rtol=1e-5)


def test_theta_moves(whole):
    one, other = whole.load(1), whole.load(3)
    assert all(not one.params[name].equal(other.params[name]) for name in one.params)


def test_of_two_trainers_at_once_one_publishes(lines, whole):
    store = MemoryMeta()
    other = trainer(lines, store)

    def other_comes_first(effect: str) -> None:
        store.before = no_crash
        assert other.round(20)

    store.before = other_comes_first
    trainer(lines, store).round(20)
    assert store.current() == 1
    assert bits(store.load(1).params) == bits(whole.load(1).params)


def test_a_version_of_another_task_spec_is_not_trained_on(lines, whole):
    other = replace(SPEC, features=Features((Numeric("a"), Numeric("c"))))
    with pytest.raises(CheckpointError, match="was trained for task spec"):
        replace(trainer(lines, whole), learner=GradientLearner(other)).round(80)


def test_the_sample_of_episodes_with_support_is_the_same_at_every_repeat():
    chosen = [kept(f"user {n}", 16, 0.3) for n in range(2000)]
    assert chosen == [kept(f"user {n}", 16, 0.3) for n in range(2000)]
    assert 0.26 < np.mean(chosen) < 0.34


def test_a_rate_of_one_keeps_every_support_set_and_zero_none():
    assert all(kept(f"user {n}", n, 1.0) for n in range(100))
    assert not any(kept(f"user {n}", n, 0.0) for n in range(100))
