"""The hedge's bound: whatever the labels, their order and delay, served is hardly worse than the best expert."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.learners.gradient import GradientLearner
from engine.stream import scan, scan_arrays
from engine.stream.layout import layout_of
from engine.stream.mixture import EXPERTS, MIXED, MOST_SPENT
from engine.stream.rules import rules_of
from engine.stream.spec import Memory, Policy, StreamSpec
from engine.stream.table import TaskTable
from engine.targets import Classification, Regression
from engine.types import SERVED, Float64, Kind
from tests.engine.driving import SMALL, SPECS, fold_in_cuts, long_stream
from tests.varied import varied

FLOOR = 1e-6
LANES = 6
CLASSES = varied(
    SMALL,
    target=Classification((0, 1), floor=FLOOR),
    support=2,
    memory=Memory(pending=LANES, ttl_s=1e18),
    policy=Policy(every=1000),
)
VALUES = varied(CLASSES, target=Regression(-1.0, 3.0))
RANGE = 4.0

ROUNDING = 1e-9
"""A label's slack: predictions are float32 and the losses of all are sums in float64."""

EVEN = (0.2,) * MIXED

SPENT = MIXED + 1
"""Where a lane keeps what changes of its prior have cost it."""


def worth(state: Float64, prior: Float64, values: bool) -> Float64:
    """What lanes [P, 7] with priors [P, 5] may cost against each of the five that they mix."""
    used = prior[:, 0] > 0
    nats = -np.log(prior[used].astype(np.float64)) + state[used, SPENT:]
    gaps, before_the_first_label = state[used, MIXED, None], RANGE**2
    lanes: Float64 = before_the_first_label + (1 + nats) * gaps if values else nats
    allowed: Float64 = lanes.sum(axis=0)
    return allowed


@dataclass
class Hedge:
    """One task of the scan; two of its experts are made up by an adversary, one event at a time."""

    spec: StreamSpec
    version: scan_arrays.Version = field(init=False)
    table: TaskTable = field(init=False)
    waiting: list[int] = field(default_factory=list)
    most_waiting: int = 0
    observed: int = 0
    offset: int = 0
    losses: list[Float64] = field(default_factory=list)
    """[6] of the four experts, their shared mixture and as served, a label."""

    def __post_init__(self) -> None:
        # Two rows, so that every column is a strided view, as the scan expects.
        self.table = TaskTable.empty(
            layout_of(self.spec, GradientLearner(self.spec.problem)), ["one", "spare"]
        )
        self.under(EVEN)

    def under(self, prior: tuple[float, ...], number: int = 1) -> Hedge:
        """From here on predictions are those of a version with this prior."""
        rates = np.array([0.3, 0.7]) if self.spec.problem.target.outputs == 2 else np.array([0.5])
        self.version = scan_arrays.Version(number, np.array(prior), rates)
        return self

    def step(self, kind: Kind, id: int, y: float, predictions: np.ndarray) -> scan_arrays.Results:
        events = scan_arrays.Events(
            np.array([kind], np.uint8), np.array([id], np.uint64), np.zeros(1),
            np.zeros((1, self.spec.problem.width), np.float32), np.ones(1, np.bool_),
            np.array([y], np.float32), np.zeros(1, np.int64), np.array([self.offset]),
            np.zeros(1, np.int64), np.zeros(1, np.int64), np.zeros(1, np.uint64),
        )  # fmt: skip
        results = scan_arrays.blank_results(1, self.spec.problem.target.outputs, self.spec.problem.width)
        results.prediction[0] = predictions.astype(np.float32)
        cursor, reason, last = np.zeros((3, 2), np.int64)
        end, order, active = np.array([1, 0]), np.zeros(1, np.int64), np.zeros(1, np.int64)
        rules = rules_of(self.spec)
        work = scan_arrays.nothing_foreseen(2, rules.outputs)
        scan.scan(
            self.table.located,
            events,
            results,
            rules,
            self.version,
            work,
            active,
            order,
            cursor,
            end,
            reason,
            last,
        )
        self.offset += 1
        return results

    def observe(self, theta: float, adapted: float) -> Float64:
        """Serve: a probability of class 1, or a value; returns what each of the five places says of it."""
        said: Float64 = self.serve(theta, adapted)[:, -1]
        return said

    def serve(self, theta: float, adapted: float) -> Float64:
        """The same, of every class: [5, C]."""
        predictions = np.zeros((5, self.spec.problem.target.outputs))
        predictions[:, 0] = 1.0 - np.array([0, 0, theta, adapted, 0])
        predictions[:, -1] = [0, 0, theta, adapted, 0]
        self.observed += 1
        self.waiting = [*self.waiting, self.observed][-LANES:]
        self.most_waiting = max(self.most_waiting, len(self.waiting))
        made: Float64 = self.step(Kind.OBSERVATION, self.observed, 0.0, predictions).prediction[0]
        return made.astype(np.float64)

    def label(self, which: int, y: float) -> None:
        """The label of one of those that wait."""
        id = self.waiting.pop(which)
        results = self.step(Kind.LABEL, id, y, np.zeros((5, self.spec.problem.target.outputs)))
        loss = results.loss[0]
        self.losses.append(np.array([*loss[:EXPERTS], results.shared_loss[0], loss[SERVED]]))

    @property
    def lanes(self) -> Float64:
        state: Float64 = self.table.columns().lanes[0]
        return state

    @property
    def priors(self) -> Float64:
        prior: Float64 = self.table.columns().lane_prior[0]
        return prior

    @property
    def regret(self) -> Float64:
        """Loss as served above that of each of the five that are mixed; their shared mixture is one of them."""
        sums = np.sum(self.losses, axis=0) if self.losses else np.zeros(MIXED + 1)
        found: Float64 = sums[MIXED] - sums[:MIXED] - ROUNDING * RANGE**2 * len(self.losses)
        return found

    @property
    def bound(self) -> Float64:
        """Of each of the five, as the module states it."""
        values = isinstance(self.spec.problem.target, Regression)
        share = len(self.losses) * math.log(1 / (1 - self.spec.share))
        return worth(self.lanes, self.priors, values) + share

    def check(self) -> None:
        used = self.priors[:, 0] > 0
        assert used.sum() <= self.most_waiting
        assert not self.lanes[~used].any()
        assert (self.lanes[:, SPENT] <= MOST_SPENT).all()
        assert (self.lanes[:, MIXED] <= 3 * RANGE**2 + ROUNDING).all()
        assert (self.regret <= self.bound).all()


