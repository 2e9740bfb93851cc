"""The fraud handbook's transactions by customer: what was known at each, and episodes that wait for the labels.

Le Borgne, Siblini, Lebichot, Bontempi 2022, Reproducible Machine Learning for Credit Card Fraud Detection, chapter
3: a fraud comes to light seven days after it happened. So no feature and no support set holds a younger label.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from benchmarks.real_sets import (
    SEED,
    TEST,
    VALIDATION,
    Fold,
    RealSet,
    drawn,
    of_tasks,
    problem_of,
    read,
)
from engine.episodes.task_source import Examples, batch_of
from engine.features.columns import Numeric
from engine.features.encoder import Features
from engine.targets import Classification
from engine.types import Episodes, Float64, Int64

DAY_S = 86_400
DELAY_S = 7 * DAY_S
JULY_S = 91.0 * DAY_S
"""Choices and training end here, counted from April 1, and the test begins."""

SUPPORT, QUERIES, FEWEST = 64, 32, 8
TRAINING, CHOOSING = 400, 750
"""Customers, drawn at random from all; the others are judged on, an episode of each."""


@dataclass(frozen=True)
class DelayedEpisodes:
    """Episodes cut at a random moment not before `since_s`: labels at least a week old, and what comes next.

    Customers who never have `FEWEST` such labels are left out. Examples are sorted by task and time.
    """

    examples: Examples
    since_s: float = 0.0

    def draw(self, count: int, *, seed: int, step: int) -> Episodes:
        """Draw `count` episodes of different customers, as far as there are so many."""
        rng = np.random.default_rng((seed, step))
        pairs = [self._cut(self._histories[i], rng) for i in self._order(count, rng)]
        y, sides = self.examples.y, zip(zip(*pairs, strict=True), (SUPPORT, QUERIES), strict=True)
        return Episodes(
            *(batch_of(self.examples, side, [y[i] for i in side], most=most) for side, most in sides)
        )

    def tasks(self, count: int, *, seed: int, step: int) -> Int64:
        """Number the customers of that draw."""
        order = self._order(count, np.random.default_rng((seed, step)))
        return np.array([self.examples.task[self._histories[i][0]] for i in order])

    def _order(self, count: int, rng: np.random.Generator) -> Int64:
        rounds = [rng.permutation(len(self._histories)) for _ in range(-(-count // len(self._histories)))]
        return np.concatenate(rounds)[:count]

    def _cut(self, history: Int64, rng: np.random.Generator) -> tuple[Int64, Int64]:
        cut = int(rng.choice(self._cuts(history)))
        known = self._known(history)[cut]
        return history[max(0, known - SUPPORT) : known], history[cut : cut + QUERIES]

    @cached_property
    def _histories(self) -> list[Int64]:
        """Indices of each customer's examples."""
        starts = np.flatnonzero(np.diff(self.examples.task)) + 1
        histories = np.split(np.arange(len(self.examples.task)), starts)
        return [history for history in histories if len(self._cuts(history))]

    def _cuts(self, history: Int64) -> Int64:
        late = self.examples.time_s[history] >= self.since_s
        return np.flatnonzero(late & (self._known(history) >= FEWEST))

    def _known(self, history: Int64) -> Int64:
        """How many labels are a week old at each transaction."""
        time_s = self.examples.time_s[history]
        return np.searchsorted(time_s, time_s - DELAY_S, side="right")


def fraud() -> RealSet:
    """Whether a transaction is a fraud; a task is a customer."""
    names = (
        "amount", "hour", "weekend",
        *(f"{what}_{days}d" for days in (1, 7, 30) for what in ("count", "relative", "risk", "seen")),
    )  # fmt: skip
    features = Features(tuple(Numeric(name) for name in names))

    def folds() -> Iterator[Fold]:
        examples = transactions()
        order = np.random.default_rng(SEED).permutation(np.unique(examples.task))
        training, choosing, judged = np.split(order, [TRAINING, TRAINING + CHOOSING])
        early = examples.take(examples.time_s < JULY_S)
        mine = of_tasks(early, training)
        yield Fold(
            mine,
            DelayedEpisodes(mine),
            drawn(DelayedEpisodes(of_tasks(early, choosing)), len(choosing), VALIDATION),
            drawn(DelayedEpisodes(of_tasks(examples, judged), JULY_S), len(judged), TEST),
        )

    title = f"Fraud handbook, other customers and later months, last {SUPPORT} labels known, log loss (nats)"
    return RealSet(
        title, "customer", problem_of(features, Classification((0, 1)), SUPPORT), True, QUERIES, folds
    )


def transactions() -> Examples:
    """Every transaction with what was known at its moment, sorted by customer and time."""
    rows = read("fraud_handbook").sort("customer_id", "t", maintain_order=True)
    t, customer, terminal = (
        rows[name].to_numpy().astype(np.int64) for name in ("t", "customer_id", "terminal_id")
    )
    amount, fraud = (
        rows["amount_cents"].to_numpy() / 100,
        (rows["scenario"].to_numpy() > 0).astype(np.float64),
    )
    columns = [amount, t % DAY_S / 3600, (t // DAY_S + 6) % 7 >= 5]
    for days in (1, 7, 30):
        count, spent = past(customer, t, amount, 0, days)
        seen, frauds = past(terminal, t, fraud, DELAY_S, days)
        usual = np.where(count > 0, spent / np.maximum(count, 1), amount)
        columns += [count, (amount + 1) / (usual + 1), frauds / np.maximum(seen, 1), seen]
    return Examples(
        np.stack(columns, 1).astype(np.float32), fraud.astype(np.float32), customer, t.astype(np.float64)
    )


def past(key: Int64, t: Int64, value: Float64, delay_s: int, days: int) -> tuple[Float64, Float64]:
    """Count and sum of the values of the same key in so many days, up to `delay_s` before each moment."""
    line = key * (1 << 32) + t  # one line for all keys: no window reaches from one into another
    order = np.argsort(line, kind="stable")
    sums, points = np.concatenate([[0.0], np.cumsum(value[order])]), line[order]
    last = np.searchsorted(points, line - delay_s, side="left")
    first = np.searchsorted(points, line - delay_s - days * DAY_S, side="left")
    return (last - first).astype(np.float64), sums[last] - sums[first]
