"""What an engine does once and then has: recordings of its tensor calls, and its compiled scan loaded.

It takes seconds, several where events come to tasks of many sizes one after the other. Whoever shares partitions with
others does it before it takes any of theirs (`streams.cli.serving`).
"""

from __future__ import annotations

import numpy as np
import torch

from engine.batches import BLOCK, SMALLEST_BUCKET, bucket_of
from engine.problem import Problem
from engine.stream.events import EventBatch
from engine.stream.fold import Engine
from engine.stream.table import TaskTable
from engine.types import Batch, Kind, Meta


def warm_up(engine: Engine) -> None:
    """Fold events of a made-up task, and adapt to support sets of every padded length; nothing of it is kept."""
    meta = Meta(1, {name: value.to(engine.device) for name, value in engine.learner.init(0).items()})
    engine.fold(TaskTable.empty(engine.layout, ["made up"]), _events(engine.spec.problem), meta)
    length = SMALLEST_BUCKET
    while length <= bucket_of(engine.spec.problem.support):
        y = torch.zeros(BLOCK, length, device=engine.device)
        x = y.new_zeros(BLOCK, length, engine.spec.problem.width)
        engine.learner.adapt(meta.params, Batch(x, y, torch.full_like(y, 1 / length)))
        length *= 2


def _events(problem: Problem) -> EventBatch:
    """Two observations and their labels, in turn."""
    n = np.arange(4)
    return EventBatch(
        row=np.zeros(4, np.int64),
        kind=np.where(n % 2, Kind.LABEL, Kind.OBSERVATION).astype(np.uint8),
        id=(n // 2).astype(np.uint64),
        time_s=np.zeros(4),
        x=np.zeros((4, problem.features.width), np.float32),
        has_x=n % 2 == 0,
        y=np.full(4, getattr(problem.target, "low", 0.0), np.float32),
        topic=np.zeros(4, np.int64),
        offset=n,
        partition=np.zeros(4, np.int64),
        incarnation=np.ones(4, np.uint64),
    )
