"""The sequential heart of the fold: one task's events, strictly in order, against its row.

Everything that depends on order is here (pending observations, delayed labels, the hedge, the detector,
the support set), written as the plain loop it is. Tensors are not: both models' predictions for a run of
events come in as arrays, and a run ends where the task must adapt before its next event.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from engine import drift, history, mixture
from engine.compiled import arrays, compiled, compiled_as, scalars, vectors
from engine.features import RATE_STRENGTH, VALUE_STRENGTH
from engine.history import RATES
from engine.lanes import is_unused, lane_weights, mixed, prior_of, recall, shared_weights, take_prior
from engine.mixture import EXPERTS, MIXED
from engine.table import COLUMNS_LAYOUT, EXPIRED, FORGOTTEN, LABELLED, Columns
from engine.types import ADAPTED, BASE, PREDICTORS, RECENT, SERVED, THETA, Kind, Outcome

OBSERVATION = int(Kind.OBSERVATION)
PREDICTED, SCORED = int(Outcome.PREDICTED), int(Outcome.SCORED)
REPEATED_OBSERVATION, REPEATED_LABEL = int(Outcome.REPEATED_OBSERVATION), int(Outcome.REPEATED_LABEL)
CORRECTED, LATE, ORPHAN = int(Outcome.CORRECTED), int(Outcome.LATE), int(Outcome.ORPHAN)
EXAMPLE, EXPIRED_COUNT = int(Outcome.EXAMPLE), int(Outcome.EXPIRED)

NOT_DUE, SCHEDULED, ALARM, ASK_DETECTOR = 0, 1, 2, 3
"""Why a task's run of events ends, if it does."""


class Events(NamedTuple):
    """The columns of an `EventBatch` that the scan reads."""

    kind: Any
    id: Any
    time_s: Any
    x: Any
    has_x: Any
    y: Any
    topic: Any
    offset: Any


class Results(NamedTuple):
    """The columns of `Outcomes`, written in place; `prediction` comes in holding theta's and the adapted one's."""

    code: Any
    prediction: Any
    loss: Any
    version: Any
    seen: Any
    waited_s: Any
    weight: Any
    alarm: Any
    expired: Any
    shared_loss: Any
    learned: Any
    learned_x: Any


class Version(NamedTuple):
    """What the scan needs of a version of theta."""

    number: int
    prior: Any
    """[5] of a lane of the hedge."""
    rates: Any
    """[C] how common each class is; of a regression the mean of all labels. Of version 0 nothing is known."""


class Rules(NamedTuple):
    """The numbers of a task spec that the scan needs."""

    outputs: int
    named: int
    """Of the outputs, those of classes that have a name; the others have room for more."""
    floor: float
    regression: bool
    low: float
    high: float
    support: int
    balanced: bool
    ttl_s: float
    every: int
    recent: int
    refractory: int
    share: float
    detector_kind: int
    detector: tuple[float, float, float, float, float]
    writes_history: bool
    own_width: int
    """Of an event's own features in a stored row; its history follows."""
    label_width: int
    """Numbers of one set of counts of labels."""
    numbers: Any
    """[M] stored places of the numbers that the history holds."""
    by: Any
    """[B] and of the categories."""


EVENTS_LAYOUT = arrays(
    Events,
    [
        ("uint8", 1),
        ("uint64", 1),
        ("float64", 1),
        ("float32", 2),
        ("boolean", 1),
        ("float32", 1),
        ("int64", 1),
        ("int64", 1),
    ],
    strided=False,
)
RESULTS_LAYOUT = arrays(
    Results,
    [
        ("uint8", 1),
        ("float32", 3),
        ("float64", 2),
        ("int64", 1),
        ("int64", 1),
        ("float64", 1),
        ("float64", 1),
        ("boolean", 1),
        ("int64", 1),
        ("float64", 1),
        ("int64", 1),
        ("float32", 2),
    ],
    strided=False,
)
VERSION_LAYOUT = scalars(Version, ["int64", "float64[]", "float64[]"])
RULES_LAYOUT = scalars(
    Rules,
    [
        "int64",
        "int64",
        "float64",
        "boolean",
        "float64",
        "float64",
        "int64",
        "boolean",
        "float64",
        "int64",
        "int64",
        "int64",
        "float64",
        "int64",
        ("float64", 5),
        "boolean",
        "int64",
        "int64",
        "int64[]",
        "int64[]",
    ],
)


