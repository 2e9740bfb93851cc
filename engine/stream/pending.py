"""Observations that wait for their labels, in lanes of a row, and the ids that a row remembers."""

from __future__ import annotations

from typing import Any

from engine.compiled import compiled, fill
from engine.stream.layout import EXPIRED
from engine.stream.scan_arrays import EXPIRED_COUNT


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
def clear_lane(c: Any, u: int, slot: int) -> None:
    """Let a slot hold nothing, which is zeros: a store leaves them out (`engine.stream.packed`)."""
    c.pending_id[u, slot] = 0
    c.pending_order[u, slot] = 0
    c.pending_s[u, slot] = 0.0
    fill(c.pending_mix[u, slot], 0.0)
    c.pending_seen[u, slot] = 0
    c.pending_version[u, slot] = 0
    c.pending_epoch[u, slot] = 0
    fill(c.pending_x[u, slot], 0.0)
    for expert in range(len(c.pending_p[u, slot])):
        fill(c.pending_p[u, slot, expert], 0.0)


@compiled
def give_up(c: Any, u: int, slot: int) -> None:
    """Stop waiting for the label of a pending observation."""
    remember(c, u, c.pending_id[u, slot], EXPIRED, 0.0)
    clear_lane(c, u, slot)
    c.counts[u, EXPIRED_COUNT] += 1


@compiled
def was_seen(c: Any, u: int) -> bool:
    """Whether any event of the task was folded; before that its clock says nothing, and times may be negative."""
    seen = False
    for outcome in range(len(c.counts[u])):
        seen = seen or c.counts[u, outcome] != 0
    return seen


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
