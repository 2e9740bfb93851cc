"""Made-up rows, labels and support sets of any problem, for the checks to run on."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from engine.batches import BLOCK, SMALLEST_BUCKET
from engine.features.columns import Category, Text
from engine.features.encoder import Features
from engine.learners.base import Learner
from engine.problem import Problem
from engine.targets import Regression
from engine.types import Batch, Float32, Params

EXAMPLES = 5
"""The most support examples of a checked task: fewer than the smallest bucket, so that there is padding."""


def stored_rows(features: Features, count: int, seed: int) -> Float32:
    """Stored rows [count, W] that an encoder may have made: ids where there are ids, else numbers."""
    rng = np.random.default_rng(seed)
    parts = [
        rng.integers(0, column.buckets, (count, column.width))
        if isinstance(column, Category | Text)
        else rng.normal(size=(count, column.width))
        for column in features.columns
    ]
    return np.concatenate(parts, axis=1).astype(np.float32)


def rows_of(problem: Problem, count: int, seed: int) -> Float32:
    """Stored rows [count, W] of a problem, with a history of some task where it keeps one."""
    own = stored_rows(problem.features, count, seed)
    past = np.random.default_rng(seed + 1).uniform(0, 3, (count, problem.width - own.shape[1]))
    return np.concatenate([own, np.floor(past)], axis=1).astype(np.float32)


def labels_of(problem: Problem, count: int, seed: int) -> Float32:
    """Labels [count] that the target allows."""
    rng, target = np.random.default_rng(seed), problem.target
    if isinstance(target, Regression):
        return rng.uniform(target.low, target.high, count).astype(np.float32)
    return rng.integers(0, len(target.classes), count).astype(np.float32)


def model_of(problem: Problem) -> nn.Sequential:
    """A model that has learned: moved away from where it begins, where layers may be zero and hide what others do."""
    model = problem.model()
    _stir([value for _, value in model.named_parameters()])
    return model


def theta_of(learner: Learner) -> Params:
    """A theta that has learned, in the same sense."""
    theta = learner.init(0)
    _stir([theta[name] for name in learner.learned])
    return theta


@torch.no_grad()
def _stir(values: list[torch.Tensor]) -> None:
    generator = torch.Generator().manual_seed(0)
    for value in values:
        value += 0.1 * torch.randn(value.shape, generator=generator)


def support_sets(problem: Problem, seed: int) -> Batch:
    """A block of ragged support sets, of 5, 4 .. 1 examples in turn; zeros and weight 0 to the smallest bucket."""
    count = BLOCK * SMALLEST_BUCKET
    x = torch.from_numpy(rows_of(problem, count, seed)).view(BLOCK, SMALLEST_BUCKET, -1)
    y = torch.from_numpy(labels_of(problem, count, seed)).view(BLOCK, SMALLEST_BUCKET)
    sizes = EXAMPLES - torch.arange(BLOCK).unsqueeze(1) % EXAMPLES
    present = torch.arange(SMALLEST_BUCKET) < sizes
    return Batch(x.where(present.unsqueeze(-1), 0.0), y * present, present / sizes)


def no_examples(problem: Problem, padding: int = 0) -> Batch:
    """A block of tasks never labelled; `padding` is the length of a batch in which others are."""
    y = torch.zeros(BLOCK, padding)
    return Batch(torch.zeros(BLOCK, padding, problem.width), y, y)
