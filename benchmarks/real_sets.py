"""The real data sets as tasks: which are trained on, which choices are made on, which are judged on, fold by fold.

Whole tasks are split by a seeded permutation. Every user and every domain is judged on in one fold, with a theta
that never met it; a fold's validation tasks are apart from both its training and its test tasks.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import polars as pl
from torch import nn

from engine.episodes.task_source import ClassEpisodes, Examples, TaskEpisodes, TaskSource
from engine.features.columns import Numeric, Text
from engine.features.encoder import Features
from engine.problem import Problem
from engine.targets import Classification
from engine.types import Episodes, Float32, Int64

SEED = 0
VALIDATION, TEST = 1, 2
"""Seeds of the episodes that choices are made on, and of those that are reported."""

BLOCK = 50
"""Episodes of one call."""


class Drawn(NamedTuple):
    """Episodes in blocks, and the number of the task that each is of."""

    blocks: list[Episodes]
    task: Int64


@dataclass(frozen=True)
class Fold:
    """One split of the tasks."""

    examples: Examples
    """Of the training tasks."""
    training: TaskSource
    validation: Drawn
    test: Drawn


@dataclass(frozen=True)
class RealSet:
    """One data set: what is predicted, of whom, and how a contender is judged on it."""

    title: str
    unit: str
    """What a task is; intervals count these."""
    problem: Problem
    by_loss: bool
    """Whether log loss decides; else accuracy."""
    queries: int
    """Most query examples of a training episode."""
    folds: Callable[[], Iterator[Fold]]

    @property
    def target(self) -> Classification:
        """What is predicted."""
        assert isinstance(self.problem.target, Classification)
        return self.problem.target

    def shown(self, value: float) -> str:
        """A log loss in nats, or an accuracy in percent."""
        return f"{value:.4f}" if self.by_loss else f"{100 * value:.1f}"


class Tasks(NamedTuple):
    """The tasks of one split, by number."""

    training: Int64
    validation: Int64
    test: Int64


class TaskwiseSource(TaskSource, Protocol):
    """A source that tells which task each episode of a draw is of."""

    def tasks(self, count: int, *, seed: int, step: int) -> Int64:
        """Number the tasks of that draw."""
        ...


def wisdm() -> RealSet:
    """Six activities of 36 users, told from ten seconds of a phone's accelerometer."""
    rows = read("wisdm").sort("user", "UNIQUE_ID", maintain_order=True)
    features = Features(
        tuple(
            Numeric(column.name, optional=column.null_count() > 0)
            for column in rows.drop("UNIQUE_ID", "user", "activity")
        )
    )
    examples = _examples(features, rows, "activity", "user")
    shots, queries, activities = 5, 30, rows["activity"].unique().sort().to_list()
    size = shots * len(activities)

    def source(tasks: Int64) -> TaskEpisodes:
        return TaskEpisodes(of_tasks(examples, tasks), shots, queries, balanced=True)

    def folds() -> Iterator[Fold]:
        for split in splits(examples, folds=3, validation=6):
            yield Fold(
                of_tasks(examples, split.training),
                source(split.training),
                drawn(source(split.validation), 100, VALIDATION),
                drawn(source(split.test), 300, TEST),
            )

    problem = problem_of(features, Classification(tuple(activities)), size)
    title = f"WISDM, users left out, {shots} windows of each activity, accuracy (%)"
    return RealSet(title, "user", problem, False, queries, folds)


def hwu64() -> RealSet:
    """What is asked of a home assistant: the 15 of 18 domains that have at least two intents."""
    rows = read("hwu64").filter(pl.col("split").is_in(["train", "valid", "test"]))
    rows = rows.filter(pl.col("intent").n_unique().over("domain") > 1)
    title = "HWU64, domains left out, up to 5 intents of one domain, 5 utterances of each, accuracy (%)"
    return _intents(title, rows, validation=3, episodes=50)


