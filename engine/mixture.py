"""The hedge: every prediction is served as a mixture of theta's and the adapted model's.

Each pending slot of a task is a *lane*: it predicts, waits, is scored, and only then predicts again, so
inside a lane labels are never late. A lane is the Bayesian mixture (exponentially weighted average
forecaster, Cesa-Bianchi and Lugosi 2006, chapters 3 and 9) over three experts: theta, adapted, and
the mixture of both by one weight that all lanes of the task share. Summed over lanes,

    loss as served <= min(loss of theta, loss of adapted) + G ln 3 / eta

for any labels in any order, where G is the most predictions ever outstanding at once (the lowest free
slot is taken first, so no more lanes than G are ever used) and eta is 1 for log loss, 1 / (2 R^2) for
squared loss on a range of width R. With fixed share `a` (off by default), T ln(1 / (1 - a)) / eta is
added for T labels, and in exchange the mixture can follow a change of the better expert.
"""

from __future__ import annotations

import math

from engine.compiled import compiled
from engine.types import Float64

EXPERTS = 3
"""Theta, adapted, shared mixture."""


@compiled
def shared_weight(log_odds: float) -> float:
    """The adapted model's weight in the shared mixture, from its log-odds against theta."""
    if log_odds >= 0.0:
        return 1.0 / (1.0 + math.exp(-log_odds))
    odds = math.exp(log_odds)
    return odds / (1.0 + odds)


@compiled
def lane_weight(lane: Float64, shared: float) -> float:
    """The adapted model's weight as served by a lane [3] of log-weights, given the shared weight."""
    top = max(lane[0], lane[1], lane[2])
    theta, adapted, mixed = math.exp(lane[0] - top), math.exp(lane[1] - top), math.exp(lane[2] - top)
    return (adapted + mixed * shared) / (theta + adapted + mixed)


@compiled
def update_lane(lane: Float64, theta: float, adapted: float, mixed: float, eta: float, share: float) -> None:
    """Score the three experts of a lane by their losses; the largest log-weight is kept at zero."""
    lane[0] -= eta * theta
    lane[1] -= eta * adapted
    lane[2] -= eta * mixed
    top = max(lane[0], lane[1], lane[2])
    for e in range(EXPERTS):
        lane[e] -= top
    if share > 0.0:
        total = math.exp(lane[0]) + math.exp(lane[1]) + math.exp(lane[2])
        for e in range(EXPERTS):
            lane[e] = math.log((1.0 - share) * math.exp(lane[e]) + share * total / EXPERTS)
