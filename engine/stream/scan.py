"""The sequential heart of the fold: one task's events, strictly in order, against its row.

Everything that depends on order is here (pending observations, delayed labels, the hedge, the detector,
the support set), written as the plain loop it is. Tensors are not: both models' predictions for a run of
events come in as arrays, and a run ends where the task must adapt before its next event.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from engine.compiled import compiled, compiled_as, vectors
from engine.detectors import detectors
from engine.located import LOCATED, Located
from engine.stream import history
from engine.stream.answers import observe, score, surprise
from engine.stream.layout import EXPIRED, LABELLED, columns_at
from engine.stream.pending import clear_lane, expire, find, remember, was_seen
from engine.stream.scan_arrays import (
    ALARM,
    ASK_DETECTOR,
    CORRECTED,
    EVENTS_LAYOUT,
    EXAMPLE,
    LATE,
    NOT_DUE,
    OBSERVATION,
    ORPHAN,
    REPEATED_LABEL,
    RESULTS_LAYOUT,
    RULES_LAYOUT,
    SCHEDULED,
    SCORED,
    VERSION_LAYOUT,
    WORK_LAYOUT,
    Events,
    Results,
    Rules,
    Version,
    Work,
)
from engine.stream.support import leave, take_stock
from engine.stream.support_slots import correct, cut_to_recent, take_in
from engine.types import ADAPTED


def runs(start: Any, end: Any) -> Any:
    """The numbers of several ranges start[i] .. end[i], one after another."""
    lengths = end - start
    return np.repeat(start - np.cumsum(lengths) + lengths, lengths) + np.arange(lengths.sum())


@compiled
def due(seq: int, every: int) -> bool:
    """Whether a task adapts at its label `seq`: the first, second, fourth and eighth, then every n-th."""
    return seq % every == 0 or (seq < every and (seq == 1 or seq == 2 or seq == 4 or seq == 8))


@compiled
def learn(c: Any, u: int, e: Any, n: int, r: Any, work: Any, out: Any) -> int:
    """Join a label to its observation and take it in; returns why the run ends here, if it does."""
    y = e.y[n]
    lane = find(c.pending_id[u], c.pending_order[u], e.id[n])
    if lane >= 0:
        score(c, u, lane, e, n, r, out)
        remember(c, u, e.id[n], LABELLED, y)
        take_in(c, u, c.pending_x[u, lane], e, n, r, work, out)
        epoch = c.pending_epoch[u, lane]
        clear_lane(c, u, lane)
        if epoch == c.epoch[u] and c.seq[u] > c.quiet_until[u]:
            if r.detector_kind == detectors.EXTERNAL:
                return ASK_DETECTOR
            fed = surprise(c, u, c.counts[u, SCORED] + 1, out.loss[n, ADAPTED], r)
            if detectors.step(r.detector_kind, r.detector, c.detector[u], fed):
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
        changed = correct(c, u, place, e, n, r, work)
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
    take_in(c, u, e.x[n], e, n, r, work, out)
    return SCHEDULED if due(c.seq[u], r.every) else NOT_DUE


@compiled
def pass_by(c: Any, u: int, n: int, work: Any, out: Any) -> None:
    """Go on at an adaptation that runs apart: note it for the fold to come, or take it as noted."""
    if work.looks_ahead:
        work.number[u] = leave(c, u, n, work.number[u], work.left)
        return
    work.number[u] += 1
    out.adapted[n] = True
    take_stock(c, u)


@compiled_as(LOCATED, EVENTS_LAYOUT, RESULTS_LAYOUT, RULES_LAYOUT, VERSION_LAYOUT, WORK_LAYOUT, *vectors(6))
def scan(
    located: Located,
    e: Events,
    out: Results,
    r: Rules,
    version: Version,
    work: Work,
    active: Any,
    order: Any,
    cursor: Any,
    end: Any,
    reason: Any,
    last: Any,
) -> int:
    """Fold each active task's events order[cursor:end] into its row, up to where it must adapt unforeseen.

    Moves `cursor` [U] past what was folded; `reason` [U] says why the run ended, `last` [U] at which event. Returns
    how many ended for a reason.
    """
    c, interrupted = columns_at(located), 0
    for a in range(len(active)):
        u = active[a]
        reason[u] = NOT_DUE
        while cursor[u] < end[u] and reason[u] == NOT_DUE:
            n = order[cursor[u]]
            cursor[u] += 1
            c.position[u, e.topic[n]] = e.offset[n] + 1
            c.clock_s[u] = max(c.clock_s[u], e.time_s[n]) if was_seen(c, u) else e.time_s[n]
            if work.looks_ahead:
                work.serves[n] = work.number[u]
            out.expired[n] = expire(c, u, r.ttl_s)
            if e.kind[n] == OBSERVATION:
                observe(c, u, e, n, r, version, out)
            else:
                reason[u] = learn(c, u, e, n, r, work, out)
            c.counts[u, out.code[n]] += 1
            last[u] = n
            if reason[u] == SCHEDULED and work.foreseen[u]:
                pass_by(c, u, n, work, out)
                reason[u] = NOT_DUE
        interrupted += reason[u] != NOT_DUE
    return interrupted
