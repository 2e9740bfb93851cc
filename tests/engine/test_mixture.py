"""The hedge's bound: whatever the labels, their order and delay, served is hardly worse than the better."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import scan
from engine.fold import rules_of
from engine.learners.gradient import GradientLearner
from engine.spec import Classification, Memory, Policy, Regression, TaskSpec
from engine.table import TaskTable, layout_of
from engine.types import Kind
from tests.engine.driving import SMALL, SPECS, fold_in_cuts, long_stream

FLOOR = 1e-6
LANES = 6
CLASSES = replace(
    SMALL,
    target=Classification((0, 1), floor=FLOOR),
    memory=Memory(support=2, pending=LANES, ttl_s=1e18),
    policy=Policy(every=1000),
)
VALUES = replace(CLASSES, target=Regression(-1.0, 3.0))

ROUNDING = 1e-9
"""A label's slack: predictions are float32 and the losses of all are sums in float64."""


@dataclass
class Hedge:
    """One task of the scan, whose two predictions are made up by an adversary, one event at a time."""

    spec: TaskSpec
    table: TaskTable = field(init=False)
    waiting: list[int] = field(default_factory=list)
    most_waiting: int = 0
    observed: int = 0
    offset: int = 0
    losses: list[np.ndarray] = field(default_factory=list)
    """[3] of theta, adapted and as served, a label."""

    def __post_init__(self) -> None:
        # Two rows, so that every column is a strided view, as the scan expects.
        self.table = TaskTable.empty(layout_of(GradientLearner(self.spec)), ["one", "spare"])

    def step(self, kind: Kind, id: int, y: float, predictions: np.ndarray) -> scan.Results:
        outputs = self.spec.target.outputs
        events = scan.Events(
            np.array([kind], np.uint8), np.array([id], np.uint64), np.zeros(1),
            np.zeros((1, self.spec.features.width), np.float32), np.ones(1, np.bool_),
            np.array([y], np.float32), np.zeros(1, np.int64), np.array([self.offset]),
        )  # fmt: skip
        results = scan.blank_results(1, outputs)
        results.prediction[0] = predictions.astype(np.float32)
        cursor, reason, last = np.zeros((3, 2), np.int64)
        end, order, active = np.array([1, 0]), np.zeros(1, np.int64), np.zeros(1, np.int64)
        columns, rules = self.table.columns(), rules_of(self.spec)
        scan.scan(columns, events, results, rules, 1, active, order, cursor, end, reason, last)
        self.offset += 1
        return results

    def observe(self, theta: float, adapted: float) -> float:
        """Serve: a probability of class 1, or a value; returns what is served."""
        if self.spec.target.outputs == 2:
            predictions = np.array([[1 - theta, theta], [1 - adapted, adapted], [0, 0]])
        else:
            predictions = np.array([[theta], [adapted], [0.0]])
        self.observed += 1
        self.waiting = [*self.waiting, self.observed][-LANES:]
        self.most_waiting = max(self.most_waiting, len(self.waiting))
        return float(self.step(Kind.OBSERVATION, self.observed, 0.0, predictions).prediction[0, 2, -1])

    def label(self, which: int, y: float) -> None:
        """The label of one of those that wait."""
        id = self.waiting.pop(which)
        results = self.step(Kind.LABEL, id, y, np.zeros((3, self.spec.target.outputs)))
        self.losses.append(results.loss[0])

    @property
    def regret(self) -> float:
        """Loss as served above that of the better of theta and adapted."""
        theta, adapted, served = np.sum(self.losses, axis=0) if self.losses else (0.0, 0.0, 0.0)
        return float(served - min(theta, adapted)) - ROUNDING * len(self.losses)

    @property
    def bound(self) -> float:
        target, labels = self.spec.target, len(self.losses)
        scale = 2 * (target.high - target.low) ** 2 if isinstance(target, Regression) else 1.0
        share = labels * math.log(1 / (1 - self.spec.share))
        return scale * (self.most_waiting * math.log(3) + share)


probabilities = st.sampled_from([FLOOR, 0.01, 0.3, 0.5, 0.9, 1 - FLOOR]) | st.floats(FLOOR, 1 - FLOOR)
values = st.sampled_from([-1.0, 0.0, 3.0]) | st.floats(-1.0, 3.0, width=32)
moves = st.integers(0, 2 * LANES)
"""Which of the waiting observations gets its label; none of them, and another is served."""


def play(hedge: Hedge, script: list[tuple[int, float, float, float]]) -> Hedge:
    for which, theta, adapted, y in script:
        if which < len(hedge.waiting):
            hedge.label(which, y)
        else:
            hedge.observe(theta, adapted)
    return hedge


@settings(max_examples=150)
@given(st.lists(st.tuples(moves, probabilities, probabilities, st.sampled_from([0.0, 1.0])), max_size=120))
def test_log_loss_as_served_is_within_g_ln_3_of_the_better_expert(script):
    hedge = play(Hedge(CLASSES), script)
    assert hedge.regret <= hedge.bound


@settings(max_examples=100)
@given(st.lists(st.tuples(moves, values, values, values), max_size=120))
def test_squared_loss_as_served_is_within_2_r_squared_g_ln_3_of_the_better_expert(script):
    hedge = play(Hedge(VALUES), script)
    assert hedge.regret <= hedge.bound


@settings(max_examples=75)
@given(
    st.lists(st.tuples(moves, probabilities, probabilities, st.sampled_from([0.0, 1.0])), max_size=120),
    st.sampled_from([0.001, 0.05, 0.5]),
)
def test_fixed_share_adds_no_more_than_its_own_bound(script, share):
    hedge = play(Hedge(replace(CLASSES, share=share)), script)
    assert hedge.regret <= hedge.bound


