"""The query sets of episodes, predicted and scored: each query alone, and where it matters all together too.

With batch normalisation that keeps no running statistics, the queries of an episode tell on each other: they
share a mean, and where every class has as many queries that mean says much of where each lies. Such a network is
judged as the others are, each query alone, beside the support set (Nichol, Achiam, Schulman 2018,
arXiv:1803.02999, section 6.1), and the transductive way too, for comparison with papers that report it.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from torch.func import vmap

from engine.evaluation.episodic.report import Metric, Mode
from engine.problem import Problem
from engine.targets import Classification, Regression
from engine.types import Batch, Episodes, Fast, Float64, Params

ALONE = 512
"""Examples of one call where each query is judged beside its support set."""


class Adapts(Protocol):
    """What can be judged: every `Learner`, and baselines that learn nothing across tasks."""

    @property
    def problem(self) -> Problem:
        """The tasks it is for."""
        ...

    def adapt(self, meta: Params, support: Batch) -> Fast:
        """Fast parameters of U tasks from their support sets."""
        ...

    def predict(self, meta: Params, fast: Fast, x: Tensor) -> Tensor:
        """Outputs [U, N, C] of U tasks for x [U, N, W], before softmax or clipping."""
        ...


def metrics_of(target: Classification | Regression) -> tuple[Metric, ...]:
    """What is measured; the first is what contenders are judged by."""
    return ("accuracy", "log_loss") if isinstance(target, Classification) else ("squared_error",)


@torch.no_grad()
def predicted(built: Adapts, theta: Params, episodes: Episodes, *, by_batch: bool) -> dict[Mode, Tensor]:
    """Outputs [U, Q, C] on the query sets after adaptation on the support sets, by mode.

    `by_batch` is what `normalises_by_batch` says of the problem.
    """
    if by_batch:
        return _together_and_alone(built, theta, episodes)
    fast = built.adapt(theta, episodes.support)
    return {"inductive": built.predict(theta, fast, episodes.query.x)}


def scored(target: Classification | Regression, outputs: Tensor, query: Batch) -> Float64:
    """Mean of each metric over the queries of each episode [metrics, U]."""
    said, weight = target.predict(outputs.double()), query.weight.double()
    if isinstance(target, Regression):
        each = [(said.squeeze(-1) - query.y).square()]
    else:
        truth = said.gather(-1, query.y.long().unsqueeze(-1)).squeeze(-1)
        right = (said.argmax(-1) == query.y) & truth.isfinite()
        each = [right.double(), -truth.log()]
    return torch.stack([(one * weight).sum(1) / weight.sum(1) for one in each]).numpy()


def _together_and_alone(built: Adapts, theta: Params, episodes: Episodes) -> dict[Mode, Tensor]:
    """One task after another, without padding, which would count in the statistics."""
    together, alone = (
        episodes.query.x.new_zeros(*episodes.query.y.shape, built.problem.target.outputs) for _ in range(2)
    )
    for u in range(len(together)):
        one, queries = _unpadded(episodes.support, u), int((episodes.query.weight[u] > 0).sum())
        x, fast = episodes.query.x[u, :queries], built.adapt(theta, one)
        together[u, :queries] = built.predict(theta, fast, x.unsqueeze(0))[0]
        alone[u, :queries] = _alone(built, theta, fast, one.x[0], x)
    return {"inductive": alone, "transductive": together}


def _alone(built: Adapts, theta: Params, fast: Fast, support: Tensor, queries: Tensor) -> Tensor:
    """Outputs [Q, C] of queries [Q, W], each predicted in the company of the support set [S, W] alone."""
    beside = torch.cat([support.expand(len(queries), -1, -1), queries.unsqueeze(1)], 1)

    def last(x: Tensor) -> Tensor:
        """Outputs for the last of one call's examples."""
        return built.predict(theta, fast, x.unsqueeze(0))[0, -1]

    return vmap(last, chunk_size=max(1, ALONE // beside.shape[1]))(beside)


def _unpadded(batch: Batch, task: int) -> Batch:
    kept = batch.weight[task] > 0
    return Batch(*(column[task : task + 1, kept] for column in batch))
