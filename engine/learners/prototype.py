"""Prototypical networks: an example belongs to the class whose mean embedding is nearest.

    c_k = mean of f(x_i) over the support examples of class k;   logit_k(x) = - |f(x) - c_k|^2

(Snell, Swersky, Zemel 2017, arXiv:1703.05175, equations 1 and 2.) Where a class is the same class in every task,
theta brings an example of each of its own, of a learned weight, and a bias that holds how frequent the class is:

    c_k = (w p_k + sum of f(x_i)) / (w + n_k);   logit_k(x) = b_k - |f(x) - c_k|^2

so a task never labelled has prototypes too, and a task with few labels stays near them (a conjugate prior). Not
nearest neighbour, and not Matching Networks, which compare with every example; an example more only moves a mean.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from engine.learners.embedding import EmbeddingLearner
from engine.learners.labels import one_hot
from engine.problem import Problem
from engine.targets import Classification
from engine.types import Batch, EngineError, Fast, Params

ABSENT = 1e4
"""How much less likely, in nats, a class is that theta knows nothing of and the task has no example of."""


class PrototypeLearner(EmbeddingLearner):
    """Fast parameters are the sum of embeddings of each class, and how many they are."""

    def __init__(self, problem: Problem, width: int = 64) -> None:
        if not isinstance(problem.target, Classification):
            raise EngineError(
                "prototypes need classes; for a regression use the gradient or matching learner"
            )
        self.classes, self.exchangeable = problem.target.outputs, problem.target.exchangeable
        super().__init__(problem, width)

    def own_modules(self) -> nn.Module:
        """Build what theta holds beside encoder and network, freshly initialised."""
        return nn.Module() if self.exchangeable else _Prior(self.classes, self.width)

    def fast_of(self, meta: Params, support: Batch) -> Fast:
        """Compute fast parameters of U tasks from support x [U, S, W]."""
        # Class weights balance a loss; a mean within one class needs to know only who is present.
        present = (support.weight > 0).unsqueeze(-1)
        member = one_hot(support.y, self.classes) * present
        rows = support.x.where(present, 0.0)  # padding may hold anything, NaN included
        return {"sums": member.transpose(1, 2) @ self.embed(meta, rows), "counts": member.sum(1)}

    def outputs_of(self, meta: Params, fast: Fast, x: Tensor) -> Tensor:
        """Compute outputs [U, N, C] of U tasks for x [U, N, W], before softmax."""
        sums, counts = fast["sums"], fast["counts"].unsqueeze(-1)
        queries = self.embed(meta, x)
        if self.exchangeable:
            far = _squared_distance(queries, sums / counts.clamp(min=1))
            absent = (counts == 0).transpose(1, 2)
            farthest = torch.finfo(far.dtype).max
            nearest = far.masked_fill(absent, farthest).amin(-1, keepdim=True)
            return (nearest - far).masked_fill(absent, -ABSENT).clamp(min=-ABSENT)
        weight = meta["2.log_weight"].exp()
        centres = (weight * meta["2.prototypes"] + sums) / (weight + counts)
        return meta["2.bias"] - _squared_distance(queries, centres)


class _Prior(nn.Module):
    """One example of each class that theta brings along."""

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.prototypes = nn.Parameter(torch.randn(classes, width) / width**0.5)
        self.log_weight = nn.Parameter(torch.zeros(()))
        self.bias = nn.Parameter(torch.zeros(classes))


def _squared_distance(a: Tensor, b: Tensor) -> Tensor:
    """Squared Euclidean distance [U, N, M] of a [U, N, D] from b [U, M, D]."""
    return a.square().sum(-1, keepdim=True) - 2 * a @ b.transpose(1, 2) + b.square().sum(-1).unsqueeze(1)
