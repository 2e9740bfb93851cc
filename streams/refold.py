"""The topics of a deployment folded again: to make rows anew, and to see that they are what they should be.

The adoption table says under which theta every event was folded, so the rows come out as they were, bit
for bit. (With two input topics that holds only as far as labels and observations come in the same order.)
"""

from __future__ import annotations

from collections.abc import Callable

from engine.fold import Engine
from streams.deployment import Deployment
from streams.logs.base import Offsets
from streams.logs.kafka_replay import GroupOffsets, KafkaReplay
from streams.logs.output import Silence
from streams.outputs import TOPICS, DeadLetterLines, Outputs
from streams.stores.base import RecordStore
from streams.theta import ThetaCache
from streams.worker import Worker


def refold(
    deployment: Deployment,
    through: Offsets,
    store: RecordStore,
    outputs: Outputs,
    show: Callable[[int], None],
) -> int:
    """Fold all events below `through` into a store that has the adoptions; returns how many there were.

    A task may move from one partition to another, as it does where partitions were added: each event is
    read once, so nothing is taken for a repeat.
    """
    replay = KafkaReplay(deployment.connection, deployment.kafka.inputs, deployment.envelope, through)
    engine = Engine(deployment.spec, deployment.engine.learner, deployment.settings.run.device, follows=True)
    worker = Worker(
        engine,
        replay,
        store,
        ThetaCache(engine, deployment.versions),
        outputs,
        deployment.settings.run.batch,
        deployment.settings.outer.every,
    )
    events = 0
    try:
        while polled := replay.poll(worker.batch):
            for part in polled:  # one at a time: a batch must not hold a task in two partitions
                events += worker.take([part]).events
            show(events)
    finally:
        replay.close()
    return events


def silent(deployment: Deployment) -> Outputs:
    """Outputs of what was said before."""
    letters = DeadLetterLines(Silence(), str)
    return Outputs(dict.fromkeys(TOPICS, Silence()), letters, deployment.spec, support_rate=1.0)


def rebuild_deployment(deployment: Deployment, show: Callable[[int], None]) -> int:
    """Make all rows anew, as far as the group has committed; returns their number. No worker may run.

    Raises:
        InputError: a worker runs, or the topics no longer hold all events.

    """
    group = GroupOffsets(deployment.connection, deployment.group, deployment.kafka.inputs)
    through = group.read()
    KafkaReplay(deployment.connection, deployment.kafka.inputs, deployment.envelope, through).close()
    group.write(
        dict.fromkeys(through, 0)
    )  # first: a crash from here on leaves no offset above what the rows hold
    deployment.store.clear()
    refold(deployment, through, deployment.store, silent(deployment), show)
    group.write(through)
    return sum(1 for _ in deployment.store.tasks())
