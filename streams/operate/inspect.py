"""What is kept of one task, in words."""

from __future__ import annotations

from typing import Any

import numpy as np

from engine.stream.mixture import EXPERTS
from engine.stream.table import TaskTable
from engine.types import PREDICTORS, Outcome
from streams.assembly.state_directory import check_settings
from streams.errors import InputError
from streams.operate.rows import opened
from streams.settings.tree import Settings
from streams.stores.base import key_of


def describe_task(settings: Settings, task: str) -> dict[str, Any]:
    """Counts, losses, hedge, support set and pending observations of a task, as plain values; a run may go on.

    Raises:
        InputError: nothing was streamed into the state directory yet; none is made.

    """
    if settings.redis is None and not (settings.run.directory / "rows").is_dir():
        raise InputError(f"{settings.run.directory} holds no rows yet; `reptide run` makes them")
    if settings.redis is None:
        check_settings(settings)
    with opened(settings) as state:
        table = state.store.load(state.layout, [task])
        return _described(table if len(table) else TaskTable.empty(state.layout, [task]), task)


def _described(table: TaskTable, task: str) -> dict[str, Any]:
    row = table.rows[0]
    scored = int(row["counts"][Outcome.SCORED])
    inside = (row["support_seq"] > 0) & (row["support_dropped"] == 0)
    order = np.argsort(row["support_seq"][inside])
    waiting = row["pending_order"] > 0
    mean = (row["score_sums"] / max(scored, 1)).tolist()
    return {
        "task": task,
        "key": key_of(task),
        "known": bool(row["revision"] > 0),
        "bytes": table.layout.bytes_per_task,
        "revision": int(row["revision"]),
        "outcomes": {o.name.lower(): int(row["counts"][o]) for o in Outcome if row["counts"][o]},
        "mean_loss": dict(zip(PREDICTORS, mean, strict=True)) if scored else None,
        "labels": int(row["seq"]),
        "adapted_through": int(row["adapted_through"]),
        "theta_version": int(row["fast_version"]),
        "alarms": int(row["epoch"]),
        "loss_above_the_best": dict(zip(PREDICTORS, row["shared"][:EXPERTS].tolist(), strict=False)),
        "support": row["support_y"][inside][order].tolist(),
        "pending": int(waiting.sum()),
        "oldest_pending_s": float(row["pending_s"][waiting].min()) if waiting.any() else None,
        "latest_event_s": float(row["clock_s"]),
    }
