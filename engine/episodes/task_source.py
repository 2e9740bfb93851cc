"""Episodes drawn from labelled examples: N-way K-shot out of classes, or support and query sets out of tasks.

Episodic training (Vinyals et al. 2016, arXiv:1606.04080, section 2.2): the model meets, again and again, tasks
put together as those it will be judged on. A draw is a function of (seed, step) alone, so training resumed at a
step sees what it would have seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch

from engine.batches import bucket_of, class_weights, even
from engine.types import Batch, Bool, EngineError, Episodes, Float32, Float64, Int64


class Examples(NamedTuple):
    """Labelled examples of many tasks."""

    x: Float32
    """[N, W] features in stored form."""
    y: Float32
    """[N] class index, or value."""
    task: Int64
    """[N] index of the task (a user, a domain) that each belongs to."""
    time_s: Float64
    """[N] event time; zero where there is none, and then a task's examples are in no order."""

    def take(self, chosen: Bool | Int64) -> Examples:
        """Some of the examples."""
        return Examples(self.x[chosen], self.y[chosen], self.task[chosen], self.time_s[chosen])


Side = tuple[Int64, Float32]
"""Indices of examples, and their labels in the episode."""

Cut = tuple[Int64, Int64, Float32]
"""Indices of support and of query examples, and the weights of the former."""


class TaskSource(Protocol):
    """Draws episodes."""

    def draw(self, count: int, *, seed: int, step: int) -> Episodes:
        """Draw `count` episodes, each with a query set; the same for the same seed and step."""
        ...


@runtime_checkable
class TellsTasks(Protocol):
    """A `TaskSource` that tells which task an episode is of: it may draw a task more than once."""

    def tasks(self, count: int, *, seed: int, step: int) -> Int64:
        """Number the task that each episode of that draw is of."""
        ...


def tasks_drawn(source: TaskSource, count: int, *, seed: int, step: int) -> Int64:
    """Which task each episode of a draw is of; each is of its own where the source does not tell."""
    if isinstance(source, TellsTasks):
        return source.tasks(count, seed=seed, step=step)
    return step * count + np.arange(count)


@dataclass(frozen=True)
class ClassEpisodes:
    """N-way K-shot: a task is N classes, drawn anew and numbered anew in every episode.

    The classes of one episode come from one task of the examples (a domain), which is drawn in proportion to its
    classes. Where it has fewer than `ways`, the episode has fewer; where a class has fewer than shots + queries
    examples, the query set is smaller. Labels are drawn, so a learner's classes must be exchangeable.

    Raises:
        EngineError: no task has two classes of more than `shots` examples, or a label is not finite.

    """

    examples: Examples
    ways: int = 5
    shots: int = 1
    queries: int = 15
    """Query examples of a class."""

    def __post_init__(self) -> None:
        if min(self.ways - 1, self.shots, self.queries) < 1:
            raise EngineError(
                "an episode needs at least 2 ways, 1 shot and 1 query, got "
                f"{self.ways}, {self.shots} and {self.queries}"
            )
        _check_labels(self.examples)
        if not self._groups:
            raise EngineError(
                f"no task has two classes of more than {self.shots} examples, so there is no episode to draw; "
                "use fewer shots"
            )

    def draw(self, count: int, *, seed: int, step: int) -> Episodes:
        """Draw `count` episodes: support [U, ways * shots], query [U, ways * queries], padded with weight 0."""
        rng = np.random.default_rng((seed, step))
        episodes = [self._episode(self._groups[i], rng) for i in self._order(count, rng)]
        sides = zip(zip(*episodes, strict=True), self._most, strict=True)
        return Episodes(
            *(batch_of(self.examples, *zip(*side, strict=True), most=most) for side, most in sides)
        )

    def tasks(self, count: int, *, seed: int, step: int) -> Int64:
        """Which task each episode of that draw is of; where there is but one, each episode is a task of its own."""
        if len(np.unique(self.examples.task)) == 1:
            return step * count + np.arange(count)
        return self._order(count, np.random.default_rng((seed, step)))

    def _order(self, count: int, rng: np.random.Generator) -> Int64:
        sizes = np.array([len(group) for group in self._groups])
        return rng.choice(len(sizes), count, p=sizes / sizes.sum())

    @cached_property
    def _groups(self) -> list[list[Int64]]:
        """Indices of the examples of each class that has enough of them, by task."""
        return _classes_of_tasks(self.examples, more_than=self.shots)

    @cached_property
    def _most(self) -> tuple[int, int]:
        """Examples of the largest support set, and of the largest query set."""
        left = [sorted((len(one) - self.shots for one in group), reverse=True) for group in self._groups]
        queries = [sum(min(count, self.queries) for count in counts[: self.ways]) for counts in left]
        return self.shots * min(self.ways, max(map(len, left))), max(queries)

    def _episode(self, group: list[Int64], rng: np.random.Generator) -> tuple[Side, Side]:
        """Support and query examples."""
        classes = rng.permutation(len(group))[: self.ways]
        drawn = [rng.permutation(group[k])[: self.shots + self.queries] for k in classes]
        return self._side([one[: self.shots] for one in drawn], rng), self._side(
            [one[self.shots :] for one in drawn], rng
        )

    def _side(self, classes: Sequence[Int64], rng: np.random.Generator) -> tuple[Int64, Float32]:
        """Examples and their labels, in an order that says nothing of the labels."""
        index = np.concatenate(classes)
        labels = np.repeat(np.arange(len(classes)), [len(one) for one in classes]).astype(np.float32)
        order = rng.permutation(len(index))
        return index[order], labels[order]