def blank_results(events: int, outputs: int, width: int) -> Results:
    """Outcome columns before anything was folded: no event is more than a duplicate, every prediction even."""
    return Results(
        code=np.full(events, Outcome.DUPLICATE, np.uint8),
        prediction=np.full((events, len(PREDICTORS), outputs), 1 / outputs, np.float32),
        loss=np.full((events, len(PREDICTORS)), np.nan),
        version=np.zeros(events, np.int64),
        seen=np.zeros(events, np.int64),
        waited_s=np.full(events, np.nan),
        weight=np.full(events, np.nan),
        alarm=np.zeros(events, np.bool_),
        expired=np.zeros(events, np.int64),
        shared_loss=np.full(events, np.nan),
        learned=np.zeros(events, np.int64),
        learned_x=np.zeros((events, width), np.float32),
    )


def runs(start: Any, end: Any) -> Any:
    """The numbers of several ranges start[i] .. end[i], one after another."""
    lengths = end - start
    return np.repeat(start - np.cumsum(lengths) + lengths, lengths) + np.arange(lengths.sum())


@compiled
def due(seq: int, every: int) -> bool:
    """Whether a task adapts at its label `seq`: the first, second, fourth and eighth, then every n-th."""
    return seq % every == 0 or (seq < every and (seq == 1 or seq == 2 or seq == 4 or seq == 8))


@compiled
def find(ids: Any, used: Any, wanted: Any) -> int:
    """Index of an id among the slots in use, or -1."""
    for s in range(len(ids)):
        if used[s] != 0 and ids[s] == wanted:
            return s
    return -1


@compiled
def remember(c: Any, u: int, resolved: Any, status: int, y: float) -> None:
    """Keep the id of a resolved observation, in place of the oldest."""
    place = c.recent_count[u] % len(c.recent_id[u])
    c.recent_id[u, place] = resolved
    c.recent_status[u, place] = status
    c.recent_y[u, place] = y
    c.recent_count[u] += 1


@compiled
def give_up(c: Any, u: int, slot: int) -> None:
    """Stop waiting for the label of a pending observation."""
    remember(c, u, c.pending_id[u, slot], EXPIRED, 0.0)
    c.pending_order[u, slot] = 0
    c.counts[u, EXPIRED_COUNT] += 1


@compiled
def was_seen(c: Any, u: int) -> bool:
    """Whether any event of the task was folded; before that its clock says nothing, and times may be negative."""
    return bool(c.counts[u].any())


@compiled
def expire(c: Any, u: int, ttl_s: float) -> int:
    """Give up on pending observations older than `ttl_s` of event time; returns how many."""
    expired = 0
    for s in range(len(c.pending_order[u])):
        if c.pending_order[u, s] != 0 and c.pending_s[u, s] + ttl_s < c.clock_s[u]:
            give_up(c, u, s)
            expired += 1
    return expired


@compiled
def free_lane(c: Any, u: int) -> int:
    """The lowest free pending slot, or -1."""
    for s in range(len(c.pending_order[u])):
        if c.pending_order[u, s] == 0:
            return s
    return -1


@compiled
def oldest_lane(c: Any, u: int) -> int:
    """The slot of the observation that has been pending longest."""
    oldest = 0
    for s in range(len(c.pending_order[u])):
        if c.pending_order[u, s] < c.pending_order[u, oldest]:
            oldest = s
    return oldest


