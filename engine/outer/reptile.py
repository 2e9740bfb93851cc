"""Reptile: theta moves towards where plain training on each task ends.

    g = theta - mean over tasks of phi_K;   phi_k+1 = phi_k - lr * clip(grad loss(phi_k, mini-batch k))

(Nichol, Achiam, Schulman 2018, arXiv:1803.02999, algorithm 1 and section 5.1.) As in the paper there is no
split: support and query examples alike are trained on, and every learned parameter takes part, even where
the learner adapts the head alone; with only the head in the inner loop the body could never move. What the
rule learns comes from successive mini-batches of one task agreeing (section 5.1, AvgGradInner): one step on
everything would be pooled training. The report still adapts as the learner does, on the support set alone.

The paper's serial version is a batch of one episode, its batched version a larger batch. Whether it is
transductive is no matter of the rule, but of batch norm in the network when it is evaluated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.learners.base import Learner, TakesSteps, kernel_of
from engine.outer.base import Report, judged, labelled, reported, takes_steps
from engine.types import Batch, EngineError, Episodes, Fast, Params


@dataclass(frozen=True)
class Reptile:
    """An `OuterRule`: K = `steps` inner steps, in turn over the `minibatches` parts of a task's examples.

    Step size and clipping are the learner's inner loop's. The pseudo-gradient is as long as the inner steps
    are; plain SGD with a learning rate of at most 1 is the paper's interpolation.
    """

    steps: int = 8
    minibatches: int = 4

    def __post_init__(self) -> None:
        if self.steps < 2 or self.minibatches < 2:
            raise EngineError(
                f"Reptile needs at least 2 steps over 2 mini-batches, got {self}; or use Pooled"
            )

    def __call__(self, learner: Learner, meta: Params, episodes: Episodes) -> tuple[Params, Report]:
        """Pseudo-gradient of every learned parameter."""
        kept = judged(episodes)
        scale = 1 / kept.sum().clamp(min=1)
        moves = self._moves(_of_fixed_rates(takes_steps(learner, "Reptile")), meta, episodes, kept)
        return {name: value * scale for name, value in moves.items()}, reported(learner, meta, episodes)

    def _moves(self, learner: TakesSteps, meta: Params, episodes: Episodes, kept: Tensor) -> Params:
        """How far the tasks [U] that are kept move, in sum: theta minus where each ends."""
        parts = [_part(episodes, part, self.minibatches) for part in range(self.minibatches)]
        kernel = kernel_of(learner)
        if kernel is not None and kernel.knows(*meta.values(), *parts[0]):
            return kernel.of(meta).moves_apart(parts, kept.numpy(), self.steps)
        phi = self._train(learner, meta, parts)
        return {name: (meta[name] - value)[kept].sum(0) for name, value in phi.items()}

    def _train(self, learner: TakesSteps, meta: Params, parts: Sequence[Batch]) -> Fast:
        tasks = len(parts[0].x)
        phi = {name: meta[name].expand(tasks, *meta[name].shape) for name in learner.learned}
        for step in range(self.steps):
            phi = learner.step(meta, phi, parts[step % self.minibatches])
        return phi


def _of_fixed_rates(learner: TakesSteps) -> TakesSteps:
    if learner.problem.inner.rates == "learned":
        raise EngineError("Reptile learns no step sizes; use Backprop, or set inner.rates to 'fixed'")
    return learner


def _part(episodes: Episodes, part: int, parts: int) -> Batch:
    """Every `parts`-th example of each task, from support and query apart: padding moves no example."""
    support, query = labelled(episodes)
    x, y, weight = (
        torch.cat([s[:, part::parts], q[:, part::parts]], 1) for s, q in zip(support, query, strict=True)
    )
    total = weight.sum(1, keepdim=True)
    return Batch(x, y, weight / torch.where(total > 0, total, 1))