probabilities = st.sampled_from([FLOOR, 0.01, 0.3, 0.5, 0.9, 1 - FLOOR]) | st.floats(FLOOR, 1 - FLOOR)
values = st.sampled_from([-1.0, 0.0, 3.0]) | st.floats(-1.0, 3.0, width=32)
classes = st.sampled_from([0.0, 1.0])
moves = st.integers(0, 2 * LANES)
"""Which of the waiting observations gets its label; none of them, and another is served."""

priors = st.lists(st.sampled_from([1e-4, 0.1, 1.0]) | st.floats(1e-4, 1.0), min_size=5, max_size=5).map(
    lambda drawn: tuple((np.array(drawn) / sum(drawn)).tolist())
)
versions = st.integers(0, 3)
"""Of each event; 0 is none yet."""

Script = list[tuple[int, int, float, float, float]]


def play(hedge: Hedge, given_priors: list[tuple[float, ...]], script: Script) -> Hedge:
    for which, version, theta, adapted, y in script:
        if which < len(hedge.waiting):
            hedge.label(which, y)
        else:
            hedge.under(given_priors[version], version).observe(theta, adapted)
    return hedge


four_priors = st.lists(priors, min_size=4, max_size=4)
of_classes = st.lists(st.tuples(moves, versions, probabilities, probabilities, classes), max_size=120)
of_values = st.lists(st.tuples(moves, versions, values, values, values), max_size=120)


@settings(max_examples=150)
@given(four_priors, of_classes)
def test_log_loss_as_served_is_within_ln_1_over_its_prior_a_lane_of_every_expert(
    given_priors: list[tuple[Any, ...]], script: list[tuple[int, int, float, float, float]]
) -> None:
    play(Hedge(CLASSES), given_priors, script).check()


@settings(max_examples=150)
@given(four_priors, of_values)
def test_squared_loss_as_served_is_within_the_lanes_gaps_of_every_expert_and_these_below_3_r_squared(
    given_priors: list[tuple[Any, ...]], script: list[tuple[int, int, float, float, float]]
) -> None:
    play(Hedge(VALUES), given_priors, script).check()


