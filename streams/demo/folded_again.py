"""Whether the rows of a deployment are what its topics and its adoptions of theta say, each bit of them."""

from __future__ import annotations

import os
import signal
from multiprocessing import get_context
from pathlib import Path

import torch

from engine.stream.table import TaskTable
from streams.assembly.deployed import Deployment
from streams.program.outputs import silent
from streams.replay.deployed import refold
from streams.settings.tree import load_settings
from streams.stores.base import key_of
from streams.stores.memory import MemoryStore


def rows_of(deployment: Deployment) -> TaskTable:
    """Every row; the codes of airports are their own keys."""
    return deployment.store.load(deployment.layout, sorted(deployment.store.tasks()))


def differing_rows(config: Path, stored: TaskTable) -> list[str]:
    """The tasks whose row comes out as another one when the topics are folded again, each partition by itself."""
    ends: dict[int, int] = {}
    for row in stored.rows:
        partition, end = int(row["partition"][0]), int(row["position"][0])
        ends[partition] = max(end, ends.get(partition, 0))
    ignoring = (signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for us, and leaving the pool ends them
    with get_context("spawn").Pool(len(ends), signal.signal, ignoring) as pool:
        again = pool.starmap(refolded, [(config, partition, end) for partition, end in ends.items()])
    rows = {key: row for part in again for key, row in part.items()}
    made = TaskTable.decode(stored.layout, stored.ids, [rows.get(key_of(task)) for task in stored.ids])
    return [
        task
        for task, a, b in zip(stored.ids, _written_once(stored), _written_once(made), strict=True)
        if a != b
    ]


def refolded(config: Path, partition: int, end: int) -> dict[str, bytes]:
    """The rows by key, from the events of a partition alone and the versions of theta recorded for it."""
    torch.set_num_threads(1)
    deployment = Deployment(load_settings(config, os.environ))
    store = MemoryStore()
    store.record(deployment.store.adoptions())
    refold(deployment, {(0, partition): end}, store, silent(deployment.spec.problem), lambda _: None)
    return store.rows


def _written_once(table: TaskTable) -> list[bytes]:
    """Rows without what tells how often they were written: batches are cut as the events happen to come."""
    rows = table.rows.copy()
    rows["revision"], rows["checksum"] = 0, 0
    return [row.tobytes() for row in rows]
