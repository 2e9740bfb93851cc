"""Adaptations are found ahead wherever nothing unforeseen comes between; the bits are those of one at a time."""

from __future__ import annotations

import numpy as np
import torch

from engine.detectors.detectors import Periodic
from engine.learners.gradient import GradientLearner
from engine.stream.fold import Engine
from engine.stream.spec import Policy
from engine.types import Batch, Meta, Params
from tests.engine.driving import SMALL, Driven, drive, label, observation
from tests.varied import varied

PAIRS = 400
ALARMING = varied(SMALL, policy=Policy(every=4, recent=2, refractory=3), detector=Periodic(150))


class SometimesUnsound(GradientLearner):
    """Its fast parameters are no numbers where a task adapts on more labels of class 2 than of class 0."""

    def adapt(self, meta: Params, support: Batch) -> Params:
        fast = super().adapt(meta, support)
        weighs = support.weight > 0
        more = ((support.y == 2) & weighs).sum(1) > ((support.y == 0) & weighs).sum(1)
        return {
            name: value.masked_fill(more.view(-1, *[1] * (value.ndim - 1)), torch.nan)
            for name, value in fast.items()
        }


def folded(engine: Engine, cuts: int = 1) -> Driven:
    """Observations and labels of one task, in so many batches."""
    events = [
        event
        for n, y in enumerate(np.random.default_rng(0).integers(0, 3, PAIRS).tolist(), 1)
        for event in (observation(n), label(n, float(y)))
    ]
    driven, meta = drive(engine), Meta(1, engine.learner.init(0))
    for part in np.array_split(np.arange(len(events)), cuts):
        driven.fold([events[n] for n in part.tolist()], meta)
    return driven


def test_after_an_alarm_adaptations_are_found_ahead_again() -> None:
    found = folded(Engine(ALARMING))
    assert found.outcome("alarm").sum() == 2
    assert found.adaptations > PAIRS / 4
    assert found.inner_loops <= 8  # at first, at each alarm, and ahead after it, ever further


def test_a_batch_of_many_alarms_has_the_bits_of_one_event_at_a_time() -> None:
    engine = Engine(varied(ALARMING, detector=Periodic(9)))
    whole, single = folded(engine), folded(engine, 2 * PAIRS)
    assert whole.outcome("alarm").sum() > 20
    assert single.same_bits(whole) == []
    assert (single.adaptations, single.not_finite) == (whole.adaptations, whole.not_finite)


def test_an_adaptation_that_is_not_finite_keeps_the_one_before_wherever_it_was_found() -> None:
    engine = Engine(ALARMING, SometimesUnsound(ALARMING.problem))
    whole, single = folded(engine), folded(engine, 2 * PAIRS)
    assert 10 < whole.not_finite < whole.adaptations - 10
    assert single.same_bits(whole) == []
    assert (single.adaptations, single.not_finite) == (whole.adaptations, whole.not_finite)
