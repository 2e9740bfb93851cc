"""What one batch came to, for progress and metrics."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from engine.stream.events import EventBatch
from engine.stream.in_progress import Folded
from engine.types import Kind, Outcome

SUMMED = ("events", "rejected", "observations", "scored", "alarms", "adaptations", "not_finite", "conflicts")


class Step(NamedTuple):
    """What one batch came to, for progress and metrics."""

    events: int
    rejected: int
    observations: int
    scored: int
    loss_sums: tuple[float, ...]
    """[5] of `PREDICTORS`, over the labels scored."""
    alarms: int
    adaptations: int
    not_finite: int
    conflicts: int
    """Rows that another worker wrote first; they were folded again."""
    version: int
    until_s: float
    """Latest event time of the batch."""


def added(one: Step, other: Step) -> Step:
    """Two parts of a batch as one."""
    losses = tuple(a + b for a, b in zip(one.loss_sums, other.loss_sums, strict=True))
    summed = {name: getattr(one, name) + getattr(other, name) for name in SUMMED}
    later = {name: max(getattr(one, name), getattr(other, name)) for name in ("version", "until_s")}
    return one._replace(loss_sums=losses, **summed, **later)


def summary(events: EventBatch, folded: Folded, version: int) -> Step:
    """What a fold under one version of theta came to."""
    out = folded.outcomes
    sums = np.nansum(out.loss, axis=0)
    return Step(
        events=len(events),
        rejected=0,
        observations=int((events.kind == Kind.OBSERVATION).sum()),
        scored=int((out.code == Outcome.SCORED).sum()),
        loss_sums=tuple(map(float, sums)),
        alarms=int(out.alarm.sum()),
        adaptations=folded.adaptations,
        not_finite=folded.not_finite,
        conflicts=0,
        version=version,
        until_s=float(events.time_s.max(initial=0.0)),
    )
