"""What an observation is answered, and what each expert loses by its label."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from engine.compiled import compiled, compiled_as, copy, fill, room, vectors
from engine.features.front_end import RATE_STRENGTH, VALUE_STRENGTH
from engine.features.history import RATES
from engine.located import LOCATED, Located
from engine.stream import history, mixture
from engine.stream.lanes import is_unused, lane_weights, mixed, prior_of, recall, shared_weights, take_prior
from engine.stream.layout import columns_at
from engine.stream.mixture import EXPERTS, MIXED
from engine.stream.pending import find, free_lane, give_up, oldest_lane
from engine.stream.scan_arrays import (
    EVENTS_LAYOUT,
    OBSERVATION,
    PREDICTED,
    REPEATED_OBSERVATION,
    RESULTS_LAYOUT,
    RULES_LAYOUT,
    SCORED,
    Events,
    Results,
    Rules,
)
from engine.types import ADAPTED, BASE, RECENT, SERVED, THETA


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
    if lane >= 0 and r.hedges:
        recall(c, u, lane, n, r, room(EXPERTS), out)
    return lane >= 0


@compiled
def observe(c: Any, u: int, e: Any, n: int, r: Any, version: Any, out: Any) -> None:
    """Serve one observation and keep it pending."""
    resolved = find(c.recent_id[u], c.recent_status[u], e.id[n]) >= 0
    if resolved or given(c, u, e, n, r, out):
        out.code[n] = REPEATED_OBSERVATION
        for expert in range(MIXED if resolved else 0):  # and its prediction is not kept
            fill(out.prediction[n, expert], np.nan)
        return
    lane = free_lane(c, u)
    if lane < 0:
        lane = oldest_lane(c, u)
        give_up(c, u, lane)
        out.expired[n] += 1
    if r.writes_history:
        history.write(c, u, e.x[n], e.time_s[n], r)
    if r.hedges:
        serve(c, u, lane, n, r, version, out)
    out.code[n] = PREDICTED
    c.pending_id[u, lane] = e.id[n]
    c.pending_order[u, lane] = c.counts[u, PREDICTED] + 1
    c.pending_s[u, lane] = e.time_s[n]
    copy(e.x[n], c.pending_x[u, lane])
    c.pending_seen[u, lane] = c.seq[u]
    c.pending_version[u, lane] = version.number
    c.pending_epoch[u, lane] = c.epoch[u]
    history.count_event(c, u, e.x[n], e.time_s[n], r)


@compiled
def serve(c: Any, u: int, lane: int, n: int, r: Any, version: Any, out: Any) -> None:
    """Mix what the experts predict of observation n, and keep what they did until its label comes."""
    p = out.prediction[n]
    base_rate(c, u, r, version, p[BASE])
    recent_rate(c, u, r, version, p[RECENT])
    if version.number == 0:
        copy(p[BASE], p[THETA])
        copy(p[BASE], p[ADAPTED])
    else:
        take_prior(c, u, lane, r, version.prior)
    w = room(EXPERTS)
    if version.number == 0:  # every expert says the same, and the lane is as good as unused
        fill(w, 1.0 / EXPERTS)
        copy(w, c.pending_mix[u, lane])
    else:
        shared_weights(c, u, r, version.prior, c.pending_mix[u, lane])
        lane_weights(c.lane_prior[u, lane], c.lanes[u, lane], c.pending_mix[u, lane], r, w)
    for k in range(r.outputs):
        p[SERVED, k] = mixed(p, w, k)
    out.weight[n] = w[ADAPTED]
    out.version[n] = version.number
    out.seen[n] = c.seq[u]
    for expert in range(EXPERTS):
        copy(p[expert], c.pending_p[u, lane, expert])


@compiled
def loss_of(value: float, y: float, regression: bool) -> float:
    """Loss of a value, or of the probability of the class that was true."""
    return (value - y) * (value - y) if regression else -math.log(value)


@compiled
def score(c: Any, u: int, lane: int, e: Any, n: int, r: Any, out: Any) -> None:
    """Score the stored predictions by the label, and move the lane's and the shared weights."""
    out.code[n] = SCORED
    if not r.hedges:
        return
    p, y, shared = c.pending_p[u, lane], np.float64(e.y[n]), c.pending_mix[u, lane]
    truth = 0 if r.regression else int(y)
    w, prior, step = room(EXPERTS), room(MIXED), room(MIXED)
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


@compiled_as(LOCATED, EVENTS_LAYOUT, RESULTS_LAYOUT, RULES_LAYOUT, *vectors(1))
def answer_again(located: Located, e: Events, out: Results, r: Rules, repeated: Any) -> None:
    """Write the predictions of those of the events `repeated` that are pending observations, as they were given."""
    c = columns_at(located)
    for i in range(len(repeated)):
        n = repeated[i]
        if e.kind[n] == OBSERVATION:
            given(c, e.row[n], e, n, r, out)