def against_the_served(hedge: Hedge, labels: int, delay: int, seed: int, extreme: float) -> Hedge:
    """An adversary who sees what was served and gives each the label that it made less of, `delay` later."""
    rng, served = np.random.default_rng(seed), {}
    for n in range(labels):
        half = 0.5 + (extreme - 0.5) * (1.0 if n else 0.2)  # the first is mild, to start out of step
        swap = rng.random() < 0.5
        right = hedge.observe(1 - half, half) if not swap else hedge.observe(half, 1 - half)
        served[hedge.observed] = float(right < 0.5)
        while len(hedge.waiting) > delay:
            hedge.label(0, served[hedge.waiting[0]])
    return hedge


@pytest.mark.parametrize("delay", [0, 1, 3, LANES - 1])
@pytest.mark.parametrize("extreme", [0.6, 0.99, 1 - FLOOR])
def test_an_adversary_who_sees_what_is_served_gains_no_more_than_the_bound(delay, extreme):
    hedge = against_the_served(Hedge(CLASSES), 600, delay, delay, extreme)
    assert hedge.most_waiting == delay + 1
    assert hedge.regret <= hedge.bound


@pytest.mark.parametrize("delay", [0, 1, LANES - 1])
def test_an_adversary_of_the_squared_loss_gains_no_more_than_the_bound(delay):
    hedge, served = Hedge(VALUES), {}
    for n in range(600):
        value = hedge.observe(-1.0, 3.0) if n % 3 else hedge.observe(3.0, -1.0)
        served[hedge.observed] = 3.0 if value < 1.0 else -1.0
        while len(hedge.waiting) > delay:
            hedge.label(0, served[hedge.waiting[0]])
    assert hedge.regret <= hedge.bound


def naive_regret(labels: int, strength: float) -> float:
    """One shared weight, labels one late, an adversary who labels against what was served."""
    odds, theta, adapted, served = 0.0, 0.0, 0.0, 0.0
    late: float | None = None
    for n in range(labels):
        weight = 1 / (1 + math.exp(-odds))
        gap = strength if n else strength / 2
        if late is not None:
            odds += late
        loses = 1.0 if weight >= 0.5 else -1.0
        right, wrong = 0.0, gap
        theta += right if loses > 0 else wrong
        adapted += wrong if loses > 0 else right
        share_right = 1 - weight if loses > 0 else weight
        served -= math.log(share_right + (1 - share_right) * math.exp(-gap))
        late = -loses * gap
    return served - min(theta, adapted)


def test_one_shared_weight_breaks_any_bound_at_a_delay_of_one():
    assert naive_regret(600, strength=4.0) > 100
    assert naive_regret(1200, strength=4.0) > 1.9 * naive_regret(600, strength=4.0)


def test_labels_in_order_use_a_single_lane_and_so_cost_ln_3_at_most():
    hedge = against_the_served(Hedge(CLASSES), 300, 0, 5, 0.9)
    lanes = hedge.table.columns().lanes[0]
    assert lanes[0].any()
    assert not lanes[1:].any()
    assert hedge.regret <= math.log(3)


@settings(max_examples=50)
@given(st.lists(st.tuples(moves, probabilities, probabilities, st.sampled_from([0.0, 1.0])), max_size=60))
def test_no_more_lanes_move_than_were_ever_outstanding(script):
    hedge = play(Hedge(CLASSES), script)
    assert not hedge.table.columns().lanes[0, hedge.most_waiting :].any()


@settings(max_examples=50)
@given(st.lists(st.tuples(probabilities, probabilities, st.booleans()), max_size=30))
def test_in_order_what_is_served_is_the_bayesian_mixture_of_three_experts(rounds):
    hedge, likelihood, pair = Hedge(CLASSES), np.ones(3) / 3, np.ones(2) / 2
    for theta, adapted, positive in rounds:
        theta, adapted = (float(np.float32(p)) for p in (theta, adapted))
        experts = np.array([theta, adapted, pair @ [theta, adapted] / pair.sum()])
        served = hedge.observe(theta, adapted)
        assert served == pytest.approx(likelihood @ experts / likelihood.sum(), rel=1e-4)
        said = experts if positive else 1 - experts
        likelihood, pair = likelihood * said, pair * said[:2]
        likelihood, pair = likelihood / likelihood.sum(), pair / pair.sum()
        hedge.label(0, float(positive))


def test_the_losses_of_a_pushed_out_observation_are_never_scored():
    hedge = Hedge(CLASSES)
    for _ in range(3 * LANES):
        hedge.observe(0.2, 0.8)
    assert not hedge.table.columns().lanes.any()
    assert not hedge.table.columns().score_sums.any()


@pytest.mark.parametrize("name", SPECS)
def test_the_bound_holds_for_every_task_of_a_fold(name):
    spec = SPECS[name]
    driven = fold_in_cuts(name, long_stream(21, 3000, 6, name), [], [(0, 0), (90, 1), (1500, 2)], 6)
    scale = 2 * 3.0**2 if isinstance(spec.target, Regression) else 1.0
    for row in driven.table.rows:
        theta, adapted, served = row["score_sums"]
        labels = row["counts"][1]
        share = labels * math.log(1 / (1 - spec.share))
        assert labels > 50
        assert served <= min(theta, adapted) + scale * (3 * math.log(3) + share) + 1e-6
