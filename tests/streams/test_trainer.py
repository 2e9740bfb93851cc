"""Each label is new once, each round is run once, and stopping between them changes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine.features.columns import Numeric
from engine.features.encoder import Features
from engine.learners.gradient import LR, GradientLearner
from engine.outer.backprop import Backprop
from engine.outer.descent import FitSettings
from engine.outer.fit import Round, TrainState, start
from engine.outer.gate import losses_after_adaptation
from engine.outer.online import Lesson, Online, Rates, averaged, step_by_step
from engine.outer.step_size import MEMORY, SIZES, chosen
from engine.types import Episode, Float64
from streams.errors import CheckpointError, SettingsError, StoreError
from streams.events.learned_labels import LearnedLabel, read_learned
from streams.events.record import incarnation_text
from streams.logs.memory import INCARNATION, MemoryOutput, no_crash
from streams.program.label_log import LabelLog
from streams.program.label_window import LabelWindow
from streams.program.lessons import EPISODES, MOST_REPLAYS
from streams.program.outputs import kept
from streams.program.rollback import roll_back
from streams.program.rounds import Rounds
from streams.program.trainer import (
    CALIBRATION,
    FEWEST_TASKS,
    SIZES_EARLY,
    SIZES_EVERY,
    WINDOW,
    Trainer,
    held_out,
)
from streams.stores.checkpoints import DirectoryMeta
from streams.stores.memory import MemoryMeta
from streams.stores.versions import Checkpoint, MetaStore
from tests.faults.model import RATES, SPEC, bits, lines_of_episodes, online, told
from tests.varied import varied

ENDS = (20, 40, 60)
"""Where the rounds fall due in these tests."""


@pytest.fixture(scope="module")
def lines() -> list[bytes]:
    return lines_of_episodes()


@pytest.fixture(scope="module")
def labels(lines: list[bytes]) -> list[LearnedLabel]:
    return [read_learned(line) for line in lines]


def trainer(store: MetaStore, **changes: Any) -> Trainer:
    return replace(Trainer(SPEC, online(), store, seed=1, batch=4), **changes)


def rounds(lines: Sequence[bytes], store: MetaStore, **changes: object) -> Rounds:
    trains = trainer(store, **changes)
    said = LabelLog(MemoryOutput(), trains.labels)
    said.append(lines)
    return Rounds(trains, said, INCARNATION)


def known_below(lines: Sequence[bytes], offset: int) -> list[bytes]:
    return [line for line in lines if read_learned(line).source.offset < offset]


def versions(store: MetaStore) -> list[Checkpoint]:
    return [store.load(version) for version in range(1, store.current() + 1)]


def same(one: MetaStore, other: MetaStore) -> bool:
    """Whether both hold the same versions, but for where in their logs the labels lay."""
    described = [
        [(v.version, bits(v.params), bits(v.trainer), told(v.numbers)) for v in versions(store)]
        for store in (one, other)
    ]
    return described[0] == described[1]


@pytest.fixture
def whole(lines: list[bytes]) -> MetaStore:
    store = MemoryMeta()
    one = rounds(lines, store)
    for end in ENDS:
        assert one.run(end)
    return store


class Watched(Online):
    """Keeps the lessons, one of each step, and learns nothing of them."""

    def __init__(self) -> None:
        super().__init__(GradientLearner(SPEC.problem), Backprop(), RATES)
        self.lessons: list[Lesson] = []

    def learn(self, lessons: Iterable[Lesson], state: TrainState) -> tuple[TrainState, list[Round]]:
        taken = list(step_by_step(lessons))
        self.lessons += taken
        return replace(state, step=state.step + len(taken)), []


def rows(lesson: Lesson) -> list[bytes]:
    """The labels of a lesson, without its padding."""
    there = lesson.labels.weight[0] > 0
    return [
        x.numpy().tobytes() + y.numpy().tobytes()
        for x, y in zip(lesson.labels.x[0][there], lesson.labels.y[0][there], strict=True)
    ]


def row(label: LearnedLabel) -> bytes:
    return label.x.tobytes() + np.float32(label.y).tobytes()


def after_many(state: TrainState, new: int) -> TrainState:
    """So many labels were counted, before the new ones, that none is trained on more often than asked."""
    counted = replace(state.statistics, count=torch.full_like(state.statistics.count, 1e6 + new))
    return replace(state, statistics=counted)


def taught(
    labels: Sequence[LearnedLabel], window: Sequence[LearnedLabel], many: bool = True, **changes: object
) -> list[Lesson]:
    watched = Watched()
    one = trainer(MemoryMeta(), online=watched, **changes)
    state = start(watched.learner, 1)
    every, new = LabelWindow.of([*window, *labels]), len(labels)
    found, again = np.split(np.arange(len(every)), [len(window)])[::-1]
    one.take(every, found, again, after_many(state, new) if many else prepared(one, labels, state, 1))
    return watched.lessons


def prepared(one: Trainer, labels: Sequence[LearnedLabel], state: TrainState, number: int = 0) -> TrainState:
    return one.prepared(LabelWindow.of(labels), np.arange(len(labels)), state, number)


# What is trained on


def test_every_label_is_new_once_in_the_order_it_came(lines: list[bytes], labels: list[LearnedLabel]) -> None:
    watched, store = Watched(), MemoryMeta()
    for end in ENDS:
        rounds(lines, store, online=watched, replays=0.0).run(end)
    assert [one for lesson in watched.lessons for one in rows(lesson)] == [row(label) for label in labels]
    assert all(len(rows(lesson)) <= 4 for lesson in watched.lessons)


def test_every_episode_is_trained_on_once_and_a_few_at_a_time(labels: list[LearnedLabel]) -> None:
    lessons = taught(labels, labels, replays=2.0)
    queries = [
        x[weight > 0].numpy().tobytes()
        for lesson in lessons
        if lesson.episodes
        for x, weight in zip(lesson.episodes.query.x, lesson.episodes.query.weight, strict=True)
        if weight.sum() > 0
    ]
    episodes = [label.episode for label in labels if label.episode is not None]
    assert sorted(queries) == sorted(episode.query_x.tobytes() for episode in episodes)
    assert {len(lesson.episodes.query.x) for lesson in lessons if lesson.episodes} == {EPISODES}


@pytest.mark.parametrize(("replays", "each"), [(0.0, [0, 0, 0]), (0.5, [0, 1, 0]), (2.0, [2, 2, 2])])
def test_each_batch_is_followed_by_as_many_of_the_window(
    labels: list[LearnedLabel], replays: float, each: list[int]
) -> None:
    new, earlier = labels[:12], labels[12:]
    lessons = iter(taught(new, earlier, replays=replays))
    mine, window = [row(label) for label in new], {row(label) for label in earlier}
    for n, again in enumerate(each):
        assert rows(next(lessons)) == mine[4 * n : 4 * n + 4]
        for _ in range(again):
            assert set(rows(next(lessons))) <= window
    assert not list(lessons)


def test_versions_of_a_single_batch_have_their_share_of_what_is_trained_on_again(
    labels: list[LearnedLabel],
) -> None:
    watched = Watched()
    one = trainer(MemoryMeta(), online=watched, replays=0.25)
    state = after_many(start(watched.learner, 1), 0)
    new = labels[:4]
    for _ in range(12):
        state = replace(state, statistics=replace(state.statistics, count=state.statistics.count + 4))
        state, _ = one.take(LabelWindow.of(new), np.arange(4), np.arange(4), state)
    assert len(watched.lessons) == 12 + 3


def test_episodes_that_no_step_has_room_for_train_no_label_again(labels: list[LearnedLabel]) -> None:
    ended = [label for label in labels if label.episode is not None][:3] * 10
    lessons = taught(ended, ended, replays=0.0, batch=16)
    assert [one for lesson in lessons for one in rows(lesson)] == [row(label) for label in ended]
    counts = [(one.episodes.query.weight.sum(1) > 0).sum().item() for one in lessons if one.episodes]
    assert counts == [EPISODES] * len(lessons)


def test_every_label_of_the_window_is_drawn_in_time(labels: list[LearnedLabel]) -> None:
    lessons = taught(labels[:4], labels, replays=40.0)
    assert {one for lesson in lessons for one in rows(lesson)} == {row(label) for label in labels}


def test_while_labels_are_few_each_is_trained_on_more_often(labels: list[LearnedLabel]) -> None:
    lessons = taught(labels[:4], labels[:4], many=False)
    assert len([lesson for lesson in lessons if rows(lesson)]) >= 1 + MOST_REPLAYS
    assert len(taught(labels[:4], labels[:4], many=False, replays=0.0)) == 1


def test_no_label_that_has_left_the_window_is_trained_on_again(
    lines: list[bytes], labels: list[LearnedLabel]
) -> None:
    watched, store = Watched(), MemoryMeta()
    one = rounds(lines, store, online=watched, window=6)
    one.run(ENDS[1])
    watched.lessons.clear()
    one.run(ENDS[2])
    old, new = ([x for x in labels if (x.source.offset < ENDS[1]) == before] for before in (True, False))
    drawn = {each for lesson in watched.lessons for each in rows(lesson)} - {row(x) for x in new}
    assert drawn
    assert drawn <= {row(label) for label in old[-6:]}


def test_a_window_is_kept_without_its_episodes(lines: list[bytes]) -> None:
    one = rounds(lines, MemoryMeta())
    one.run(ENDS[2])
    assert len(one._window.labels)
    assert all(label.episode is None for label in one._window.labels.labels)


# Rounds


def test_a_label_that_comes_again_is_recognised(lines: list[bytes], whole: MetaStore) -> None:
    store, said = MemoryMeta(), list[bytes]()
    for end in ENDS:  # workers that died and began at the start again
        said += [*known_below(lines, end), *known_below(lines, end)]
        rounds([*said, *lines], store).run(end)
    assert same(store, whole)


def test_a_label_of_an_earlier_round_that_comes_again_later_is_recognised(lines: list[bytes]) -> None:
    store = MemoryMeta()
    old = known_below(lines, ENDS[0])
    one = rounds(old, store)
    one.run(ENDS[0])
    one.episodes.append(old)
    assert one.run(ENDS[1]) is None
    assert store.current() == 1


def test_a_round_that_was_published_is_not_run_again(lines: list[bytes]) -> None:
    store = MemoryMeta()
    one = rounds(lines, store)
    assert one.run(20)
    assert one.run(20) is None
    assert one.run(10) is None
    assert store.current() == 1


def test_labels_from_beyond_a_round_are_left_to_the_next(lines: list[bytes], whole: MetaStore) -> None:
    store = MemoryMeta()
    for end in ENDS:
        rounds(known_below(lines, end), store).run(end)
    assert same(store, whole)


def test_a_round_without_labels_publishes_nothing() -> None:
    store = MemoryMeta()
    assert rounds([], store).run(20) is None
    assert store.current() == 0


@pytest.mark.parametrize("window", [WINDOW, 9, 1])
@pytest.mark.parametrize("at_once", [1024, 3])
def test_a_trainer_started_anew_before_every_round_goes_on_bit_for_bit(
    lines: list[bytes], window: int, at_once: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.program.label_log.LINES_AT_ONCE", at_once)
    whole = MemoryMeta()
    one = rounds(lines, whole, window=window)
    for end in ENDS:
        one.run(end)
        rounds(lines, DirectoryMeta(tmp_path), window=window).run(end)
    assert same(DirectoryMeta(tmp_path), whole)


def test_what_was_known_before_is_trained_on_again(lines: list[bytes], whole: MetaStore) -> None:
    store = MemoryMeta()
    rounds(lines, store).run(ENDS[0])
    forgetful = rounds(lines, store, window=1)
    forgetful.run(ENDS[1])
    assert bits(store.load(2).params) != bits(whole.load(2).params)


@pytest.mark.parametrize(
    ("optimizer", "options"),
    [
        *((name, {}) for name in ("SGD", "Adam", "AdamW", "RMSprop", "NAdam")),
        ("SGD", {"momentum": 0.9}),
        ("Adam", {"betas": (0.0, 0.999)}),
    ],
)
def test_going_on_from_a_checkpoint_is_going_on_in_memory_bit_for_bit(
    lines: list[bytes], labels: list[LearnedLabel], optimizer: str, options: Any, tmp_path: Path
) -> None:
    fit = FitSettings(optimizer, lr=0.1, warmup=2, schedule="cosine", steps=60, **options)
    trains = Online(GradientLearner(SPEC.problem), Backprop(), Rates(fit))
    stopped = rounds(lines, DirectoryMeta(tmp_path), online=trains)
    state, since = start(trains.learner, 1), 0
    for version, end in enumerate(ENDS, 1):
        window = LabelWindow.of([label for label in labels if label.source.offset < end])
        found = np.array([n for n, label in enumerate(window.labels) if label.source.offset >= since])
        before = stopped.trainer.prepared(window, found, state, version)
        state, _ = stopped.trainer.take(window, found, np.arange(len(window)), before)
        since = end
        stopped.run(end)
        published = DirectoryMeta(tmp_path).load(version)
        assert bits(published.params) == bits(averaged(state))
        assert published.numbers["step"] == state.step


def test_the_first_version_standardises_by_the_labels_it_was_trained_on(
    lines: list[bytes], whole: MetaStore
) -> None:
    seen = np.stack([read_learned(line).x[:2] for line in known_below(lines, ENDS[0])]).astype(np.float64)
    params = whole.load(1).params
    np.testing.assert_allclose(params["0.mean"][:2].numpy(), seen.mean(0), rtol=1e-5)
    np.testing.assert_allclose(params["0.std"][:2].numpy(), seen.std(0), rtol=1e-5)


def test_the_last_version_standardises_by_all_labels_and_knows_how_frequent_classes_are(
    labels: list[LearnedLabel], whole: MetaStore
) -> None:
    seen = np.stack([label.x[:2] for label in labels]).astype(np.float64)
    last = whole.load(3)
    assert last.trainer["statistics.count"][[0, 1, -2, -1]].tolist() == [len(labels)] * 4
    np.testing.assert_allclose(last.params["0.mean"][:2].numpy(), seen.mean(0), rtol=1e-4)
    ones = sum(label.y for label in labels)
    assert last.params["0.label_rate"][1].item() == pytest.approx((ones + 0.5) / (len(labels) + 1))


def test_all_of_theta_moves(whole: MetaStore) -> None:
    one, other = whole.load(1), whole.load(3)
    assert [name for name in online().learner.learned if one.params[name].equal(other.params[name])] == []


def test_of_two_trainers_at_once_one_publishes(lines: list[bytes], whole: MetaStore) -> None:
    store = MemoryMeta()
    other = rounds(lines, store)

    def other_comes_first(effect: str) -> None:
        store.before = no_crash
        assert other.run(20)

    store.before = other_comes_first
    rounds(lines, store).run(20)
    assert store.current() == 1
    assert bits(store.load(1).params) == bits(whole.load(1).params)


def test_labels_and_versions_of_another_log_are_none_of_a_round(lines: list[bytes], whole: MetaStore) -> None:
    """Another file in the place of the first: its rounds fall due at the same offsets."""
    ours, theirs = (incarnation_text(INCARNATION + n).encode() for n in (0, 1))
    elsewhere = [line.replace(ours, theirs) for line in lines]
    store = MemoryMeta()
    rounds(lines, store).run(ENDS[2])
    advance = replace(rounds([*lines, *elsewhere], store), incarnation=INCARNATION + 1).run(ENDS[0])
    assert advance is not None
    assert advance.labels == len(known_below(lines, ENDS[0]))
    assert store.load(2).numbers["through"] == ENDS[0]


def test_a_version_of_another_problem_is_not_trained_on(lines: list[bytes], whole: MetaStore) -> None:
    other = GradientLearner(varied(SPEC, features=Features((Numeric("a"), Numeric("c")))).problem)
    foreign = trainer(whole, online=Online(other, Backprop(), RATES))
    with pytest.raises(CheckpointError, match="was trained for problem"):
        Rounds(foreign, LabelLog(MemoryOutput(), foreign.labels), INCARNATION).run(80)


def test_another_optimizer_is_refused_before_anything_is_trained_with_the_way_out(whole: MetaStore) -> None:
    sgd = replace(RATES, network=replace(RATES.network, optimizer="SGD"))
    with pytest.raises(
        SettingsError, match=r"outer\.optimizer is 'SGD' .* was trained with Adam; set both back"
    ):
        trainer(whole, online=Online(online().learner, Backprop(), sgd)).check_optimizer()
    trainer(whole).check_optimizer()
    trainer(MemoryMeta()).check_optimizer()


def test_the_sample_of_episodes_is_the_same_at_every_repeat() -> None:
    chosen = [kept(f"user {n}", 16, 0.3) for n in range(2000)]
    assert chosen == [kept(f"user {n}", 16, 0.3) for n in range(2000)]
    assert 0.26 < np.mean(chosen) < 0.34


def test_a_rate_of_one_keeps_every_episode_and_zero_none() -> None:
    assert all(kept(f"user {n}", n, 1.0) for n in range(100))
    assert not any(kept(f"user {n}", n, 0.0) for n in range(100))


# The step size of the inner loop


def query_losses(size: float, state: TrainState, labels: Sequence[LearnedLabel]) -> Float64:
    """What each episode of labels loses, adapted by steps of a size."""
    theta = {**state.params, LR: torch.tensor(size)}
    episodes = [label.episode for label in labels if label.episode is not None]
    stacked = trainer(MemoryMeta()).lessons.stacked
    return losses_after_adaptation(online().learner, theta, episodes, stacked)


def of_one_class(episode: Episode | None) -> Episode | None:
    if episode is None:
        return None
    return replace(episode, support_y=np.ones_like(episode.support_y), query_y=np.ones_like(episode.query_y))


def costs(state: TrainState, labels: Sequence[LearnedLabel]) -> Float64:
    """What each size costs more than none, of each episode."""
    losses = np.stack([query_losses(size, state, labels) for size in SIZES])
    differences: Float64 = losses - losses[0]
    return differences


def said(found: Float64) -> Float64:
    """Costs as the sums hold them."""
    return np.stack([np.full(len(found), found.shape[1]), found.sum(1), np.square(found).sum(1)])


def test_a_theta_that_has_learned_nothing_is_not_calibrated(labels: list[LearnedLabel]) -> None:
    one = trainer(MemoryMeta())
    blank = start(one.learner, 1)
    assert not set(CALIBRATION) & set(prepared(one, labels, blank).sums)
    assert set(CALIBRATION) <= set(prepared(one, labels, replace(blank, step=1)).sums)


def test_the_step_size_is_the_one_that_new_episodes_lose_least_by(labels: list[LearnedLabel]) -> None:
    """Of episodes of one class each, which a task has for its own and theta knows nothing of."""
    one, state = trainer(MemoryMeta()), start(online().learner, 1)
    labels = [label._replace(episode=of_one_class(label.episode)) for label in labels]
    found = costs(prepared(one, labels, state, SIZES_EARLY + 1), labels)
    best = int(found.mean(1).argmin())
    assert found[best].mean() + found[best].std() / found.shape[1] ** 0.5 < 0
    before = prepared(one, labels, state, SIZES_EVERY)
    assert before.params[LR].item() == pytest.approx(SIZES[best])
    np.testing.assert_allclose(before.sums[LR].numpy(), said(found))


@pytest.mark.parametrize(("squares", "taken"), [(1e9, SIZES[2]), (1e13, 0.0)])
def test_a_size_that_may_be_better_than_none_by_chance_is_not_taken(
    labels: list[LearnedLabel], squares: float, taken: float
) -> None:
    one, state = trainer(MemoryMeta()), start(online().learner, 1)
    before = torch.zeros(3, len(SIZES), dtype=torch.float64)
    before[0], before[1, 2], before[2] = 1e6, -1e6, squares
    after = prepared(one, labels, replace(state, sums={LR: before}), SIZES_EVERY)
    assert after.params[LR].item() == pytest.approx(taken)


def test_a_size_that_pays_is_taken_where_a_larger_one_may_be_better_by_chance() -> None:
    """Of six sizes .3 saves most, and no more than a standard error of it; .03 saves less, and surely."""
    saved = torch.tensor([0.0, -0.01, -0.04, -0.05, -0.06, 0.1], dtype=torch.float64)
    error = torch.tensor([0.0, 0.001, 0.01, 0.06, 0.061, 0.1], dtype=torch.float64)
    before = 1000 * torch.stack([torch.ones(6, dtype=torch.float64), saved, saved**2 + 1000 * error**2])
    assert chosen(before, np.zeros((6, 1)))[0] == SIZES[2]
    before[2] += 1e6
    assert chosen(before, np.zeros((6, 1)))[0] == 0.0


def test_earlier_choices_count_less_and_less(labels: list[LearnedLabel]) -> None:
    one, state = trainer(MemoryMeta()), start(online().learner, 1)
    episodes = sum(label.episode is not None for label in labels)
    first = prepared(one, labels, state, SIZES_EVERY)
    second = prepared(one, labels, first, 2 * SIZES_EVERY)
    expected = first.sums[LR].numpy() * 2.0 ** (-episodes / MEMORY) + said(costs(second, labels))
    np.testing.assert_allclose(second.sums[LR].numpy(), expected, rtol=1e-6)


def test_between_choices_and_where_a_size_is_given_it_stays(labels: list[LearnedLabel]) -> None:
    one, state = trainer(MemoryMeta()), start(online().learner, 1)
    assert prepared(one, labels, state, SIZES_EARLY + 1).params[LR].equal(state.params[LR])
    for version in (1, SIZES_EARLY, SIZES_EARLY + SIZES_EVERY):
        assert LR in prepared(one, labels, state, version).sums
    given = GradientLearner(varied(SPEC, inner=replace(SPEC.problem.inner, lr=0.07)).problem)
    fixed = trainer(MemoryMeta(), online=Online(given, Backprop(), RATES))
    assert LR not in prepared(fixed, labels, start(given, 1), SIZES_EVERY).params


# Held-out tasks


HELD_OUT = {"held_out": 0.5, "fewest_tasks": 1}
"""Of the three tasks, some teach and some judge."""


def tasks(lines: Sequence[bytes]) -> set[str]:
    return {read_learned(line).task for line in lines}


def of_many(labels: Sequence[LearnedLabel], number: int) -> list[LearnedLabel]:
    """The same labels, dealt out to so many tasks."""
    return [label._replace(task=f"task {n}") for n in range(number) for label in labels[n % 5 :: 5]]


def test_a_held_out_task_is_never_trained_on(lines: list[bytes]) -> None:
    teaching = [line for line in lines if not held_out(read_learned(line).task, 0.5)]
    assert set() < tasks(teaching) < tasks(lines)
    some, others = MemoryMeta(), MemoryMeta()
    for end in ENDS:
        rounds(lines, some, **HELD_OUT).run(end)
        rounds(teaching, others).run(end)
    assert [bits(v.params) for v in versions(some)] == [bits(v.params) for v in versions(others)]
    assert [bits(v.trainer) for v in versions(some)] == [bits(v.trainer) for v in versions(others)]


def test_the_tasks_held_out_are_a_fixed_share() -> None:
    chosen = {task for task in map(str, range(5000)) if held_out(task, 0.05)}
    assert 0.04 < len(chosen) / 5000 < 0.06
    assert chosen < {task for task in map(str, range(5000)) if held_out(task, 0.1)}


@pytest.mark.parametrize(("number", "some_are"), [(FEWEST_TASKS - 1, False), (FEWEST_TASKS, True)])
def test_with_few_tasks_about_none_is_held_out(
    labels: list[LearnedLabel], number: int, some_are: bool
) -> None:
    store, found = MemoryMeta(), of_many(labels, number)
    advance = trainer(store, held_out=0.3).advance(None, LabelWindow.of(found), len(found), {})
    counted = int(store.load(1).trainer["statistics.count"][-1])
    assert (counted < len(found)) == some_are
    assert (advance.verdict.episodes > 0) == some_are


def test_a_task_that_is_alone_is_trained_on_whatever_its_id(labels: list[LearnedLabel]) -> None:
    alone = next(f"task {n}" for n in count() if held_out(f"task {n}", 0.05))
    store = MemoryMeta()
    trainer(store, held_out=0.05).advance(
        None, LabelWindow.of([label._replace(task=alone) for label in labels]), len(labels), {}
    )
    assert int(store.load(1).trainer["statistics.count"][-1]) == len(labels)


def test_a_candidate_that_held_out_tasks_are_worse_off_with_is_refused_and_its_labels_are_passed_over(
    labels: list[LearnedLabel],
) -> None:
    store, found = MemoryMeta(), of_many(labels, 80)
    one = trainer(store, held_out=0.5)
    assert one.advance(None, LabelWindow.of(found), len(found), {"position": 3, "through": 20}).published
    [before] = versions(store)
    misled = [x if held_out(x.task, 0.5) else x._replace(y=1 - x.y, episode=None) for x in found]
    refused = one.advance(before, LabelWindow.of(misled), len(misled), {"position": 7, "through": 60})
    assert refused.verdict.refused
    assert refused.verdict.loss_after > refused.verdict.loss_before
    after = store.load(2)
    assert (bits(after.params), bits(after.trainer)) == (bits(before.params), bits(before.trainer))
    numbers = {n: value for n, value in after.numbers.items() if n not in ("prior", "calibration")}
    assert numbers == {"position": 7, "through": 60, "step": before.numbers["step"]}


# The way back


def test_an_earlier_version_rolled_back_to_is_the_newest_and_training_goes_on_from_it(
    lines: list[bytes],
) -> None:
    store = MemoryMeta()
    for end in ENDS[:2]:
        rounds(lines, store).run(end)
    assert roll_back(store, 1) == 3
    first, second, third = versions(store)
    assert (bits(third.params), bits(third.trainer)) == (bits(first.params), bits(first.trainer))
    of_theta = {name: first.numbers[name] for name in ("step", "prior", "calibration")}
    assert third.numbers == {**second.numbers, **of_theta}
    assert first.numbers["prior"] != second.numbers["prior"]
    assert rounds(lines, store).run(ENDS[1]) is None
    last = rounds(lines, store).run(ENDS[2])
    assert last is not None
    assert last.published


def test_restoring_what_there_is_not_or_against_a_trainer_is_refused(lines: list[bytes]) -> None:
    store = MemoryMeta()
    rounds(lines, store).run(ENDS[0])
    with pytest.raises(CheckpointError):
        roll_back(store, 7)

    def trainer_comes_first(effect: str) -> None:
        store.before = no_crash
        rounds(lines, store).run(ENDS[1])

    store.before = trainer_comes_first
    with pytest.raises(StoreError, match="stop it"):
        roll_back(store, 1)