@settings(max_examples=75)
@given(four_priors, of_classes, st.sampled_from([0.001, 0.05, 0.5]))
def test_fixed_share_adds_no_more_than_its_own_bound(
    given_priors: list[tuple[Any, ...]], script: list[tuple[int, int, float, float, float]], share: Any
) -> None:
    play(Hedge(varied(CLASSES, share=share)), given_priors, script).check()


@settings(max_examples=50)
@given(st.sampled_from([CLASSES, VALUES]), st.data())
def test_before_the_first_version_no_lane_moves_and_none_takes_a_prior(
    spec: StreamSpec, data: st.DataObject
) -> None:
    script = data.draw(of_classes if spec is CLASSES else of_values)
    hedge = play(Hedge(spec), [EVEN] * 4, [(which, 0, a, b, c) for which, _, a, b, c in script])
    assert not hedge.lanes.any()
    assert not hedge.priors.any()
    assert not hedge.table.columns().shared.any()
    assert all(loss == pytest.approx(loss[0]) for loss in hedge.losses)


def test_what_was_predicted_before_the_first_version_moves_no_lane_when_its_label_comes_after_it() -> None:
    hedge = Hedge(CLASSES).under(EVEN, 0)
    hedge.observe(0.2, 0.8)
    hedge.under(EVEN, 1).observe(0.2, 0.8)
    hedge.label(0, 1.0)
    assert not hedge.lanes[0].any()
    hedge.label(0, 1.0)
    assert hedge.lanes[1].any()


def test_a_squared_loss_learns_no_weights_from_what_was_predicted_before_the_first_label() -> None:
    hedge = Hedge(VALUES)
    for _ in range(2):
        hedge.observe(1.0, 2.0)
    hedge.label(0, 0.5)
    hedge.label(0, 0.5)
    assert not hedge.lanes.any()
    assert not hedge.table.columns().shared.any()
    hedge.observe(1.0, 2.0)
    hedge.label(0, 0.5)
    assert hedge.lanes[0].any()


def test_a_lane_takes_the_prior_of_each_version_that_it_is_used_under_while_it_can_afford_the_change() -> (
    None
):
    cheap, dear = (0.1, 0.1, 0.4, 0.2, 0.2), (0.01, 0.01, 0.96, 0.01, 0.01)
    hedge, spent = Hedge(CLASSES).under(EVEN, 1), 0.0
    for n in range(20):  # theta knows, nobody else does
        hedge.observe(0.99 if n % 2 else 0.01, 0.5)
        hedge.label(0, n % 2)
    for number, prior, taken in ((2, cheap, cheap), (3, dear, cheap), (4, EVEN, EVEN)):
        likelihood, before = np.exp(-hedge.lanes[0, :MIXED]), hedge.priors[0].copy()
        hedge.under(prior, number).observe(0.01, 0.5)
        hedge.label(0, 0.0)
        np.testing.assert_allclose(hedge.priors[0], taken, rtol=1e-6)
        spent += max(0.0, math.log(likelihood @ hedge.priors[0] / (likelihood @ before)))
        assert hedge.lanes[0, SPENT] == pytest.approx(spent)
    assert 0 < spent < MOST_SPENT
    assert not hedge.priors[1:].any()


def against_the_served(hedge: Hedge, labels: int, delay: int, seed: int, extreme: float) -> Hedge:
    """An adversary who sees what was served and gives each the label that it made less of, `delay` later."""
    rng, served = np.random.default_rng(seed), {}
    for n in range(labels):
        half = 0.5 + (extreme - 0.5) * (1.0 if n else 0.2)  # the first is mild, to start out of step
        swap = rng.random() < 0.5
        made = hedge.observe(1 - half, half) if not swap else hedge.observe(half, 1 - half)
        served[hedge.observed] = float(made[SERVED] < 0.5)
        while len(hedge.waiting) > delay:
            hedge.label(0, served[hedge.waiting[0]])
    return hedge


SKEWED = (0.01, 0.01, 0.9, 0.03, 0.05)


@pytest.mark.parametrize("delay", [0, 1, 3, LANES - 1])
@pytest.mark.parametrize("extreme", [0.6, 0.99, 1 - FLOOR])
@pytest.mark.parametrize("prior", [EVEN, SKEWED])
def test_an_adversary_who_sees_what_is_served_gains_no_more_than_the_bound(
    delay: int, extreme: float, prior: tuple[float, ...]
) -> None:
    hedge = against_the_served(Hedge(CLASSES).under(prior), 600, delay, delay, extreme)
    assert hedge.most_waiting == delay + 1
    hedge.check()