@compiled
def base_rate(c: Any, u: int, r: Any, version: Any, prediction: Any) -> None:
    """The task's own class rates, or mean label, drawn towards those of all tasks where these are known."""
    if r.regression:
        middle = version.rates[0] if version.number else (r.low + r.high) / 2
        strength = VALUE_STRENGTH if version.number else 1.0
        value = (c.label_sum[u] + strength * middle) / (c.class_counts[u, 0] + strength)
        prediction[0] = min(max(value, r.low), r.high)
        return
    total = 0.0
    for k in range(r.outputs):
        total += c.class_counts[u, k]
    for k in range(r.outputs):
        if version.number:
            prediction[k] = drawn(c.class_counts[u, k], total, version.rates[k], r)
        elif k < r.named:
            prediction[k] = (c.class_counts[u, k] + 0.5) / (total + 0.5 * r.named)
        else:
            prediction[k] = r.floor


@compiled
def drawn(count: float, total: float, rate: float, r: Any) -> float:
    """A smoothed rate, with the floor mixed in."""
    smoothed = (count + RATE_STRENGTH * rate) / (total + RATE_STRENGTH)
    return float(smoothed * (1.0 - r.outputs * r.floor) + r.floor)


@compiled
def recent_rate(c: Any, u: int, r: Any, version: Any, prediction: Any) -> None:
    """The rates of the task's last few labels, or the last value; the base rate where nothing is known of these."""
    if version.number == 0 or c.seq[u] == 0 or r.label_width == 0:
        base_rate(c, u, r, version, prediction)
        return
    if r.regression:
        prediction[0] = c.last_labels[u, 0]
        return
    counts = c.label_rates[u, RATES - 1]
    total = 0.0
    for k in range(r.outputs):
        total += counts[k]
    for k in range(r.outputs):
        prediction[k] = drawn(counts[k], total, version.rates[k], r)


@compiled
def given(c: Any, u: int, e: Any, n: int, r: Any, out: Any) -> bool:
    """Whether observation n is pending; if so, its prediction is written again, as it was given."""
    lane = find(c.pending_id[u], c.pending_order[u], e.id[n])
    if lane < 0:
        return False
    recall(c, u, lane, n, r, np.empty(EXPERTS), out)
    return True


@compiled
def observe(c: Any, u: int, e: Any, n: int, r: Any, version: Any, out: Any) -> None:
    """Serve one observation and keep it pending."""
    resolved = find(c.recent_id[u], c.recent_status[u], e.id[n]) >= 0
    if resolved or given(c, u, e, n, r, out):
        out.code[n] = REPEATED_OBSERVATION
        if resolved:  # and its prediction is not kept
            out.prediction[n] = np.nan
        return
    lane = free_lane(c, u)
    if lane < 0:
        lane = oldest_lane(c, u)
        give_up(c, u, lane)
        out.expired[n] += 1
    if r.writes_history:
        history.write(c, u, e.x[n], e.time_s[n], r)
    p = out.prediction[n]
    base_rate(c, u, r, version, p[BASE])
    recent_rate(c, u, r, version, p[RECENT])
    if version.number == 0:
        p[THETA], p[ADAPTED] = p[BASE], p[BASE]
    else:
        take_prior(c, u, lane, r, version.prior)
    w = np.empty(EXPERTS)
    if version.number == 0:  # every expert says the same, and the lane is as good as unused
        w[:] = 1.0 / EXPERTS
        c.pending_mix[u, lane] = w
    else:
        shared_weights(c, u, r, version.prior, c.pending_mix[u, lane])
        lane_weights(c.lane_prior[u, lane], c.lanes[u, lane], c.pending_mix[u, lane], r, w)
    for k in range(r.outputs):
        p[SERVED, k] = mixed(p, w, k)
    out.code[n] = PREDICTED
    out.weight[n] = w[ADAPTED]
    out.version[n] = version.number
    out.seen[n] = c.seq[u]
    c.pending_id[u, lane] = e.id[n]
    c.pending_order[u, lane] = c.counts[u, PREDICTED] + 1
    c.pending_s[u, lane] = e.time_s[n]
    c.pending_x[u, lane] = e.x[n]
    c.pending_p[u, lane] = p[:EXPERTS]
    c.pending_seen[u, lane] = c.seq[u]
    c.pending_version[u, lane] = version.number
    c.pending_epoch[u, lane] = c.epoch[u]
    history.count_event(c, u, e.x[n], e.time_s[n], r)


