"""Made-up rows, labels, support sets and events of any task spec, for the checks to run on."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from engine.features import Category, Features, Text
from engine.fold import BLOCK
from engine.spec import Regression, TaskSpec
from engine.support import SMALLEST_BUCKET
from engine.types import Batch, EventBatch, Float32, Kind

EXAMPLES = 5
"""Support examples of a checked task: fewer than the smallest bucket, so that there is padding."""

EVENTS = 96
"""Events of the checked stream."""


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


def labels_of(spec: TaskSpec, count: int, seed: int) -> Float32:
    """Labels [count] that the target allows."""
    rng, target = np.random.default_rng(seed), spec.target
    if isinstance(target, Regression):
        return rng.uniform(target.low, target.high, count).astype(np.float32)
    return rng.integers(0, target.outputs, count).astype(np.float32)


def support_sets(spec: TaskSpec, seed: int) -> Batch:
    """A block of support sets of a few examples each, zeros and weight 0 up to the smallest bucket."""
    count = BLOCK * EXAMPLES
    x: Tensor = torch.zeros(BLOCK, SMALLEST_BUCKET, spec.features.width)
    y, weight = torch.zeros(2, BLOCK, SMALLEST_BUCKET)
    x[:, :EXAMPLES] = torch.from_numpy(stored_rows(spec.features, count, seed)).view(BLOCK, EXAMPLES, -1)
    y[:, :EXAMPLES] = torch.from_numpy(labels_of(spec, count, seed)).view(BLOCK, EXAMPLES)
    weight[:, :EXAMPLES] = 1 / EXAMPLES
    return Batch(x, y, weight)


def no_examples(spec: TaskSpec) -> Batch:
    """A block of tasks never labelled."""
    return Batch(
        torch.zeros(BLOCK, 0, spec.features.width),
        torch.zeros(BLOCK, 0),
        torch.zeros(BLOCK, 0),
    )


def event_stream(spec: TaskSpec, start: int, stop: int) -> EventBatch:
    """Events start .. stop of one fixed stream of three tasks, six observations and then their six labels."""
    index = np.arange(start, stop)
    is_label = index // 6 % 2 == 1
    return EventBatch(
        row=index % 3,
        kind=np.where(is_label, int(Kind.LABEL), int(Kind.OBSERVATION)).astype(np.uint8),
        id=np.where(is_label, index - 6, index).astype(np.uint64),
        time_s=np.zeros(len(index)),
        x=stored_rows(spec.features, EVENTS, seed=0)[index],
        has_x=~is_label,
        y=labels_of(spec, EVENTS, seed=0)[index],
        topic=np.zeros(len(index), np.int64),
        offset=index,
        partition=np.zeros(len(index), np.int64),
        incarnation=np.ones(len(index), np.uint64),
    )
