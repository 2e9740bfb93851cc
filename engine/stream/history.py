"""Writes a task's own past beside the features of an event, and counts the event and its label into it.

The scan does so as it serves an event, in order, so a history holds nothing that was not known then, and what was
adapted on is read with the past that it had. What the numbers are, `engine.features.history` says.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from engine.compiled import compiled, fill
from engine.features.history import EVENT_HALF_LIVES_S, EVENT_RATES, LABEL_HALF_LIVES, LARGEST, RATES
from engine.stream.rounding import round_at

BY_HALF_LIFE = 8.0
"""In labels of the category."""

NUMBER_MEMORY = 32.0
"""In events: how far back the mean and deviation of a number reach."""

MOST_DEVIATIONS = 10.0

LABEL_DECAY = np.array([2.0 ** (-1.0 / half_life) for half_life in LABEL_HALF_LIVES])
EVENT_RATE_DECAY: tuple[float, ...] = tuple(math.log(2.0) / half_life for half_life in EVENT_HALF_LIVES_S)
BY_DECAY = np.array([2.0 ** (-1.0 / BY_HALF_LIFE)])
"""An array, as `LABEL_DECAY` is: numpy would round a number of Python's to float32 first, compiled code does not."""


@compiled
def seconds_since(now: float, then: float) -> float:
    """Logarithm of 1 + the seconds that have passed; clocks that run back count as none."""
    return math.log(1.0 + max(now - then, 0.0))


@compiled
def slot_of(ids: Any, bucket: float) -> int:
    """The slot that holds a category, or -1; ids are bucket + 1."""
    for s in range(len(ids)):
        if ids[s] == bucket + 1.0:
            return s
    return -1


@compiled
def write(c: Any, u: int, x: Any, time_s: float, r: Any) -> None:
    """Write task u's history beside the features of an event at `time_s`, into x [W]."""
    at = r.own_width
    width = r.label_width
    for h in range(RATES):
        for k in range(width):
            x[at] = c.label_rates[u, h, k]
            at += 1
    labels = c.labels[u]
    if r.regression:
        x[at] = c.last_labels[u, 0] if labels > 0 else np.nan
        x[at + 1] = c.last_labels[u, 0] - c.last_labels[u, 1] if labels > 1 else np.nan
        x[at + 2] = trend(c, u, time_s) if labels > 1 else np.nan
        at += 3
    else:
        x[at] = c.last_labels[u, 0] + 1.0 if labels > 0 else 0.0
        at += 1
    events = c.events[u]
    x[at] = math.log(1.0 + labels)
    x[at + 1] = seconds_since(time_s, c.label_s[u, 0]) if labels > 0 else np.nan
    x[at + 2] = seconds_since(time_s, c.event_s[u]) if events > 0 else np.nan
    at += 3
    for h in range(EVENT_RATES):
        x[at] = math.log(1.0 + event_rate(c, u, h, time_s))
        at += 1
    for m in range(len(r.numbers)):
        value = float(x[r.numbers[m]])
        known = c.number_count[u, m] > 0 and not math.isnan(value)
        x[at] = deviations(c, u, m, value) if known else np.nan
        x[at + 1] = min(max(value - float(c.number_last[u, m]), -LARGEST), LARGEST) if known else np.nan
        at += 2
    for b in range(len(r.by)):
        s = slot_of(c.by_id[u, b], x[r.by[b]])
        for k in range(width):
            x[at] = c.by_rates[u, b, s, k] if s >= 0 else 0.0
            at += 1
    round_at(x, r.rounded)


@compiled
def trend(c: Any, u: int, time_s: float) -> float:
    """How far the value would have moved since the last label, had it gone on as between the last two."""
    passed = c.label_s[u, 0] - c.label_s[u, 1]
    if passed <= 0.0:
        return 0.0
    ahead = max(time_s - float(c.label_s[u, 0]), 0.0) / float(passed)
    return float(c.last_labels[u, 0] - c.last_labels[u, 1]) * min(ahead, MOST_DEVIATIONS)