@compiled
def loss_of(value: float, y: float, regression: bool) -> float:
    """Loss of a value, or of the probability of the class that was true."""
    return (value - y) * (value - y) if regression else -math.log(value)


@compiled
def score(c: Any, u: int, lane: int, e: Any, n: int, r: Any, out: Any) -> None:
    """Score the stored predictions by the label, and move the lane's and the shared weights."""
    p, y, shared = c.pending_p[u, lane], np.float64(e.y[n]), c.pending_mix[u, lane]
    truth = 0 if r.regression else int(y)
    w, prior, step = np.empty(EXPERTS), np.empty(MIXED), np.empty(MIXED)
    prior_of(c, u, lane, prior)
    recall(c, u, lane, n, r, w, out)
    total = 0.0
    for k in range(EXPERTS):
        step[k] = loss_of(np.float64(p[k, truth]), y, r.regression)  # compiled, `float` would keep float32
        out.loss[n, k] = step[k]
        total += float(shared[k])
    by_shared = 0.0
    for k in range(EXPERTS):
        by_shared += float(shared[k]) / total * float(p[k, truth])
    step[EXPERTS] = loss_of(by_shared, y, r.regression)
    served = loss_of(mixed(p, w, truth), y, r.regression)
    if not is_unused(c, u, lane) and not (r.regression and c.pending_seen[u, lane] == 0):
        mixture.update(prior, c.lanes[u, lane], step, served, r.regression, r.share)
        mixture.update(prior[:EXPERTS], c.shared[u], step[:EXPERTS], step[EXPERTS], r.regression, 0.0)
    out.code[n] = SCORED
    out.waited_s[n] = e.time_s[n] - c.pending_s[u, lane]
    out.loss[n, SERVED] = served
    out.shared_loss[n] = step[EXPERTS]
    for one in range(MIXED):
        c.score_sums[u, one] += out.loss[n, one]


@compiled
def surprise(c: Any, u: int, scored: int, loss: float, r: Any) -> float:
    """What a detector is fed: log loss as it is; the root of a squared loss over the task's mean of it so far.

    A threshold means the same then whatever the unit of a regression: errors, in units of the usual one.
    """
    if not r.regression:
        return loss
    usual = c.score_sums[u, ADAPTED] / max(scored, 1)
    return math.sqrt(loss / usual) if usual > 0.0 else 0.0


@compiled
def victim(c: Any, u: int, y: float, r: Any) -> int:
    """Which example leaves a full support set: the oldest, or the oldest of the most frequent class."""
    present = np.zeros(r.outputs, np.int64)
    if r.balanced:
        present[int(y)] += 1
        for s in range(len(c.support_seq[u])):
            if c.support_seq[u, s] != 0 and c.support_dropped[u, s] == 0:
                present[int(c.support_y[u, s])] += 1
    chosen, most, oldest = -1, -1, 0
    for s in range(len(c.support_seq[u])):
        if c.support_seq[u, s] == 0 or c.support_dropped[u, s] != 0:
            continue
        frequency = present[int(c.support_y[u, s])] if r.balanced else 0
        if frequency > most or (frequency == most and c.support_seq[u, s] < oldest):
            chosen, most, oldest = s, frequency, c.support_seq[u, s]
    return chosen


@compiled
def take_in(c: Any, u: int, x: Any, e: Any, n: int, r: Any, out: Any) -> None:
    """Learn from label n, of an observation with stored features x [W]: into the history and the support set."""
    out.learned_x[n] = x
    history.count_label(c, u, x, float(e.y[n]), e.id[n], e.time_s[n], r)
    insert(c, u, x, e.y[n], e.id[n], r)
    out.learned[n] = c.seq[u]


