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
from streams.errors import CheckpointError, StoreError
from streams.logs.memory import MemoryOutput, no_crash
from streams.outputs import kept, read_episode
from streams.rounds import Rounds
from streams.stores.base import Checkpoint, MetaStore
from streams.stores.checkpoints import DirectoryMeta
from streams.stores.memory import MemoryMeta
from streams.trainer import Trainer, held_out, restore
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


def rounds(lines: Sequence[bytes], store: MetaStore, held_out: float = 0.0) -> Rounds:
    episodes = MemoryOutput()
    episodes.append(lines)
    learner = GradientLearner(SPEC)
    trainer = Trainer(learner, Backprop(), FitSettings(lr=0.1), store, seed=1, batch=4, held_out=held_out)
    return Rounds(trainer, episodes)


def ended_below(lines: Sequence[bytes], offset: int) -> list[bytes]:
    return [line for line in lines if read_episode(line).offset < offset]


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
    one = rounds(lines, store)
    for end in ENDS:
        assert one.run(end)
    return store


def test_a_round_takes_every_episode_since_the_last_once(lines, whole):
    first, second, third = (len(ended_below(lines, end)) for end in ENDS)
    assert 0 < first < second < third
    counted = [steps_of(lines[a:b]) for a, b in ((0, first), (first, second), (second, third))]
    assert [v.numbers["step"] for v in versions(whole)] == list(np.cumsum(counted))


def test_an_episode_that_comes_again_is_recognised(lines, whole):
    store = MemoryMeta()
    for end in ENDS:  # all that ended before is there twice, once as it was and once more from the start
        rounds([*ended_below(lines, end), *ended_below(lines, end), *lines], store).run(end)
    assert same(store, whole)


def test_an_episode_of_an_earlier_round_that_comes_again_later_is_recognised(lines):
    store = MemoryMeta()
    old = ended_below(lines, ENDS[0])
    episodes = rounds(old, store)
    episodes.run(ENDS[0])
    episodes.episodes.append(old)
    assert episodes.run(ENDS[1]) is None
    assert store.current() == 1


def test_a_round_that_was_published_is_not_run_again(lines):
    store = MemoryMeta()
    one = rounds(lines, store)
    assert one.run(20)
    assert one.run(20) is None
    assert one.run(10) is None
    assert store.current() == 1


def test_episodes_from_beyond_a_round_are_left_to_the_next(lines, whole):
    store = MemoryMeta()
    for end in ENDS:
        rounds(ended_below(lines, end), store).run(end)
    assert same(store, whole)


def test_a_round_without_episodes_publishes_nothing():
    store = MemoryMeta()
    assert rounds([], store).run(20) is None
    assert store.current() == 0


def test_a_trainer_started_anew_before_every_round_goes_on_bit_for_bit(lines, whole, tmp_path):
    for end in ENDS:
        rounds(lines, DirectoryMeta(tmp_path)).run(end)
    assert same(DirectoryMeta(tmp_path), whole)


@pytest.mark.parametrize(
    ("optimizer", "options"),
    [
        *((name, {}) for name in ("SGD", "Adam", "AdamW", "RMSprop", "NAdam")),
        ("SGD", {"momentum": 0.9}),
        ("Adam", {"betas": (0.0, 0.999)}),
    ],
)
def test_going_on_from_a_checkpoint_is_going_on_in_memory_bit_for_bit(lines, optimizer, options, tmp_path):
    fit = FitSettings(optimizer, lr=0.1, warmup=2, schedule="cosine", steps=9, **options)
    stopped = rounds(lines, DirectoryMeta(tmp_path))
    trainer = replace(stopped.trainer, fit=fit)
    stopped = replace(stopped, trainer=trainer)
    state, since = start(trainer.learner, trainer.seed), 0
    for version, end in enumerate(ENDS, 1):
        found, _ = stopped.episodes_from(0, since, end)
        state, _ = trainer.take(found, trainer.counted(found, state))
        since = end
        stopped.run(end)
        published = DirectoryMeta(tmp_path).load(version)
        assert bits(published.params) == bits(state.params)
        assert published.numbers["step"] == state.step


def test_the_first_version_standardises_by_the_episodes_it_was_trained_on(lines, whole):
    seen = np.concatenate(
        [read_episode(line).episode.query_x for line in ended_below(lines, ENDS[0])]
    ).astype(np.float64)
    params = whole.load(1).params
    np.testing.assert_allclose(params["0.mean"].numpy(), seen.mean(0), rtol=1e-6)
    np.testing.assert_allclose(params["0.std"].numpy(), seen.std(0), rtol=1e-6)


