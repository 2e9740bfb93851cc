"""The hedge: every prediction is served as a mixture of what four experts say.

The experts are the task's base rate, its recent labels, theta, and the adapted model. Each pending slot of a task
is a *lane*: it predicts, waits, is scored, and only then predicts again, so inside a lane labels are never late. A
lane mixes five: the experts, and a mixture of them by weights that all lanes of the task share.

Log loss: a lane is the Bayesian mixture (exponentially weighted average forecaster, Cesa-Bianchi and Lugosi 2006,
chapters 3 and 9) from a prior p. Squared loss: a lane is AdaHedge (de Rooij, van Erven, Grünwald, Koolen 2014,
JMLR 15, section 2), whose rate is 1 over the mixability gap so far, so that no range has to be known for it to be
fast. Summed over lanes, for any labels in any order,

    log loss as served      <=  loss of expert e + G (1 + ln(1 / p_e))
    squared loss as served  <=  loss of expert e + R^2 G (7 + 3 ln(1 / p_e))

where G is the most predictions ever outstanding at once (the lowest free slot is taken first, so no more lanes
than G are ever used), and R the width of the range. The gap of a lane stops growing at 2 R^2, where squared loss is
exp-concave at the lane's rate, and its last step adds at most R^2. The first label of a task may be off by far more
than any later one, under every expert, and would slow AdaHedge for long: so the weights of a squared loss learn
nothing from predictions made before it, of which a lane has one at most, for another R^2.

A lane takes the prior of each version of theta that it is used under, which is learned from ever more tasks. To go
on from a new prior costs a lane the logarithm by which that raises the sum of its weights; a change that would take
this above 1 nat in all is not made, and p is the prior that a lane ends with. With fixed share `a` (classes alone,
off by default), T ln(1 / (1 - a)) is added for T labels, and in exchange the mixture can follow a change of the
better expert.
"""

from __future__ import annotations

import math

import numpy as np

from engine.compiled import compiled, room
from engine.types import Float64

EXPERTS = 4
"""Base rate, recent labels, theta, adapted."""

MIXED = EXPERTS + 1
"""What a lane mixes: the experts, and the mixture by shared weights."""

STATE = MIXED + 2
"""What a lane keeps: losses of the five above the least, AdaHedge's gap, and nats spent on changes of its prior."""

MOST_SPENT = 1.0
"""Nats that changes of its prior may cost a lane, all together."""

UNIFORM = np.full(MIXED, 1 / MIXED)
"""The prior before anything was learned."""


@compiled
def remaining(above: float, gap: float) -> float:
    """exp(-above / gap), of what is above the least; with a gap of 0 the best alone remains."""
    if gap > 0.0:
        return math.exp(-above / gap)
    return 1.0 if above == 0.0 else 0.0


@compiled
def weights(prior: Float64, losses: Float64, gap: float, adaptive: bool, w: Float64) -> None:
    """Write the weights w [K] of K experts, from their cumulative losses and, where `adaptive`, the gap so far."""
    least = math.inf
    for e in range(len(w)):
        least = min(least, losses[e])
    total = 0.0
    for e in range(len(w)):
        above = losses[e] - least
        w[e] = prior[e] * remaining(above, gap if adaptive else 1.0)
        total += w[e]
    for e in range(len(w)):
        w[e] /= total


@compiled
def renewed(prior: Float64, newer: Float64, state: Float64, adaptive: bool) -> bool:
    """Whether a lane goes on from a newer prior; what that costs is counted in its `state` [K + 2]."""
    k = len(prior)
    before, after = 0.0, 0.0
    for e in range(k):
        share = remaining(state[e], state[k] if adaptive else 1.0)
        before += prior[e] * share
        after += newer[e] * share
    cost = max(0.0, math.log(after / before))
    if state[k + 1] + cost > MOST_SPENT:
        return False
    state[k + 1] += cost
    return True


@compiled
def log_sum(prior: Float64, losses: Float64, step: Float64, gap: float, least: float) -> float:
    """Logarithm of the sum of prior * exp(-(losses + step - least) / gap)."""
    total = 0.0
    for e in range(len(step)):
        total += prior[e] * math.exp(-(losses[e] + step[e] - least) / gap)
    return math.log(total)


@compiled
def mix_loss(prior: Float64, losses: Float64, step: Float64, gap: float) -> float:
    """The loss of the mixture in AdaHedge's sense; `step` [K] are the losses of the experts at this label."""
    before, after = math.inf, math.inf
    for e in range(len(step)):
        before = min(before, losses[e])
        after = min(after, losses[e] + step[e])
    if gap <= 0.0:
        return after - before
    nothing = room(MIXED)[: len(step)]
    for e in range(len(step)):
        nothing[e] = step[e] * 0.0
    return (
        after
        - before
        - gap * (log_sum(prior, losses, step, gap, after) - log_sum(prior, losses, nothing, gap, before))
    )


@compiled
def update(
    prior: Float64, state: Float64, step: Float64, served: float, adaptive: bool, share: float
) -> None:
    """Score K experts by their losses `step` [K] in `state`: K losses, the least kept at zero, then the gap."""
    k = len(step)
    losses = state[:k]
    if adaptive:
        state[k] += max(0.0, served - mix_loss(prior, losses, step, state[k]))
    least = math.inf
    for e in range(k):
        losses[e] += step[e]
        least = min(least, losses[e])
    for e in range(k):
        losses[e] -= least
    if share > 0.0:
        w = room(MIXED)[:k]
        weights(prior, losses, 0.0, False, w)
        for e in range(k):
            losses[e] = -math.log(((1.0 - share) * w[e] + share * prior[e]) / prior[e])