@pytest.mark.parametrize("delay", [0, 1, LANES - 1])
@pytest.mark.parametrize("prior", [EVEN, SKEWED])
def test_an_adversary_of_the_squared_loss_gains_no_more_than_the_bound(
    delay: int, prior: tuple[float, ...]
) -> None:
    hedge, served = Hedge(VALUES).under(prior), {}
    for n in range(600):
        made = hedge.observe(-1.0, 3.0) if n % 3 else hedge.observe(3.0, -1.0)
        served[hedge.observed] = 3.0 if made[SERVED] < 1.0 else -1.0
        while len(hedge.waiting) > delay:
            hedge.label(0, served[hedge.waiting[0]])
    hedge.check()


def test_the_gap_of_a_lane_that_the_squared_loss_is_mixed_in_stays_far_below_its_limit_where_losses_are_small() -> (
    None
):
    hedge, rng = Hedge(VALUES), np.random.default_rng(0)
    for _ in range(400):
        y = float(rng.normal(1.0, 0.05))
        hedge.observe(1.0, 1.2)
        hedge.label(0, y)
    assert 0 < hedge.lanes[0, MIXED] < 0.2
    hedge.check()


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


def test_one_shared_weight_breaks_any_bound_at_a_delay_of_one() -> None:
    assert naive_regret(600, strength=4.0) > 100
    assert naive_regret(1200, strength=4.0) > 1.9 * naive_regret(600, strength=4.0)


def test_labels_in_order_use_a_single_lane_and_so_cost_ln_1_over_the_prior_at_most() -> None:
    hedge = against_the_served(Hedge(CLASSES).under(SKEWED), 300, 0, 5, 0.9)
    assert hedge.lanes[0].any()
    assert not hedge.lanes[1:].any()
    assert (hedge.regret <= -np.log(np.array(SKEWED, np.float32))).all()


UNDECIDED = (0.0001, 0.0001, 0.4999, 0.4998, 0.0001)
"""Of two experts that are as wrong as can be, little is left beside what hardly anything was given to."""


@settings(max_examples=50)
@given(priors, st.lists(st.tuples(probabilities, probabilities, st.booleans()), max_size=30))
@example(UNDECIDED, [(1 - FLOOR, 1 - FLOOR, False)] * 2)
def test_in_order_what_is_served_is_the_bayesian_mixture_of_five_experts(
    prior: tuple[Any, ...], rounds: list[Any]
) -> None:
    hedge, likelihood, four = Hedge(CLASSES).under(prior), np.array(prior), np.array(prior[:EXPERTS])
    for theta, adapted, positive in rounds:
        made = hedge.serve(theta, adapted)
        said = np.vstack([made[:EXPERTS], four @ made[:EXPERTS] / four.sum()])
        assert made[SERVED] == pytest.approx(likelihood @ said / likelihood.sum(), rel=2e-6)
        true = said[:, int(positive)]  # of its own rounding: 1 - 1e-6 is 1 - 1.013e-6 in float32
        likelihood, four = likelihood * true, four * true[:EXPERTS]
        likelihood, four = likelihood / likelihood.sum(), four / four.sum()
        hedge.label(0, float(positive))


def test_the_losses_of_a_pushed_out_observation_are_never_scored() -> None:
    hedge = Hedge(CLASSES)
    for _ in range(3 * LANES):
        hedge.observe(0.2, 0.8)
    assert not hedge.lanes.any()
    assert not hedge.table.columns().score_sums.any()


@pytest.mark.parametrize("name", SPECS)
def test_the_bound_holds_for_every_task_of_a_fold(name: str) -> None:
    spec = SPECS[name]
    values = isinstance(spec.problem.target, Regression)
    driven = fold_in_cuts(name, long_stream(21, 3000, 6, name), [], [(0, 0), (90, 1), (1500, 2)], 6)
    for row in driven.table.rows:
        sums, labels = row["score_sums"], row["counts"][1]
        bound = worth(row["lanes"], row["lane_prior"], values)[:EXPERTS]
        bound += labels * math.log(1 / (1 - spec.share)) + 1e-6
        assert labels > 50
        assert (row["lane_prior"][:, 0] > 0).all()
        assert (sums[SERVED] - sums[:EXPERTS] <= bound).all()
