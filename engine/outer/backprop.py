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

from engine.learners.base import Learner
from engine.outer.base import Report, gradient_of, leaves, query_loss, report
from engine.types import Episodes, Params


@dataclass(frozen=True)
class Backprop:
    """An `OuterRule`. What the learner adapts makes it MAML (all) or ANIL (the head)."""

    first_order: bool = True

    def __call__(self, learner: Learner, meta: Params, episodes: Episodes) -> tuple[Params, Report]:
        """Pseudo-gradient of every learned parameter."""
        theta = leaves({name: meta[name] for name in learner.learned})
        values = {**meta, **theta}
        fast = learner.adapt_differentiably(values, episodes.support, second_order=not self.first_order)
        loss = query_loss(learner, values, fast, episodes)
        return gradient_of(loss, theta), report(learner, meta, episodes, loss.detach())