def clinc150() -> RealSet:
    """What is asked of an assistant: 15 intents in each of 10 domains; without what is out of scope."""
    rows = read("clinc150").filter(pl.col("intent") != "oos")
    title = "CLINC150, domains left out, 5 intents of one domain, 5 utterances of each, accuracy (%)"
    return _intents(title, rows, validation=2, episodes=100)


def _intents(title: str, rows: pl.DataFrame, validation: int, episodes: int) -> RealSet:
    """A task is some intents of one domain; `episodes` of each domain are judged on."""
    ways, shots, queries = 5, 5, 5
    size = ways * shots
    features = Features((Text("text", buckets=2048, embedding=128),))
    examples = _examples(features, rows.sort("domain", "intent", "text"), "intent", "domain")

    def source(domains: Int64) -> ClassEpisodes:
        return ClassEpisodes(of_tasks(examples, domains), ways, shots, queries)

    def judged(domains: Int64, count: int, seed: int) -> Drawn:
        """As many of each domain, however many intents it has: the domain is the unit."""
        sources = [(source(domains[i : i + 1]), steps(count)) for i in range(len(domains))]
        blocks = [one.draw(BLOCK, seed=seed, step=step) for one, turns in sources for step in turns]
        return Drawn(blocks, np.repeat(domains, BLOCK * len(steps(count))))

    def folds() -> Iterator[Fold]:
        for split in splits(examples, folds=3, validation=validation):
            yield Fold(
                of_tasks(examples, split.training),
                source(split.training),
                judged(split.validation, BLOCK, VALIDATION),
                judged(split.test, episodes, TEST),
            )

    target = Classification(tuple(range(ways)), exchangeable=True)
    problem = replace(problem_of(features, target, size), network=linear)
    return RealSet(title, "domain", problem, False, ways * queries, folds)


def linear(inputs: int, outputs: int) -> nn.Module:
    """One layer above a bag of n-grams, whose mean is too small for a layer's bias without normalisation."""
    return nn.Sequential(nn.LayerNorm(inputs, elementwise_affine=False), nn.Linear(inputs, outputs))


def splits(examples: Examples, folds: int, validation: int) -> Iterator[Tasks]:
    """Split the tasks so that each is tested in one fold; so many others of each fold are for its choices."""
    order = np.random.default_rng(SEED).permutation(np.unique(examples.task))
    edges = [round(i * len(order) / folds) for i in range(folds + 1)]
    for first, last in pairwise(edges):
        rest = np.concatenate([order[last:], order[:first]])
        yield Tasks(rest[validation:], rest[:validation], order[first:last])


def drawn(source: TaskwiseSource, count: int, seed: int) -> Drawn:
    """At least `count` episodes, as many of each task as nearly as can be."""
    blocks = [source.draw(BLOCK, seed=seed, step=step) for step in steps(count)]
    return Drawn(blocks, np.concatenate([source.tasks(BLOCK, seed=seed, step=step) for step in steps(count)]))


def steps(count: int) -> range:
    """Number the blocks that hold `count` episodes."""
    return range(-(-count // BLOCK))


def of_tasks(examples: Examples, tasks: Int64) -> Examples:
    """The examples of some tasks."""
    return examples.take(np.isin(examples.task, tasks))


def problem_of(features: Features, target: Classification, support: int) -> Problem:
    """Describe the tasks: the default network, all of it adapting."""
    return Problem(features, target, adapts="all", support=support)


def read(name: str) -> pl.DataFrame:
    """Read one data set."""
    return pl.read_parquet(Path(os.environ["REPTIDE_DATA"]) / f"{name}.parquet")


def _examples(features: Features, rows: pl.DataFrame, label: str, task: str) -> Examples:
    x: Float32 = features.encode(rows.to_dicts()).x
    y, tasks = (rows[name].rank("dense").to_numpy().astype(np.int64) - 1 for name in (label, task))
    return Examples(x, y.astype(np.float32), tasks, np.zeros(len(x)))