@compiled
def insert(c: Any, u: int, x: Any, y: float, example_id: Any, r: Any) -> None:
    """Let an example into the support set, and another out of it where the set is full."""
    c.seq[u] += 1
    present, slot = 0, -1
    for s in range(len(c.support_seq[u])):
        dropped = c.support_dropped[u, s]
        if c.support_seq[u, s] != 0 and dropped == 0:
            present += 1
        elif slot < 0 and dropped <= c.adapted_through[u]:
            slot = s
    if present == r.support:
        c.support_dropped[u, victim(c, u, y, r)] = c.seq[u]
    c.support_x[u, slot] = x
    c.support_y[u, slot] = y
    c.support_id[u, slot] = example_id
    c.support_seq[u, slot] = c.seq[u]
    c.support_dropped[u, slot] = 0
    count_label(c, u, y, 1, r)


@compiled
def count_label(c: Any, u: int, y: float, sign: int, r: Any) -> None:
    """Count a label, or with sign -1 take it back."""
    c.class_counts[u, 0 if r.regression else int(y)] += sign
    c.label_sum[u] += sign * y if r.regression else 0.0


@compiled
def example_of(c: Any, u: int, wanted: Any) -> int:
    """Slot of an observation's example in the support set, or -1."""
    for s in range(len(c.support_seq[u])):
        if c.support_seq[u, s] != 0 and c.support_dropped[u, s] == 0 and c.support_id[u, s] == wanted:
            return s
    return -1


@compiled
def mend_left(c: Any, u: int, wanted: Any, y: float) -> None:
    """Of an example that came and left since the last adaptation: theta is judged on the label as corrected."""
    for s in range(len(c.support_seq[u])):
        if c.support_seq[u, s] > c.adapted_through[u] and c.support_id[u, s] == wanted:
            c.support_y[u, s] = y


@compiled
def correct(c: Any, u: int, place: int, e: Any, n: int, r: Any) -> bool:
    """A second label that differs: mend counts and, where the example is still there, the support set."""
    old = c.recent_y[u, place]
    c.recent_y[u, place] = e.y[n]
    history.correct_label(c, u, float(old), float(e.y[n]), e.id[n], r)
    if c.recent_status[u, place] == FORGOTTEN:
        return False
    if c.class_counts[u, 0 if r.regression else int(old)] > 0:
        count_label(c, u, old, -1, r)
    s = example_of(c, u, e.id[n])
    if s < 0:
        count_label(c, u, e.y[n], 1, r)
        mend_left(c, u, e.id[n], e.y[n])
        return False
    c.support_dropped[u, s] = c.seq[u] + 1
    insert(c, u, c.support_x[u, s].copy(), e.y[n], e.id[n], r)
    return True


@compiled
def cut_to_recent(c: Any, u: int, r: Any) -> None:
    """An alarm: keep only the recent window, count classes from it, open a new adaptation epoch."""
    c.class_counts[u] = 0
    c.label_sum[u] = 0.0
    for s in range(len(c.support_seq[u])):
        if c.support_seq[u, s] == 0 or c.support_dropped[u, s] != 0:
            continue
        if c.support_seq[u, s] <= c.seq[u] - r.recent:
            c.support_dropped[u, s] = c.seq[u]
        else:
            count_label(c, u, c.support_y[u, s], 1, r)
    for place in range(len(c.recent_status[u])):
        if c.recent_status[u, place] == LABELLED and example_of(c, u, c.recent_id[u, place]) < 0:
            c.recent_status[u, place] = FORGOTTEN
    c.epoch[u] += 1
    c.quiet_until[u] = c.seq[u] + r.refractory
    c.detector[u] = 0.0


