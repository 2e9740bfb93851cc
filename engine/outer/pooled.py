"""Pooled training: one model for all tasks, the baseline that every meta-learner must be shown beside.

    g = d/d theta  mean over all labelled examples of  loss(theta, example)

(Joint training, Nichol, Achiam, Schulman 2018, arXiv:1803.02999, section 2.) Nothing here knows that tasks
differ; followed by the learner's adaptation it is fine-tuning of a pretrained model. Not Reptile, whose
gradients are taken along a task's own descent, and not `Backprop` with zero inner steps, which leaves
out the support sets and weighs tasks equally, not examples.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from engine.learners.base import Embeds, Learner, example_losses
from engine.outer.base import Report, gradient_of, labelled, leaves, reported
from engine.targets import Classification
from engine.types import EngineError, Episodes, Params


@dataclass(frozen=True)
class Pooled:
    """An `OuterRule` that does not adapt; its report does, on the support sets."""

    def __call__(self, learner: Learner, meta: Params, episodes: Episodes) -> tuple[Params, Report]:
        """Gradient of every learned parameter.

        Raises:
            EngineError: theta's own outputs do not depend on theta, so nothing can be trained.

        """
        target = learner.problem.target
        if isinstance(learner, Embeds) and isinstance(target, Classification) and target.exchangeable:
            raise EngineError(
                f"Pooled trains theta's own predictions, and {type(learner).__name__} has none where classes are "
                "numbered anew in every episode; use Backprop"
            )
        theta = leaves({name: meta[name] for name in learner.learned})
        sides = labelled(episodes)
        x = torch.cat([side.x.flatten(0, 1) for side in sides])
        y = torch.cat([side.y.flatten() for side in sides])
        weight = torch.cat([side.weight.flatten() for side in sides])
        kept = weight > 0  # what is padded would count in a network that normalises by batch
        kept = kept | ~kept.any()
        losses = example_losses(learner.problem, meta, learner.shared({**meta, **theta}, x[kept]), y[kept])
        loss = (losses * weight[kept]).sum() / weight.sum().clamp(min=1)
        return gradient_of(loss, theta), reported(learner, meta, episodes)
