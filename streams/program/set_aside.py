"""Sound events that must not be folded all the same: they become dead letters, and their partition moves on.

    wrong_partition   the event is not where the events of its task are
    damaged_row       the stored row of its task must not be used

And messages without a value, which are none of theirs where they forget the task that their key names.

Where an input has several partitions, an event is its task's own only if its key is the task's id: the key alone
decides the partition, so whatever has another key, or none, lies where it lies by chance. That can be told of each
event by itself, so the same events are refused live and in a rebuild, whichever of them comes first. Own events of
one task that lie in two partitions all the same come from producers that partition differently: its row belongs to
the partition of the first. Where keys are something else by design (`kafka.keys`), that is all that can be told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import orjson

from engine.stream.events import EventBatch
from engine.stream.table import TaskTable
from engine.types import Bool, Int64
from streams.events.columns import taken
from streams.events.decoding import Decoded
from streams.events.reading import NO_VALUE, Rejected, readable_task
from streams.events.record import NULL_VALUE, Polled

WRONG_PARTITION, DAMAGED_ROW = "wrong_partition", "damaged_row"

FOREIGN_KEY = (
    "its key is not the task's id, by which alone all events of a task come to lie in one partition; "
    "send it with the task as its key, as `reptide redrive` does; or, where other keys keep the events of a task "
    'together, set kafka.keys = "other"'
)


class Forgets(NamedTuple):
    """A batch without the messages that have no value, and the tasks that those forget."""

    kept: Decoded
    tasks: set[str]


class Parted(NamedTuple):
    """The events of a batch that may go on, and those that may not."""

    kept: Decoded
    aside: list[Rejected]


def cut_at_forgetting(polled: Polled) -> Iterator[Polled]:
    """The records of one partition, cut so that none comes after the forgetting of its own task."""
    forgotten, start = set[str](), 0
    for n, record in enumerate(polled.records):
        null = record.fault == NULL_VALUE
        if not null and not forgotten:
            continue
        task = readable_task(record)
        if null and task is not None:
            forgotten.add(task)
        elif task in forgotten:
            yield polled._replace(records=polled.records[start:n])
            forgotten, start = set(), n
    yield polled._replace(records=polled.records[start:])


def to_forget(decoded: Decoded) -> Forgets:
    """Part from a batch the messages without a value whose key names a task."""
    named = {n: readable_task(r.record) for n, r in enumerate(decoded.rejected) if r.reason == NO_VALUE}
    tasks = {n: task for n, task in named.items() if task is not None}
    kept = [refused for n, refused in enumerate(decoded.rejected) if n not in tasks]
    return Forgets(decoded._replace(rejected=kept), set(tasks.values()))


def strangers(decoded: Decoded, partitions: int) -> Parted:
    """Part from a batch what is not its task's own, where the input has more than one partition."""
    if partitions < 2:
        return Parted(decoded, [])
    ids = [task.encode() for task in decoded.tasks]
    rows = decoded.events.row.tolist()
    own = [_names(record.key, ids[row]) for record, row in zip(decoded.records, rows, strict=True)]
    return _parted(decoded, np.array(own, np.bool_), WRONG_PARTITION, lambda _: FOREIGN_KEY)


def strays(decoded: Decoded, states: TaskTable) -> Parted:
    """Part from a batch the events of another partition than that of their rows [U]."""
    home = _homes(decoded.events, states)[decoded.events.row, decoded.events.topic]
    return _parted(
        decoded,
        home == decoded.events.partition,
        WRONG_PARTITION,
        lambda n: (
            f"its task's other events come from partition {home[n]}: producers partition differently; "
            "have all of them use murmur2 on the task's id"
        ),
    )


def unreadable(decoded: Decoded, reasons: Mapping[str, str]) -> Parted:
    """Part from a batch the events of tasks whose rows must not be used, for these reasons."""
    sound = np.array([task not in reasons for task in decoded.tasks], np.bool_)
    rows = decoded.events.row
    return _parted(decoded, sound[rows], DAMAGED_ROW, lambda n: reasons[decoded.tasks[rows[n]]])


def only(decoded: Decoded, kept: Bool) -> Decoded:
    """Some of the events [N], and the tasks that these are of."""
    if kept.all():
        return decoded
    index = np.flatnonzero(kept)
    tasks, row = np.unique(decoded.events.row[index], return_inverse=True)
    columns: dict[str, Any] = {
        name: value[index] for name, value in vars(decoded.events).items() if isinstance(value, np.ndarray)
    }
    return Decoded(
        tuple(decoded.tasks[u] for u in tasks.tolist()),
        replace(decoded.events, **(columns | {"row": row})),
        taken(decoded.records, index),
        (),
    )


def _parted(decoded: Decoded, sound: Bool, reason: str, detail: Callable[[int], str]) -> Parted:
    index = np.flatnonzero(~sound)
    unsound = zip(taken(decoded.records, index), index.tolist(), strict=True)
    aside = [Rejected(record, reason, detail(n)) for record, n in unsound]
    return Parted(only(decoded, sound), aside)


def _homes(events: EventBatch, states: TaskTable) -> Int64:
    """[U, T] the partition of each row: the one that it was folded from, else that of the first event here.

    A row of another incarnation has none: the engine refuses its events.
    """
    home: Int64 = states.rows["partition"].copy()
    at = events.row, events.topic
    free = (states.rows["position"][at] == 0) | (states.rows["incarnation"][at] != events.incarnation)
    index = np.flatnonzero(free)[::-1]  # the first event of a row is written last, and stays
    home[events.row[index], events.topic[index]] = events.partition[index]
    return home


def _names(key: bytes | None, task: bytes) -> bool:
    """Whether a key is the id of a task, as text or as JSON."""
    return key == task or (key is not None and key[:1] == b'"' and key == orjson.dumps(task.decode()))
