"""Padding, which keeps shapes few, changes nothing: not even where a network normalises by batch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from engine.batches import by_size
from engine.episodes.meta_train import MetaTraining, judged
from engine.episodes.task_source import Examples, TaskEpisodes
from engine.features.columns import Numeric
from engine.features.encoder import Features
from engine.learners.base import Learner, losses
from engine.learners.gradient import GradientLearner
from engine.learners.prototype import PrototypeLearner
from engine.networks.norms import row_norm
from engine.outer.backprop import Backprop
from engine.outer.base import OuterRule
from engine.outer.descent import FitSettings
from engine.outer.fit import fit, start
from engine.outer.implicit import Implicit
from engine.outer.pooled import Pooled
from engine.outer.reptile import Reptile
from engine.problem import InnerLoop, Problem
from engine.targets import Classification
from engine.types import Batch, Episodes, Fast, Params


def normed(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, 4), row_norm("batch", 4), nn.Linear(4, outputs))


PROBLEM = Problem(
    Features((Numeric("a"), Numeric("b"))),
    Classification((0, 1)),
    normed,
    adapts="all",
    inner=InnerLoop(steps=2, proximal=0.5),
)


def ragged() -> TaskEpisodes:
    """Tasks of 5 to 24 examples, whose balanced support sets are of 2 to 10 examples."""
    rng = np.random.default_rng(0)
    task = np.repeat(np.arange(20), np.arange(5, 25))
    x = rng.normal(size=(len(task), 2)).astype(np.float32)
    y = (rng.random(len(task)) < 0.4).astype(np.float32)
    return TaskEpisodes(Examples(x, y, task, np.zeros(len(task))), shots=5, queries=9, balanced=True)


def of_one(episodes: Episodes, task: int) -> Episodes:
    """A task of the batch, alone and without padding."""
    return Episodes(
        *(Batch(*(part[task : task + 1, side.weight[task] > 0] for part in side)) for side in episodes)
    )


def moved(learner: Learner, rule: OuterRule, episodes: Episodes) -> tuple[Params, float]:
    """What one step of length 1 goes, and the loss that the round reports."""
    begin = start(learner, 0)
    state, rounds = fit(learner, rule, [episodes], begin, FitSettings("SGD", lr=1.0))
    gone = {name: begin.params[name] - state.params[name] for name in learner.learned}
    return gone, rounds[0].report.query_loss_after


@pytest.mark.parametrize(
    ("learner", "rule"),
    [
        (GradientLearner(PROBLEM), Backprop()),
        (GradientLearner(PROBLEM), Backprop(first_order=False)),
        (GradientLearner(PROBLEM), Implicit()),
        (GradientLearner(PROBLEM), Reptile()),
        (PrototypeLearner(PROBLEM, width=4), Backprop()),
        (PrototypeLearner(PROBLEM, width=4), Backprop(splits=2)),
    ],
    ids=lambda case: type(case).__name__,
)
def test_a_ragged_batch_is_the_mean_of_its_tasks_as_they_are_without_padding(
    learner: GradientLearner | PrototypeLearner, rule: Backprop | Implicit | Reptile
) -> None:
    episodes = ragged().draw(6, seed=0, step=0)
    sizes = [len(part.query.y) for part in by_size(episodes)]
    assert max(sizes) == 1, "tasks of one size share the statistics of an embedding"
    together, loss = moved(learner, rule, episodes)
    alone = [moved(learner, rule, of_one(episodes, task)) for task in range(6)]
    for name, value in together.items():
        torch.testing.assert_close(value, sum(moves[name] for moves, _ in alone) / 6, atol=1e-5, rtol=1e-4)
    assert loss == pytest.approx(sum(one for _, one in alone) / 6, rel=1e-5)


@pytest.mark.parametrize("rule", [Backprop(), Reptile(), Pooled()], ids=str)
def test_more_padding_moves_nothing_else(rule: Backprop | Reptile | Pooled) -> None:
    learner, episodes = GradientLearner(PROBLEM), ragged().draw(6, seed=0, step=1)
    pad = nn.functional.pad
    longer = Episodes(*(Batch(pad(x, (0, 0, 0, 5)), pad(y, (0, 5)), pad(w, (0, 5))) for x, y, w in episodes))
    (ours, _), (theirs, _) = moved(learner, rule, episodes), moved(learner, rule, longer)
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name])


def test_tasks_of_one_size_stay_one_call() -> None:
    (same,) = by_size(TaskEpisodes(ragged().examples, shots=4, queries=1).draw(8, seed=0, step=0))
    assert same.support.y.shape == (8, 4)


def test_episodes_without_a_query_set_contribute_nothing_where_sizes_differ() -> None:
    learner, episodes = GradientLearner(PROBLEM), ragged().draw(6, seed=0, step=0)
    weight = episodes.query.weight.clone()
    weight[2:] = 0
    fewer = Episodes(*(Batch(*(part[:2] for part in side)) for side in episodes))
    (ours, _), (theirs, _) = (
        moved(learner, Backprop(), some)
        for some in (episodes._replace(query=episodes.query._replace(weight=weight)), fewer)
    )
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name])


def test_nothing_to_be_judged_on_moves_nothing() -> None:
    episodes = ragged().draw(6, seed=0, step=0)
    query = episodes.query._replace(weight=torch.zeros_like(episodes.query.weight))
    moves, loss = moved(GradientLearner(PROBLEM), Backprop(), episodes._replace(query=query))
    assert all(not value.any() for value in moves.values())
    assert np.isnan(loss)


def test_theta_is_judged_without_padding() -> None:
    learner, source = GradientLearner(PROBLEM), ragged()
    theta, settings = learner.init(0), MetaTraining(1, judged=25)
    episodes = source.draw(25, seed=0, step=0)
    alone = [
        float(losses(learner.unrecorded(), theta, learner.unrecorded().adapt(theta, one.support), one.query))
        for one in (of_one(episodes, task) for task in range(25))
    ]
    assert judged(learner, theta, source, settings, "cpu") == pytest.approx(np.mean(alone), rel=1e-5)


def test_a_network_that_treats_examples_alone_is_called_with_the_whole_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = GradientLearner(replace(PROBLEM, network=nn.Linear))
    seen = []

    def counted(meta: Params, support: Batch) -> Fast:
        seen.append(len(support.y))
        return GradientLearner.adapt(plain, meta, support)

    monkeypatch.setattr(plain, "adapt", counted)
    moved(plain, Backprop(), ragged().draw(6, seed=0, step=0))
    assert seen == [6]
