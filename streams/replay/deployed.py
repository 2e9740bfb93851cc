"""The topics of a deployment folded again: to make rows anew, and to see that they are what they should be.

The adoption table says under which theta every event was folded, so the rows come out as they were, bit
for bit. (With two input topics that holds only as far as labels and observations come in the same order.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from engine.stream.fold import Engine
from streams.assembly.deployed import Deployment
from streams.errors import InputError
from streams.events.record import Offsets, Polled
from streams.logs.kafka.replay import GroupOffsets, KafkaReplay
from streams.logs.output import TOPICS
from streams.program.outputs import Outputs, silent
from streams.program.pruning import adoptions_of
from streams.program.schedule import Schedule
from streams.program.theta import ThetaCache
from streams.program.worker import Worker
from streams.replay.embedded import OneTask, check_remembered
from streams.replay.making_anew import first_offsets, making_anew, one_row_anew
from streams.stores.base import RecordStore


def refold(
    deployment: Deployment,
    through: Offsets,
    store: RecordStore,
    outputs: Outputs,
    show: Callable[[int], None],
) -> int:
    """Fold all events below `through` into a store that has the adoptions; returns how many there were.

    It is folded as workers fold it, so partitions must not have been added meanwhile.
    """
    return _folded(deployment, _replay(deployment, through), store, lambda _: outputs, show)


def rebuild_deployment(
    deployment: Deployment, show: Callable[[int], None], inexact: bool = False, by_workers: bool = False
) -> int:
    """Make all rows anew, from all that the topics hold; returns their number. No worker may run.

    It goes beyond what the group has committed, and says what workers would have said of that: a task that
    moved to another partition is in order only if all that was sent before, wherever it lies, is folded first.
    Where no task moved, workers may do it, each its partitions: then rows are only cleared, and the group set back.

    Raises:
        InputError: a worker runs, or something is gone, and the rows need not be `inexact`. Nothing was changed.

    """
    store = deployment.store
    group = GroupOffsets(deployment.connection, deployment.group, deployment.kafka.inputs)
    committed, end = group.read(), group.end()
    partitions, known = 1 + max(partition for _, partition in end), store.partitions()
    start = first_offsets(deployment, group, committed, adoptions_of(store, deployment.versions), inexact)
    if by_workers:
        _clear_for_workers(deployment, group, start, known in (0, partitions))
        return 0
    replay = _replay(deployment, end, start)
    producer = deployment.producer(*map(deployment.topic, TOPICS))
    try:
        with making_anew(deployment, group, start, "rebuild", end):
            store.clear()
            said, new = silent(deployment.spec.problem), deployment.outputs(producer, replay)
            _folded(
                deployment,
                replay,
                store,
                lambda polled: new if _beyond(polled, committed) else said,
                show,
                follows=known != partitions,
                claims=known in (0, partitions),
            )
            store.set_partitions(partitions)
        return sum(1 for _ in store.tasks())
    finally:
        replay.close()
        producer.close()
        store.close()


def rebuild_task(
    deployment: Deployment, task: str, show: Callable[[int], None], inexact: bool = False
) -> None:
    """Make the row of one task anew, as far as the group has come; no other is touched. No worker may run.

    Raises:
        InputError: a worker runs, something is gone, or there is no event of the task. Nothing was changed.

    """
    store = deployment.store
    group = GroupOffsets(deployment.connection, deployment.group, deployment.kafka.inputs)
    check_remembered(store, task)
    committed = group.read()
    if store.partitions() not in (0, 1 + max(partition for _, partition in committed)):
        raise InputError(
            "partitions were added, and all rows are to be made anew first; run `reptide rebuild`"
        )
    adoptions = adoptions_of(store, deployment.versions)
    start = first_offsets(deployment, group, committed, adoptions, inexact)
    one = OneTask(task, adoptions.kept)
    said = silent(deployment.spec.problem)
    try:
        with one_row_anew(deployment, group, {place: at for place, at in committed.items() if at}):
            _folded(deployment, _replay(deployment, committed, start), one, lambda _: said, show)
            one.put_into(store)
    finally:
        store.close()


def _clear_for_workers(deployment: Deployment, group: GroupOffsets, start: Offsets, stayed: bool) -> None:
    """Let workers fold the log from where it begins."""
    if not stayed:
        raise InputError(
            "partitions were added, so events of one task lie in two, and workers side by side would not fold them "
            "in order; run `reptide rebuild` without --by-workers"
        )
    with making_anew(deployment, group, start, "rebuild --by-workers"):
        deployment.store.clear()


def _replay(deployment: Deployment, through: Offsets, since: Offsets | None = None) -> KafkaReplay:
    return KafkaReplay(deployment.connection, deployment.kafka.inputs, deployment.envelope, through, since)


def _folded(
    deployment: Deployment,
    replay: KafkaReplay,
    store: RecordStore,
    outputs: Callable[[Sequence[Polled]], Outputs],
    show: Callable[[int], None],
    follows: bool = False,
    claims: bool = True,
) -> int:
    """Fold a log to its end, saying of each batch what `outputs` of it take.

    Where partitions were added, each task is followed from one to another, which is safe since each event is read
    once; no row claims a partition then, and the next event of its task decides.
    """
    engine = Engine(
        deployment.spec, deployment.engine.learner, deployment.settings.run.device, follows=follows
    )
    worker = Worker(
        engine,
        replay,
        store,
        ThetaCache(engine, deployment.versions),
        silent(deployment.spec.problem),
        deployment.settings.run.batch,
        Schedule(deployment.settings.outer.every),
        claims=claims,
        keyed=deployment.kafka.keys == "task",
        forgets_for_s=deployment.forgets_for_s,
    )
    events = 0
    try:
        while polled := replay.poll(worker.batch):
            events += replace(worker, outputs=outputs(polled)).take(polled).events
            show(events)
    finally:
        replay.close()
    return events


def _beyond(polled: Sequence[Polled], committed: Offsets) -> bool:
    """Whether any of these events may never have been spoken of; the others' outputs are only repeated."""
    return any(offset > committed[place] for part in polled for place, offset in part.after().items())