@compiled
def event_rate(c: Any, u: int, h: int, time_s: float) -> float:
    """The decayed count of events at one half-life."""
    passed = max(time_s - float(c.event_s[u]), 0.0)
    return float(c.event_rates[u, h]) * math.exp(-EVENT_RATE_DECAY[h] * passed)


@compiled
def deviations(c: Any, u: int, m: int, value: float) -> float:
    """How far a number is from the task's mean of it, in the task's deviations of it; 0 where these are none."""
    mean, spread = float(c.number_mean[u, m]), math.sqrt(max(c.number_variance[u, m], 0.0))
    if not spread > 1e-6 * abs(mean) + 1e-12:
        return 0.0
    return min(max((value - mean) / spread, -MOST_DEVIATIONS), MOST_DEVIATIONS)


@compiled
def count_event(c: Any, u: int, x: Any, time_s: float, r: Any) -> None:
    """Take an event at `time_s` with features x [W] into the history; after its own was written."""
    for h in range(EVENT_RATES):
        c.event_rates[u, h] = event_rate(c, u, h, time_s) + 1.0
    c.event_s[u] = max(c.event_s[u], time_s) if c.events[u] > 0 else time_s
    c.events[u] += 1
    for m in range(len(r.numbers)):
        value = float(x[r.numbers[m]])
        if math.isnan(value):
            continue
        c.number_count[u, m] += 1
        share = max(1.0 / c.number_count[u, m], 1.0 / NUMBER_MEMORY)
        step = value - c.number_mean[u, m]
        c.number_variance[u, m] = (1.0 - share) * (c.number_variance[u, m] + share * step * step)
        c.number_mean[u, m] += share * step
        c.number_last[u, m] = value


@compiled
def count(rates: Any, y: float, regression: bool, amount: float, decay: float) -> None:
    """Count a label into one set of counts [L], after what is there has decayed.

    A mean and not a sum: of sums of many labels, far from zero, float32 would lose what tells a task from others.
    """
    if regression:
        number, mean = np.float64(rates[0]) * decay + amount, np.float64(rates[1])
        rates[0] = number
        rates[1] = mean + amount * (y - mean) / number if number > 0.0 else 0.0
        return
    for k in range(len(rates)):
        rates[k] *= decay
    if int(y) < len(rates):
        rates[int(y)] += amount


@compiled
def count_label(c: Any, u: int, x: Any, y: float, label_id: Any, time_s: float, r: Any) -> None:
    """Take a label that became known at `time_s` into the history; x [W] are its observation's features."""
    c.labels[u] += 1
    for h in range(RATES):
        count(c.label_rates[u, h], y, r.regression, 1.0, LABEL_DECAY[h])
    c.last_labels[u, 1], c.label_s[u, 1] = c.last_labels[u, 0], c.label_s[u, 0]
    c.last_labels[u, 0], c.label_s[u, 0], c.last_id[u] = y, time_s, label_id
    for b in range(len(r.by)):
        s = slot_of(c.by_id[u, b], x[r.by[b]])
        if s < 0:
            s = 0
            for other in range(len(c.by_id[u, b])):
                if c.by_seen[u, b, other] < c.by_seen[u, b, s]:
                    s = other
            c.by_id[u, b, s] = x[r.by[b]] + 1.0
            fill(c.by_rates[u, b, s], 0.0)
        c.by_seen[u, b, s] = c.labels[u]
        count(c.by_rates[u, b, s], y, r.regression, 1.0, BY_DECAY[0])


@compiled
def correct_label(c: Any, u: int, old: float, y: float, label_id: Any, r: Any) -> None:
    """A label was another: mend the counts that never decay, and the last label where it is that one."""
    count(c.label_rates[u, 0], old, r.regression, -1.0, 1.0)
    count(c.label_rates[u, 0], y, r.regression, 1.0, 1.0)
    if c.last_id[u] == label_id:
        c.last_labels[u, 0] = y
