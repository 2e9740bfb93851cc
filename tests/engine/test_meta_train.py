"""Offline meta-training: resumed bit for bit, stopped by held-out tasks, the same over processes and accumulation."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from engine.episodes.meta_train import MetaTraining, Place, begun, meta_train
from engine.episodes.task_source import ClassEpisodes, Examples
from engine.features.columns import Numeric
from engine.features.encoder import Features
from engine.learners.gradient import GradientLearner
from engine.learners.prototype import PrototypeLearner
from engine.networks.mlp import mlp
from engine.outer.backprop import Backprop
from engine.outer.descent import FitSettings
from engine.outer.fit import fit, start
from engine.problem import InnerLoop, Problem
from engine.targets import Classification
from engine.types import EngineError, Episodes, Params

PROBLEM = Problem(
    Features((Numeric("a"), Numeric("b"))),
    Classification((0, 1, 2), exchangeable=True),
    partial(mlp, hidden=(8,)),
)
LEARNER = PrototypeLearner(PROBLEM, width=4)
OUTER = FitSettings(lr=0.01)


def blobs(seed: int) -> ClassEpisodes:
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(12), 8)
    x = rng.normal(size=(12, 2))[y] + 0.3 * rng.normal(size=(96, 2))
    pool = Examples(x.astype(np.float32), y.astype(np.float32), np.zeros(96, np.int64), np.zeros(96))
    return ClassEpisodes(pool, 3, 1, 4)


TRAINED, JUDGED = blobs(0), blobs(1)
SETTINGS = MetaTraining(rounds=12, tasks=4, every=3, judged=25)


def equal(a: Params, b: Params) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_training_stopped_between_stretches_and_resumed_goes_on_bit_for_bit() -> None:
    stretches = list(
        meta_train(LEARNER, Backprop(), TRAINED, JUDGED, SETTINGS, OUTER, begun(start(LEARNER, 0)))
    )
    assert [one.state.step for one in stretches] == [3, 6, 9, 12]
    resumed = list(meta_train(LEARNER, Backprop(), TRAINED, JUDGED, SETTINGS, OUTER, stretches[1]))
    assert equal(resumed[-1].state.params, stretches[-1].state.params)
    assert equal(resumed[-1].state.optimizer, stretches[-1].state.optimizer)
    assert equal(resumed[-1].best, stretches[-1].best)


def test_training_learns_to_tell_classes_it_never_saw() -> None:
    settings = replace(SETTINGS, rounds=60, every=30, judged=50)
    first, *_, last = [
        *meta_train(LEARNER, Backprop(), TRAINED, JUDGED, replace(settings, every=1, rounds=1), OUTER,
                    begun(start(LEARNER, 0))),
        *meta_train(LEARNER, Backprop(), TRAINED, JUDGED, settings, OUTER, begun(start(LEARNER, 0))),
    ]  # fmt: skip
    assert last.held_out_loss < first.held_out_loss


def test_it_stops_when_held_out_tasks_no_longer_gain_and_keeps_the_best_theta() -> None:
    outer = FitSettings(optimizer="SGD", lr=1e-12)
    stale = list(
        meta_train(
            LEARNER, Backprop(), TRAINED, JUDGED, replace(SETTINGS, rounds=99, patience=2),
            replace(outer, lr=0.5), begun(start(LEARNER, 0)),
        )
    )  # fmt: skip
    assert stale[-1].stale in (0, 2)
    assert stale[-1].stale == 2 or stale[-1].state.step == 99
    best = min(range(len(stale)), key=lambda i: stale[i].held_out_loss)
    assert stale[-1].best_loss == stale[best].held_out_loss
    assert equal(stale[-1].best, stale[best].state.params)


def test_without_held_out_tasks_the_newest_theta_is_kept() -> None:
    last = list(meta_train(LEARNER, Backprop(), TRAINED, None, SETTINGS, OUTER, begun(start(LEARNER, 0))))[-1]
    assert equal(last.best, last.state.params)


def test_accumulated_batches_are_one_batch_of_all_their_episodes() -> None:
    drawn = [TRAINED.draw(4, seed=0, step=step) for step in range(4)]
    whole = [
        type(drawn[0])(
            *(
                type(drawn[0].support)(*(torch.cat(pair) for pair in zip(a, b, strict=True)))
                for a, b in zip(drawn[i], drawn[i + 1], strict=True)
            )
        )
        for i in (0, 2)
    ]
    # Not Adam, which makes full steps of the rounding in a gradient of zero.
    begin, sgd = start(LEARNER, 0), FitSettings(optimizer="SGD", lr=0.1)
    accumulated, rounds = fit(LEARNER, Backprop(), drawn, begin, replace(sgd, accumulate=2))
    at_once, _ = fit(LEARNER, Backprop(), whole, begin, sgd)
    assert len(rounds) == 2
    for name, value in at_once.params.items():
        torch.testing.assert_close(accumulated.params[name], value)


def test_processes_draw_different_episodes_and_step_along_their_mean() -> None:
    """Two processes are run one after the other here: each hands the other what it would have sent."""
    sent: dict[int, list[Params]] = {0: [], 1: []}

    def keep(rank: int, gradient: Params) -> Params:
        sent[rank].append(gradient)
        return gradient

    one_round = replace(SETTINGS, rounds=1, every=1)
    for rank in (0, 1):
        place = Place(rank, 2, partial(keep, rank))
        list(
            meta_train(LEARNER, Backprop(), TRAINED, None, one_round, OUTER, begun(start(LEARNER, 0)), place)
        )
    assert not equal(sent[0][0], sent[1][0])
    mean = {name: (sent[0][0][name] + sent[1][0][name]) / 2 for name in sent[0][0]}
    place = Place(0, 2, lambda gradient: mean)
    (both,) = meta_train(
        LEARNER, Backprop(), TRAINED, None, one_round, OUTER, begun(start(LEARNER, 0)), place
    )
    drawn = [TRAINED.draw(4, seed=1, step=step) for step in (0, 1)]
    alone, _ = fit(LEARNER, Backprop(), drawn, start(LEARNER, 0), replace(OUTER, accumulate=2))
    for name, value in alone.params.items():
        torch.testing.assert_close(both.state.params[name], value)


@pytest.mark.parametrize(
    "broken", [{"rounds": 0}, {"tasks": 0}, {"every": 0}, {"judged": 0}, {"patience": -1}]
)
def test_training_of_nothing_is_refused(broken: dict[str, int]) -> None:
    with pytest.raises(EngineError, match="positive"):
        MetaTraining(**{"rounds": 1, **broken})


def test_rules_made_of_inner_steps_refuse_a_learner_that_takes_none() -> None:
    from engine.outer.reptile import Reptile

    with pytest.raises(EngineError, match="PrototypeLearner takes none"):
        fit(LEARNER, Reptile(), [TRAINED.draw(2, seed=0, step=0)], start(LEARNER, 0), OUTER)


def test_the_gradient_learner_trains_on_the_same_episodes() -> None:
    learner = GradientLearner(replace(PROBLEM, inner=InnerLoop(steps=1)))
    last = list(meta_train(learner, Backprop(), TRAINED, JUDGED, SETTINGS, OUTER, begun(start(learner, 0))))[
        -1
    ]
    assert last.trained_loss > 0
    assert last.held_out_loss > 0


class Blank:
    """Episodes whose queries are not numbers."""

    def draw(self, count: int, *, seed: int, step: int) -> Episodes:
        support, query = JUDGED.draw(count, seed=seed, step=step)
        return type(JUDGED.draw(1, seed=0, step=0))(support, query._replace(x=query.x * torch.nan))


def test_a_judgement_that_is_not_finite_keeps_the_best_theta_and_ends_training() -> None:
    (good,) = meta_train(
        LEARNER, Backprop(), TRAINED, JUDGED, replace(SETTINGS, rounds=3), OUTER, begun(start(LEARNER, 0))
    )
    later = list(
        meta_train(LEARNER, Backprop(), TRAINED, Blank(), replace(SETTINGS, patience=2), OUTER, good)
    )
    assert [one.stale for one in later] == [1, 2]
    assert equal(later[-1].best, good.state.params)
    assert not equal(later[-1].state.params, good.state.params)


def test_training_that_never_moves_theta_says_so() -> None:
    with pytest.raises(EngineError, match="theta did not move in 3 rounds from 0 on"):
        list(meta_train(LEARNER, Backprop(), Blank(), None, SETTINGS, OUTER, begun(start(LEARNER, 0))))


def test_a_last_stretch_that_is_short_may_be_all_skipped() -> None:
    one = replace(SETTINGS, rounds=1)
    (last,) = meta_train(LEARNER, Backprop(), Blank(), None, one, OUTER, begun(start(LEARNER, 0)))
    assert last.state.step == 1
