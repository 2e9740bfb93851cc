"""A task's support set as slots of its row: what comes in, what goes, and what a correction changes."""

from __future__ import annotations

from typing import Any

from engine.compiled import compiled, copy, fill
from engine.stream import history
from engine.stream.layout import FORGOTTEN, LABELLED


@compiled
def victim(c: Any, u: int, y: float, r: Any, present: Any) -> int:
    """Which example leaves a full support set: the oldest, or the oldest of the most frequent class.

    `present` [C] is room to count each class in.
    """
    fill(present, 0)
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
def take_in(c: Any, u: int, x: Any, e: Any, n: int, r: Any, work: Any, out: Any) -> None:
    """Learn from label n, of an observation with stored features x [W]: into the history and the support set."""
    copy(x, out.learned_x[n])
    history.count_label(c, u, x, float(e.y[n]), e.id[n], e.time_s[n], r)
    insert(c, u, x, e.y[n], e.id[n], r, work)
    out.learned[n] = c.seq[u]


@compiled
def insert(c: Any, u: int, x: Any, y: float, example_id: Any, r: Any, work: Any) -> None:
    """Let an example into the support set, and another out of it where the set is full."""
    c.seq[u] += 1
    present, slot = 0, -1
    for s in range(len(c.support_seq[u])):
        dropped = c.support_dropped[u, s]
        if c.support_seq[u, s] != 0 and dropped == 0:
            present += 1
        elif dropped <= c.adapted_through[u]:
            if dropped != 0:
                clear_slot(c, u, s)
            slot = s if slot < 0 else slot
    if present == r.support:
        c.support_dropped[u, victim(c, u, y, r, work.present)] = c.seq[u]
    copy(x, c.support_x[u, slot])
    c.support_y[u, slot] = y
    c.support_id[u, slot] = example_id
    c.support_seq[u, slot] = c.seq[u]
    c.support_dropped[u, slot] = 0
    count_label(c, u, y, 1, r)


@compiled
def clear_slot(c: Any, u: int, slot: int) -> None:
    """Let a slot hold nothing, which is zeros: a store leaves them out (`engine.stream.packed`)."""
    c.support_seq[u, slot] = 0
    c.support_dropped[u, slot] = 0
    c.support_id[u, slot] = 0
    fill(c.support_x[u, slot], 0.0)
    c.support_y[u, slot] = 0.0


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
def correct(c: Any, u: int, place: int, e: Any, n: int, r: Any, work: Any) -> bool:
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
    insert(c, u, c.support_x[u, s], e.y[n], e.id[n], r, work)
    return True


@compiled
def cut_to_recent(c: Any, u: int, r: Any) -> None:
    """An alarm: keep only the recent window, count classes from it, open a new adaptation epoch."""
    fill(c.class_counts[u], 0)
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
    fill(c.detector[u], 0.0)