@compiled
def learn(c: Any, u: int, e: Any, n: int, r: Any, out: Any) -> int:
    """Join a label to its observation and take it in; returns why the run ends here, if it does."""
    y = e.y[n]
    lane = find(c.pending_id[u], c.pending_order[u], e.id[n])
    if lane >= 0:
        score(c, u, lane, e, n, r, out)
        c.pending_order[u, lane] = 0
        remember(c, u, e.id[n], LABELLED, y)
        take_in(c, u, c.pending_x[u, lane], e, n, r, out)
        if c.pending_epoch[u, lane] == c.epoch[u] and c.seq[u] > c.quiet_until[u]:
            if r.detector_kind == drift.EXTERNAL:
                return ASK_DETECTOR
            fed = surprise(c, u, c.counts[u, SCORED] + 1, out.loss[n, ADAPTED], r)
            if drift.step(r.detector_kind, r.detector, c.detector[u], fed):
                out.alarm[n] = True
                cut_to_recent(c, u, r)
                return ALARM
        return SCHEDULED if due(c.seq[u], r.every) else NOT_DUE
    place = find(c.recent_id[u], c.recent_status[u], e.id[n])
    if place >= 0 and c.recent_status[u, place] != EXPIRED:
        if c.recent_y[u, place] == y:
            out.code[n] = REPEATED_LABEL
            return NOT_DUE
        out.code[n] = CORRECTED
        changed = correct(c, u, place, e, n, r)
        return SCHEDULED if changed and due(c.seq[u], r.every) else NOT_DUE
    if not e.has_x[n]:
        out.code[n] = ORPHAN if place < 0 else LATE
        return NOT_DUE
    out.code[n] = EXAMPLE
    if place >= 0:
        c.recent_status[u, place] = LABELLED
        c.recent_y[u, place] = y
    else:
        remember(c, u, e.id[n], LABELLED, y)
    if r.writes_history:
        history.write(c, u, e.x[n], e.time_s[n], r)
    take_in(c, u, e.x[n], e, n, r, out)
    return SCHEDULED if due(c.seq[u], r.every) else NOT_DUE


@compiled_as(COLUMNS_LAYOUT, EVENTS_LAYOUT, RULES_LAYOUT, *vectors(4))
def run_ends(c: Columns, e: Events, r: Rules, active: Any, order: Any, cursor: Any, end: Any) -> None:
    """Move `end` [U] of each active task back to after the label at which it is next due, if that comes first."""
    for a in range(len(active)):
        u = active[a]
        seq = c.seq[u]
        for i in range(cursor[u], end[u]):
            if e.kind[order[i]] == OBSERVATION:
                continue
            seq += 1
            if r.detector_kind == drift.EXTERNAL or due(seq, r.every):
                end[u] = i + 1
                break


@compiled_as(COLUMNS_LAYOUT, EVENTS_LAYOUT, RESULTS_LAYOUT, RULES_LAYOUT, *vectors(2))
def answer_again(c: Columns, e: Events, out: Results, r: Rules, row: Any, repeated: Any) -> None:
    """Write the predictions of those of the events `repeated` that are pending observations, as they were given."""
    for i in range(len(repeated)):
        n = repeated[i]
        if e.kind[n] == OBSERVATION:
            given(c, row[n], e, n, r, out)


@compiled_as(COLUMNS_LAYOUT, EVENTS_LAYOUT, RESULTS_LAYOUT, RULES_LAYOUT, VERSION_LAYOUT, *vectors(6))
def scan(
    c: Columns,
    e: Events,
    out: Results,
    r: Rules,
    version: Version,
    active: Any,
    order: Any,
    cursor: Any,
    end: Any,
    reason: Any,
    last: Any,
) -> None:
    """Fold each active task's events order[cursor:end] into its row, up to where it must adapt.

    Moves `cursor` [U] past what was folded; `reason` [U] says why the run ended, `last` [U] at which event.
    """
    for a in range(len(active)):
        u = active[a]
        reason[u] = NOT_DUE
        while cursor[u] < end[u] and reason[u] == NOT_DUE:
            n = order[cursor[u]]
            cursor[u] += 1
            c.position[u, e.topic[n]] = e.offset[n] + 1
            c.clock_s[u] = max(c.clock_s[u], e.time_s[n]) if was_seen(c, u) else e.time_s[n]
            out.expired[n] = expire(c, u, r.ttl_s)
            if e.kind[n] == OBSERVATION:
                observe(c, u, e, n, r, version, out)
            else:
                reason[u] = learn(c, u, e, n, r, out)
            c.counts[u, out.code[n]] += 1
            last[u] = n
