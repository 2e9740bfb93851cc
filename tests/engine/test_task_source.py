"""Episodes drawn from examples: balanced, disjoint, repeatable, cut in time where time matters."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.episodes.task_source import ClassEpisodes, Examples, TaskEpisodes, held_out
from engine.types import Batch, EngineError


def examples(classes: int = 6, each: int = 7, tasks: int = 1) -> Examples:
    """Every example is a number of its own, so that an episode can be traced back."""
    count = classes * each * tasks
    index = np.arange(count)
    return Examples(
        x=index.astype(np.float32).reshape(-1, 1),
        y=(index % classes).astype(np.float32),
        task=index // (classes * each),
        time_s=index.astype(np.float64),
    )


def traced(side: Batch, task: int) -> list[int]:
    return [int(x) for x, w in zip(side.x[task, :, 0], side.weight[task], strict=True) if w > 0]


@settings(deadline=None, max_examples=30)
@given(ways=st.integers(2, 6), shots=st.integers(1, 4), queries=st.integers(1, 9), seed=st.integers(0, 99))
def test_an_episode_has_its_ways_and_shots_and_judges_on_other_examples_of_the_same_classes(
    ways: int, shots: int, queries: int, seed: int
) -> None:
    pool = examples()
    drawn = ClassEpisodes(pool, ways, shots, queries).draw(3, seed=seed, step=0)
    for task in range(3):
        support, query = traced(drawn.support, task), traced(drawn.query, task)
        assert not set(support) & set(query)
        number: dict[int, int] = {}
        for example, y in zip(support + query, [*drawn.support.y[task], *drawn.query.y[task]], strict=False):
            assert number.setdefault(example % 6, int(y)) == int(y)
        assert sorted(number.values()) == list(range(ways))
        assert len(support) == ways * shots
        assert len(query) == ways * min(queries, 7 - shots)


def test_weights_of_each_side_of_an_episode_sum_to_one() -> None:
    drawn = ClassEpisodes(examples(), 3, 2, 4).draw(5, seed=0, step=0)
    for side in drawn:
        torch.testing.assert_close(side.weight.sum(1), torch.ones(5))


def test_the_classes_of_an_episode_come_from_one_task_and_a_task_with_fewer_gives_fewer_ways() -> None:
    pool = examples(classes=4, each=5, tasks=3)
    pool = pool.take(~((pool.task == 2) & (pool.y > 1)))
    drawn = ClassEpisodes(pool, 4, 1, 2).draw(40, seed=0, step=0)
    ways = []
    for task in range(40):
        seen = traced(drawn.support, task)
        assert len({int(pool.task[pool.x[:, 0] == i][0]) for i in seen}) == 1
        ways.append(len(seen))
    assert set(ways) == {2, 4}


@pytest.mark.parametrize(
    "source", [ClassEpisodes(examples(), 3, 1, 2), TaskEpisodes(examples(tasks=5), 3, 4)]
)
def test_a_draw_depends_on_seed_and_step_alone(source: ClassEpisodes | TaskEpisodes) -> None:
    first, again = source.draw(4, seed=1, step=2), source.draw(4, seed=1, step=2)
    assert all(
        torch.equal(a, b) for x, y in zip(first, again, strict=True) for a, b in zip(x, y, strict=True)
    )
    assert not torch.equal(first.support.x, source.draw(4, seed=1, step=3).support.x)
    assert not torch.equal(first.support.x, source.draw(4, seed=2, step=2).support.x)


@settings(deadline=None, max_examples=30)
@given(shots=st.integers(1, 8), queries=st.integers(1, 8), seed=st.integers(0, 99))
def test_a_temporal_episode_judges_on_what_came_right_after_its_support_set(
    shots: int, queries: int, seed: int
) -> None:
    drawn = TaskEpisodes(examples(tasks=4), shots, queries, temporal=True).draw(4, seed=seed, step=0)
    for task in range(4):
        support, query = traced(drawn.support, task), traced(drawn.query, task)
        assert support + query == list(range(support[0], support[0] + len(support) + len(query)))
        assert len(support) == shots
        assert 1 <= len(query) <= queries


@pytest.mark.parametrize("balanced", [False, True])
def test_a_drawn_episode_of_a_task_is_its_own_and_disjoint(balanced: bool) -> None:
    drawn = TaskEpisodes(examples(classes=3, tasks=4), 2, 50, balanced=balanced).draw(4, seed=0, step=0)
    seen = set()
    for task in range(4):
        support, query = traced(drawn.support, task), traced(drawn.query, task)
        owners = {i // 21 for i in support + query}
        assert len(owners) == 1
        seen |= owners
        assert not set(support) & set(query)
        if balanced:
            assert np.bincount([i % 3 for i in support]).tolist() == [2, 2, 2]
            assert len(query) == 10, "at most half"
        else:
            assert len(support) == 2
            assert len(query) == 19
    assert seen == {0, 1, 2, 3}


def test_a_source_tells_which_task_each_episode_of_a_draw_is_of() -> None:
    source = TaskEpisodes(examples(tasks=5), 3, 4)
    drawn = source.draw(7, seed=1, step=2)
    owners = [traced(drawn.support, task)[0] // 42 for task in range(7)]
    assert source.tasks(7, seed=1, step=2).tolist() == owners


def test_more_episodes_than_tasks_visit_every_task_before_any_comes_again() -> None:
    drawn = TaskEpisodes(examples(tasks=3), 2, 2).draw(6, seed=0, step=0)
    owners = [traced(drawn.support, task)[0] // 42 for task in range(6)]
    assert sorted(owners[:3]) == sorted(owners[3:]) == [0, 1, 2]


@pytest.mark.parametrize(
    "build",
    [
        lambda: ClassEpisodes(examples(each=2), 2, 2, 1),
        lambda: ClassEpisodes(examples(), 1, 1, 1),
        lambda: TaskEpisodes(examples(), 42, 1),
        lambda: TaskEpisodes(examples(), 0, 1),
        lambda: TaskEpisodes(examples(), 1, 1, temporal=True, balanced=True),
    ],
)
def test_examples_that_hold_no_episode_are_refused(
    build: Callable[..., ClassEpisodes] | Callable[..., TaskEpisodes],
) -> None:
    with pytest.raises(EngineError, match="episode"):
        build()


@pytest.mark.parametrize("classes", [False, True])
def test_whole_tasks_or_whole_classes_are_held_out(classes: bool) -> None:
    pool = examples(tasks=5)
    trained, judged = held_out(pool, 0.4, seed=0, classes=classes)
    assert len(trained.x) + len(judged.x) == len(pool.x)
    groups = [
        set(zip(part.task, part.y if classes else part.task, strict=True)) for part in (trained, judged)
    ]
    assert not groups[0] & groups[1]
    assert len(groups[1]) == (12 if classes else 2)


def test_a_balanced_support_set_leaves_the_queries_the_tasks_own_share_of_a_rare_class() -> None:
    pool = examples(classes=10, each=6, tasks=4)
    pool = pool._replace(y=(pool.y == 0).astype(np.float32))  # 6 of the 60 examples of a task are rare
    drawn = TaskEpisodes(pool, 5, 20, balanced=True).draw(400, seed=0, step=0)
    assert float(drawn.query.y.mean()) == pytest.approx(0.1, abs=0.01)


def test_a_balanced_support_set_weighs_back_to_the_class_counts_of_what_it_was_drawn_from() -> None:
    pool = examples(classes=10, each=6, tasks=4)
    pool = pool._replace(y=(pool.y == 0).astype(np.float32))  # 6 of the 60 examples of a task are rare
    support, query = TaskEpisodes(pool, 2, 20, balanced=True).draw(40, seed=0, step=0)
    assert ((support.weight > 0).sum(1) == 4).all()
    left = 6 - query.y.sum(1)
    torch.testing.assert_close((support.weight * support.y).sum(1), left / 40)
    torch.testing.assert_close(support.weight.sum(1), torch.ones(40))
    torch.testing.assert_close(query.weight, torch.full((40, 20), 1 / 20))


def test_an_episode_of_classes_tells_its_domain_and_is_its_own_task_where_there_is_one() -> None:
    source = ClassEpisodes(examples(tasks=3), 2, 1, 2)
    drawn = source.draw(20, seed=1, step=2)
    owners = [traced(drawn.support, task)[0] // 42 for task in range(20)]
    assert source.tasks(20, seed=1, step=2).tolist() == owners
    alone = ClassEpisodes(examples(), 2, 1, 2)
    numbers = [n for step in range(3) for n in alone.tasks(4, seed=1, step=step)]
    assert len(set(numbers)) == 12


def shapes(
    source: TaskEpisodes | ClassEpisodes, draws: int = 60, count: int = 2
) -> tuple[set[int], set[int]]:
    """Lengths of support and of query sets over many draws."""
    drawn = [source.draw(count, seed=0, step=step) for step in range(draws)]
    return {one.support.y.shape[1] for one in drawn}, {one.query.y.shape[1] for one in drawn}


def uneven() -> Examples:
    """Tasks of 12 to 51 examples, of which one in four is of class 1 and so few others of class 2."""
    task = np.repeat(np.arange(40), np.arange(12, 52))
    index = np.arange(len(task))
    y = np.where(index % 4 == 0, 1, np.where(index % 11 == 0, 2, 0))
    return Examples(index[:, None].astype(np.float32), y.astype(np.float32), task, index.astype(np.float64))


@pytest.mark.parametrize("count", [1, 4])
def test_ragged_sets_come_in_few_lengths(count: int) -> None:
    support, query = shapes(TaskEpisodes(uneven(), 9, 40, balanced=True), count=count)
    assert support <= {8, 16, 22}
    assert query <= {8, 16, 25}
    support, query = shapes(TaskEpisodes(uneven(), 9, 40, temporal=True), count=count)
    assert support == {9}
    assert query <= {8, 16, 32, 40}
    support, query = shapes(ClassEpisodes(uneven(), 3, 1, 40), count=count)
    assert support == {3}
    assert query <= {8, 16, 32, 48}


def test_sets_that_are_all_as_long_are_not_padded() -> None:
    assert shapes(ClassEpisodes(examples(), 3, 2, 15)) == ({6}, {15})
    assert shapes(TaskEpisodes(examples(tasks=3), 5, 11)) == ({5}, {11})
    assert shapes(TaskEpisodes(examples(classes=3, each=40, tasks=3), 3, 11, balanced=True)) == ({9}, {11})


@pytest.mark.parametrize("source", [ClassEpisodes, TaskEpisodes])
def test_a_label_that_is_no_number_is_refused(source: type[ClassEpisodes] | type[TaskEpisodes]) -> None:
    pool = examples(tasks=2)
    pool.y[3] = np.nan
    with pytest.raises(EngineError, match="label of example 3 is nan"):
        source(pool)


def test_as_many_tasks_as_are_needed_are_held_out() -> None:
    trained, judged = held_out(examples(tasks=5), 0.1, seed=0, classes=False, least=2)
    assert [len(np.unique(part.task)) for part in (trained, judged)] == [3, 2]