@dataclass(frozen=True)
class TaskEpisodes:
    """A task is a user, a device, a domain: some of its examples are the support set, others the query set.

    With `temporal`, an episode is cut at a random moment: the last `shots` labels before it, the next `queries`
    after it. Otherwise both are drawn: `shots` in all, or with `balanced` up to `shots` of each class out of what
    the query set leaves, which is drawn first and takes at most half: a support set that took its share of a rare
    class first would leave none to be judged on. Its weights are those of a stream's balanced set: they weigh it back
    to the class counts of what it was drawn from. The two never overlap; tasks with too few examples for both are
    left out.

    Raises:
        EngineError: every task has too few examples, or a label is not finite.

    """

    examples: Examples
    shots: int = 10
    queries: int = 15
    temporal: bool = False
    balanced: bool = False

    def __post_init__(self) -> None:
        if min(self.shots, self.queries) < 1 or (self.temporal and self.balanced):
            raise EngineError(
                f"an episode needs at least 1 shot and 1 query, and is temporal or balanced, not both: got "
                f"{self.shots}, {self.queries}, temporal={self.temporal}, balanced={self.balanced}"
            )
        _check_labels(self.examples)
        if not self._tasks:
            raise EngineError(
                f"no task has more than {self.shots} examples, so there is no episode to draw; use fewer shots"
            )

    def draw(self, count: int, *, seed: int, step: int) -> Episodes:
        """Draw `count` episodes of different tasks, as far as there are so many."""
        rng = np.random.default_rng((seed, step))
        tasks = self._tasks
        cut = self._cut_in_time if self.temporal else self._balanced if self.balanced else self._drawn
        support, query, weights = zip(*(cut(tasks[i], rng) for i in self._order(count, rng)), strict=True)
        most, most_queries = self._most
        return Episodes(self._batch(support, most, weights), self._batch(query, most_queries))

    def tasks(self, count: int, *, seed: int, step: int) -> Int64:
        """Which task each episode of that draw is of: episodes of one task are not independent of each other."""
        return self._order(count, np.random.default_rng((seed, step)))

    def _order(self, count: int, rng: np.random.Generator) -> Int64:
        rounds = [rng.permutation(len(self._tasks)) for _ in range(-(-count // len(self._tasks)))]
        return np.concatenate(rounds)[:count]

    @cached_property
    def _tasks(self) -> list[Int64]:
        """Indices of each task's examples, in order of time."""
        groups = _groups_of(self.examples.task, np.lexsort((self.examples.time_s, self.examples.task)))
        return [group for group in groups if len(group) > self.shots]

    @cached_property
    def _most(self) -> tuple[int, int]:
        """Examples of the largest support set, and of the largest query set."""
        longest = max(map(len, self._tasks))
        if not self.balanced:
            return self.shots, min(self.queries, longest - self.shots)
        counts = [np.unique(self.examples.y[task], return_counts=True)[1] for task in self._tasks]
        return max(int(np.minimum(one, self.shots).sum()) for one in counts), min(self.queries, longest // 2)

    def _cut_in_time(self, task: Int64, rng: np.random.Generator) -> Cut:
        cut = int(rng.integers(self.shots, len(task)))
        return task[cut - self.shots : cut], task[cut : cut + self.queries], even(self.shots)

    def _drawn(self, task: Int64, rng: np.random.Generator) -> Cut:
        order = rng.permutation(task)
        return order[: self.shots], order[self.shots : self.shots + self.queries], even(self.shots)

    def _balanced(self, task: Int64, rng: np.random.Generator) -> Cut:
        order = rng.permutation(task)
        query, rest = np.split(order, [min(self.queries, len(order) // 2)])
        _, label, counts = np.unique(self.examples.y[rest], return_inverse=True, return_counts=True)
        chosen = np.flatnonzero(_rank_among_equals(label) < self.shots)
        weight = class_weights(label[None, chosen], np.ones((1, len(chosen))), counts[None])[0]
        return rest[chosen], query, weight / weight.sum()

    def _batch(self, index: Sequence[Int64], most: int, weights: Sequence[Float32] | None = None) -> Batch:
        return batch_of(self.examples, index, [self.examples.y[i] for i in index], weights, most=most)


def _check_labels(examples: Examples) -> None:
    wrong = np.flatnonzero(~np.isfinite(examples.y))
    if len(wrong):
        raise EngineError(
            f"the label of example {wrong[0]} is {examples.y[wrong[0]]}; leave such examples out"
        )


def batch_of(
    examples: Examples,
    index: Sequence[Int64],
    labels: Sequence[Float32],
    weights: Sequence[Float32] | None = None,
    *,
    most: int,
) -> Batch:
    """Examples by index, a list a task; each weighs 1 / length if not told otherwise.

    All are padded to the bucket of the longest, so that they come in few shapes, but not beyond `most`, the longest
    list there is: lists that are always as long are never padded.
    """
    longest = max(len(i) for i in index)
    shape = len(index), max(longest, min(bucket_of(longest), most))
    at, (y, weight) = np.zeros(shape, np.int64), np.zeros((2, *shape), np.float32)
    weights = [even(len(i)) for i in index] if weights is None else weights
    for u, (i, label, weighs) in enumerate(zip(index, labels, weights, strict=True)):
        at[u, : len(i)], y[u, : len(i)], weight[u, : len(i)] = i, label, weighs
    x = np.where(weight[..., None] > 0, examples.x[at], np.float32(0))
    return Batch(torch.from_numpy(x), torch.from_numpy(y), torch.from_numpy(weight))


def held_out(
    examples: Examples, share: float, *, seed: int, classes: bool, least: int = 1
) -> tuple[Examples, Examples]:
    """Split by whole tasks, or by whole `classes` of each: what to train on, and `least` or more to judge on."""
    key = np.stack([examples.task, examples.y.astype(np.int64) if classes else examples.task])
    groups, group = np.unique(key, axis=1, return_inverse=True)
    count = groups.shape[1]
    chosen = np.random.default_rng(seed).permutation(count)[: max(least, round(share * count))]
    judged = np.isin(group.reshape(-1), chosen)
    return examples.take(~judged), examples.take(judged)


def _classes_of_tasks(examples: Examples, *, more_than: int) -> list[list[Int64]]:
    order = np.lexsort((examples.y, examples.task))
    groups: list[list[Int64]] = []
    for task in _groups_of(examples.task, order):
        classes = [one for one in _groups_of(examples.y[task], np.arange(len(task))) if len(one) > more_than]
        if len(classes) > 1:
            groups.append([task[one] for one in classes])
    return groups


def _groups_of(key: Float32 | Int64, order: Int64) -> list[Int64]:
    """Runs of equal keys in an order that sorts by key."""
    return np.split(order, np.flatnonzero(np.diff(key[order])) + 1) if len(order) else []


def _rank_among_equals(label: Int64) -> Int64:
    """How many equal labels come before each."""
    rank = np.zeros(len(label), np.int64)
    for value in np.unique(label):
        rank[label == value] = np.arange((label == value).sum())
    return rank
