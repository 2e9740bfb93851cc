"""Labels of a sample: which observation each belongs to, how late they come, and whom they can help."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import ceil, floor, log10
from typing import NamedTuple

import numpy as np
import polars as pl

from engine.stream.spec import Memory
from engine.types import Bool, Float64, Int64
from streams.checking.sample import Sample

FEW = 0.01
"""Labels lost below this share are not worth a warning."""

MOST_PENDING = 4096


@dataclass(frozen=True)
class Labels:
    """The M labels of a sample that met an observation made before, and its N observations."""

    event: Int64
    """[M] index of the label among the events."""
    observation: Int64
    """[M] index of its observation among the observations."""
    delay_s: Float64
    """[M]"""
    orphans: int
    """Labels without an observation before them, but for those whose observation was refused."""
    of_refused: int
    """Labels whose observation was refused."""
    repeated: int
    """Observations whose id their task had before."""
    a_task: Int64
    """[tasks] labels of each task."""
    helped: float
    """Share of observations made when their task had a label already; 0 where there is none."""

    def of_observations(self, sample: Sample) -> Float64:
        """[N] the label of each observation, NaN where none came."""
        y = np.full(int((sample.labels == 0).sum()), np.nan)
        y[self.observation] = sample.y[self.event]
        return y


class Lost(NamedTuple):
    """Labels that would find their observation given up on."""

    late: int
    """Because it waited longer than `ttl_s`."""
    pushed_out: int
    """Because more than `pending` observations of the task waited."""


def labels_of(sample: Sample) -> Labels:
    """Match labels and observations by task and id; a second label of one observation counts no more."""
    event = np.arange(len(sample.task))
    frame = pl.DataFrame({"task": sample.task, "id": sample.id, "event": event, "label": sample.labels})
    key = ["task", "id"]
    observed = frame.filter(pl.col("label") == 0).with_row_index("observation").unique(key, keep="first")
    told = frame.filter(pl.col("label") == 1).join(observed, on=key, how="left", suffix="_seen")
    sound = told.filter(pl.col("event_seen") < pl.col("event")).sort("event").unique(key, keep="first")
    sound = sound.sort("event")
    at = sound["event"].to_numpy().astype(np.int64)
    seen = sound["event_seen"].to_numpy().astype(np.int64)
    lost = told.filter(~(pl.col("event_seen") < pl.col("event")).fill_null(value=False))
    of_refused = sum(pair in sample.unseen for pair in lost.select(key).iter_rows())
    return Labels(
        event=at,
        observation=sound["observation"].to_numpy().astype(np.int64),
        delay_s=sample.time_s[at] - sample.time_s[seen],
        orphans=lost.height - of_refused,
        of_refused=of_refused,
        repeated=int((sample.labels == 0).sum()) - observed.height,
        a_task=np.bincount(sample.task[at], minlength=sample.tasks),
        helped=_helped(sample, at),
    )


def _helped(sample: Sample, label_events: Int64) -> float:
    first = np.full(sample.tasks, len(sample.task))
    np.minimum.at(first, sample.task[label_events], label_events)
    observed = np.flatnonzero(sample.labels == 0)
    return float((first[sample.task[observed]] < observed).mean()) if len(observed) else 0.0


def lost(sample: Sample, labels: Labels, memory: Memory) -> Lost:
    """What a task's memory would lose, by keeping for every task the ids that it would keep."""
    counted = np.zeros(len(sample.task), np.bool_)
    counted[labels.event] = True
    late = pushed_out = 0
    delay_s = iter(labels.delay_s.tolist())
    waiting: list[dict[int, float]] = [{} for _ in range(sample.tasks)]
    for task, identity, time_s, is_label, is_counted in _events(sample, counted):
        mine = waiting[task]
        while mine and next(iter(mine.values())) + memory.ttl_s < time_s:
            del mine[next(iter(mine))]
        if not is_label:
            if len(mine) >= memory.pending and identity not in mine:
                del mine[next(iter(mine))]
            mine.setdefault(identity, time_s)
        elif is_counted:
            is_late = next(delay_s) > memory.ttl_s
            if mine.pop(identity, None) is None:
                late, pushed_out = late + is_late, pushed_out + (not is_late)
    return Lost(late, pushed_out)


def _events(sample: Sample, counted: Bool) -> Iterator[tuple[int, int, float, int, bool]]:
    columns = (sample.task, sample.id, sample.time_s, sample.labels, counted)
    return zip(*(column.tolist() for column in columns), strict=True)


def patient(memory: Memory, labels: Labels) -> float:
    """A `ttl_s` that the slowest label keeps, rounded up to two digits."""
    longest = max(float(labels.delay_s.max(initial=0.0)), memory.ttl_s)
    unit = 10.0 ** (floor(log10(longest)) - 1)
    return float(f"{ceil(longest / unit) * unit:.6g}")


def roomy(sample: Sample, labels: Labels, memory: Memory) -> int:
    """A `pending` for which few labels are pushed out: the first doubling of today's."""
    room = memory.pending
    enough = FEW * max(len(labels.event), 1)
    while room < MOST_PENDING and lost(sample, labels, replace(memory, pending=room)).pushed_out >= enough:
        room *= 2
    return room
