"""Backpropagation through adaptation: the gradient of the query loss after it, with respect to theta.

    g = d/d theta  mean over tasks of  loss(phi(theta, support), query)

(Finn, Abbeel, Levine 2017, arXiv:1703.03400, algorithm 1, line 8 and section 5.2.) With a learner that takes
gradient steps this is MAML; first order, which takes d phi / d theta to be the identity, so that the gradient at
phi stands for the gradient at theta, FOMAML. A parameter that does not adapt moves by its plain gradient with
phi in place. With a learner that embeds examples it is episodic training (Vinyals et al. 2016, arXiv:1606.04080),
which has no second derivatives to leave out. Not Reptile, which never looks at the gradient at phi and needs
no split into support and query.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from engine.batches import resplit
from engine.learners.base import Embeds, Learner
from engine.outer.base import Report, gradient_of, leaves, query_loss, report
from engine.targets import Regression
from engine.types import EngineError, Episodes, Params


@dataclass(frozen=True)
class Backprop:
    """An `OuterRule`. What the learner adapts makes it MAML (all) or ANIL (the head).

    With `splits`, a learner that embeds examples embeds those of an episode once, and is trained on so many ways to
    split them into support and query set: embedding is most of the work, so this is as many episodes for little more
    than the price of one. Of classes alone: a split has as many examples of each, of the same weight in all.
    """

    first_order: bool = True
    splits: int = 1

    def __post_init__(self) -> None:
        if self.splits < 1:
            raise EngineError(f"splits must be at least 1, got {self.splits}")

    def __call__(self, learner: Learner, meta: Params, episodes: Episodes) -> tuple[Params, Report]:
        """Pseudo-gradient of every learned parameter."""
        theta = leaves({name: meta[name] for name in learner.learned})
        values = {**meta, **theta}
        if self.splits == 1:
            loss = self._loss(learner, values, episodes)
        else:
            reader = splittable(learner)
            embedded = Episodes(*(side._replace(x=reader.embed(values, side.x)) for side in episodes))
            ways = (resplit(embedded, turn) for turn in range(self.splits))
            loss = torch.stack([self._loss(reader.of_embeddings(), values, way) for way in ways]).mean()
        return gradient_of(loss, theta), report(learner, meta, episodes, loss.detach())

    def _loss(self, learner: Learner, values: Params, episodes: Episodes) -> Tensor:
        fast = learner.adapt_differentiably(values, episodes.support, second_order=not self.first_order)
        return query_loss(learner, values, fast, episodes)


def splittable(learner: Learner) -> Embeds:
    """The learner, if it embeds examples, of classes.

    Raises:
        EngineError: it does not.

    """
    if not isinstance(learner, Embeds):
        raise EngineError(f"{type(learner).__name__} embeds no examples to split anew; leave splits at 1")
    if isinstance(learner.problem.target, Regression):
        raise EngineError("an episode is split by its classes, and a regression has none; leave splits at 1")
    return learner
