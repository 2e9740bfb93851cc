"""What a lane of the hedge serves, now and when it is asked again: the mixture of what four experts say."""

from __future__ import annotations

from typing import Any

import numpy as np

from engine.compiled import compiled, copy, room
from engine.stream import mixture
from engine.stream.mixture import EXPERTS, MIXED
from engine.types import SERVED


@compiled
def mixed(p: Any, w: Any, k: int) -> float:
    """Output k of the mixture of the experts' predictions p [4, C] by weights w [4]; in float64, compiled or not."""
    total = 0.0
    for e in range(EXPERTS):
        total += w[e] * float(p[e, k])
    return total


@compiled
def shared_weights(c: Any, u: int, r: Any, prior: Any, w: Any) -> None:
    """Write the weights of the shared mixture, w [4] float32, as they are kept until the label comes."""
    own = room(EXPERTS)
    mixture.weights(prior[:EXPERTS], c.shared[u, :EXPERTS], c.shared[u, EXPERTS], r.regression, own)
    for e in range(EXPERTS):
        w[e] = own[e]


@compiled
def lane_weights(prior: Any, state: Any, shared: Any, r: Any, w: Any) -> None:
    """Write what a lane gives each expert, its part in the shared mixture added, to w [4]."""
    five, own = room(MIXED), room(MIXED)
    for e in range(MIXED):
        own[e] = prior[e]
    mixture.weights(own, state[:MIXED], state[MIXED], r.regression, five)
    total = 0.0
    for e in range(EXPERTS):
        total += float(shared[e])
    for e in range(EXPERTS):
        w[e] = five[e] + five[EXPERTS] * (float(shared[e]) / total)


@compiled
def take_prior(c: Any, u: int, lane: int, r: Any, newer: Any) -> None:
    """Give a lane the prior of the version in force, as far as it can afford the change."""
    prior, given, same = room(MIXED), room(MIXED), True
    for e in range(MIXED):
        prior[e], given[e] = c.lane_prior[u, lane, e], np.float32(newer[e])
        same = same and prior[e] == given[e]
    if not same and (prior[0] == 0.0 or mixture.renewed(prior, given, c.lanes[u, lane], r.regression)):
        copy(newer, c.lane_prior[u, lane])


@compiled
def is_unused(c: Any, u: int, lane: int) -> bool:
    """Whether a lane has met no prior of a version of theta: it is as it is under version 0."""
    return bool(c.lane_prior[u, lane, 0] == 0.0)


@compiled
def prior_of(c: Any, u: int, lane: int, prior: Any) -> None:
    """Write the prior [5] that a lane goes by."""
    unused = is_unused(c, u, lane)
    for k in range(MIXED):
        prior[k] = 1.0 / MIXED if unused else float(c.lane_prior[u, lane, k])


@compiled
def recall(c: Any, u: int, lane: int, n: int, r: Any, w: Any, out: Any) -> None:
    """Write the prediction that is pending in a lane into outcome n, as it was given, and its weights to w [4]."""
    prior, p = room(MIXED), c.pending_p[u, lane]
    prior_of(c, u, lane, prior)
    lane_weights(prior, c.lanes[u, lane], c.pending_mix[u, lane], r, w)
    for k in range(r.outputs):
        for e in range(EXPERTS):
            out.prediction[n, e, k] = p[e, k]
        out.prediction[n, SERVED, k] = mixed(p, w, k)
    out.version[n] = c.pending_version[u, lane]
    out.seen[n] = c.pending_seen[u, lane]