def test_the_last_version_standardises_by_all_episodes(lines, whole):
    seen = np.concatenate([read_episode(line).episode.query_x for line in lines]).astype(np.float64)
    assert whole.load(3).trainer["statistics.count"].tolist() == [len(seen)] * 2
    np.testing.assert_allclose(whole.load(3).params["0.mean"].numpy(), seen.mean(0), rtol=1e-5)


def test_theta_moves(whole):
    one, other = whole.load(1), whole.load(3)
    assert all(not one.params[name].equal(other.params[name]) for name in one.params)


def test_of_two_trainers_at_once_one_publishes(lines, whole):
    store = MemoryMeta()
    other = rounds(lines, store)

    def other_comes_first(effect: str) -> None:
        store.before = no_crash
        assert other.run(20)

    store.before = other_comes_first
    rounds(lines, store).run(20)
    assert store.current() == 1
    assert bits(store.load(1).params) == bits(whole.load(1).params)


def test_a_version_of_another_task_spec_is_not_trained_on(lines, whole):
    other = replace(SPEC, features=Features((Numeric("a"), Numeric("c"))))
    with pytest.raises(CheckpointError, match="was trained for task spec"):
        foreign = replace(rounds(lines, whole).trainer, learner=GradientLearner(other))
        Rounds(foreign, MemoryOutput()).run(80)


def test_the_sample_of_episodes_with_support_is_the_same_at_every_repeat():
    chosen = [kept(f"user {n}", 16, 0.3) for n in range(2000)]
    assert chosen == [kept(f"user {n}", 16, 0.3) for n in range(2000)]
    assert 0.26 < np.mean(chosen) < 0.34


def test_a_rate_of_one_keeps_every_support_set_and_zero_none():
    assert all(kept(f"user {n}", n, 1.0) for n in range(100))
    assert not any(kept(f"user {n}", n, 0.0) for n in range(100))


# Held-out tasks


HELD_OUT = 0.5
"""Of the three tasks, some teach and some judge."""


def tasks(lines: Sequence[bytes]) -> set[str]:
    return {read_episode(line).task for line in lines}


def test_a_held_out_task_is_never_trained_on(lines):
    taught = [line for line in lines if not held_out(read_episode(line).task, HELD_OUT)]
    assert set() < tasks(taught) < tasks(lines)
    some, others = MemoryMeta(), MemoryMeta()
    for end in ENDS:
        rounds(lines, some, HELD_OUT).run(end)
        rounds(taught, others).run(end)
    assert same(some, others)


def test_the_tasks_held_out_are_a_fixed_share():
    chosen = {task for task in map(str, range(5000)) if held_out(task, 0.05)}
    assert 0.04 < len(chosen) / 5000 < 0.06
    assert chosen < {task for task in map(str, range(5000)) if held_out(task, 0.1)}


def test_a_candidate_that_held_out_tasks_are_worse_off_with_is_refused_and_its_episodes_are_passed_over(
    lines,
):
    store = MemoryMeta()
    assert rounds(lines, store, HELD_OUT).run(ENDS[0]).published
    harmful = replace(rounds(lines, store, HELD_OUT).trainer, fit=FitSettings(lr=1e4), batch=1)
    [before] = versions(store)
    refused = harmful.advance(before, [read_episode(line) for line in lines], {"position": 7, "through": 60})
    assert refused.verdict.refused
    assert refused.verdict.loss_after > refused.verdict.loss_before
    after = store.load(2)
    assert (bits(after.params), bits(after.trainer)) == (bits(before.params), bits(before.trainer))
    assert after.numbers == {"position": 7, "through": 60, "step": before.numbers["step"]}


# The way back


def test_an_earlier_version_restored_is_the_newest_and_training_goes_on_from_it(lines):
    store = MemoryMeta()
    for end in ENDS[:2]:
        rounds(lines, store).run(end)
    assert restore(store, 1) == 3
    first, second, third = versions(store)
    assert (bits(third.params), bits(third.trainer)) == (bits(first.params), bits(first.trainer))
    assert third.numbers == {**second.numbers, "step": first.numbers["step"]}
    assert rounds(lines, store).run(ENDS[1]) is None
    assert rounds(lines, store).run(ENDS[2]).published


def test_restoring_what_there_is_not_or_against_a_trainer_is_refused(lines):
    store = MemoryMeta()
    rounds(lines, store).run(ENDS[0])
    with pytest.raises(CheckpointError):
        restore(store, 7)

    def trainer_comes_first(effect: str) -> None:
        store.before = no_crash
        rounds(lines, store).run(ENDS[1])

    store.before = trainer_comes_first
    with pytest.raises(StoreError, match="stop it"):
        restore(store, 1)
