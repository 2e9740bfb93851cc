"""What a deployment left behind, compared with what it was sent and with an uninterrupted refold of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.fault_load import Count, Ledger
from engine.types import Outcome
from streams.deployment import Deployment
from streams.logs.base import Place
from streams.logs.kafka_outputs import Sent
from streams.logs.kafka_reader import KafkaTopicReader, Message
from streams.outputs import DEAD_LETTER, TOPICS, Outputs
from streams.refold import refold
from streams.stores.base import RecordStore
from streams.stores.memory import MemoryStore

LINES = tuple(topic for topic in TOPICS if topic != DEAD_LETTER)
NOT_PROMISED = ("revision", "checksum")
OBSERVATIONS = (Outcome.PREDICTED, Outcome.REPEATED_OBSERVATION)
LABELS = (
    Outcome.SCORED, Outcome.REPEATED_LABEL, Outcome.CORRECTED, Outcome.LATE, Outcome.ORPHAN, Outcome.EXAMPLE,
)  # fmt: skip
AT_ONCE = 1000
QUIET_S = 0.5
"""A topic has been read to its end when nothing more comes for so long: its end may be told too low."""

Figures = dict[str, int]


@dataclass(frozen=True)
class Captured:
    """The lines of an output, for comparing."""

    lines: set[bytes] = field(default_factory=set)

    def append(self, lines: Sequence[bytes], keys: Sequence[bytes] = ()) -> None:  # noqa: ARG002 - as an output
        """Keep lines."""
        self.lines.update(lines)

    def sync(self) -> None:
        """Nothing to do."""


@dataclass(frozen=True)
class Unread:
    """Dead letters of a refold, which are compared with what was sent instead."""

    def append(self, rejected: Sequence[Any]) -> None:
        """Let them go."""

    def sync(self) -> None:
        """Nothing to do."""


def folded(deployment: Deployment, tasks: Collection[str]) -> Count:
    """How many events of each kind the rows of tasks have counted."""
    ids = sorted(tasks)
    counts = deployment.store.load(deployment.engine.layout, ids).rows["counts"]
    kinds = {"observation": OBSERVATIONS, "label": LABELS}
    return Counter(
        {
            (task, kind): int(counts[u, outcomes].sum())
            for u, task in enumerate(ids)
            for kind, outcomes in kinds.items()
        }
    )


def behind(deployment: Deployment, sent: Count) -> int:
    """How many of the events sent no row has counted yet."""
    return (sent - folded(deployment, {task for task, _ in sent})).total()


def audit(deployment: Deployment, ledger: Ledger) -> Figures:
    """Every difference between what there is and what there should be; all zero where nothing is wrong."""
    log = _all(KafkaTopicReader(deployment.connection, deployment.kafka.inputs[0]))
    through = {(0, message.partition): message.offset + 1 for message in log}
    tasks = sorted({task for task, _ in ledger.events})
    counted = folded(deployment, tasks)
    again, said = uninterrupted(deployment, through)
    lost, differing, repeated = _compared(deployment, said)
    adoptions = deployment.store.adoptions()
    return {
        "events": ledger.events.total(),
        "malformed": len(ledger.malformed),
        "in_log": len(log),
        "lost": (ledger.events - counted).total(),
        "doubled": (counted - ledger.events).total(),
        "rows": len(tasks),
        "rows_differing": len(differing_rows(deployment, tasks, deployment.store, again)),
        "outputs": sum(map(len, said.values())),
        "outputs_repeated": repeated,
        "outputs_lost": lost,
        "outputs_differing": differing,
        "dead_letters_missing": len(missing_letters(deployment, ledger.malformed)),
        "adoptions": len(adoptions),
        "versions_adopted": len(set(adoptions.values())),
        "adoptions_missing": len(again.adoptions().keys() - adoptions.keys()),
    }  # fmt: skip


def uninterrupted(
    deployment: Deployment, through: Mapping[Place, int]
) -> tuple[MemoryStore, Mapping[str, set[bytes]]]:
    """The rows and lines of a process that nothing disturbs, under the adoptions that were recorded."""
    store = MemoryStore()
    for position, version in deployment.store.adoptions().items():
        store.adopt(position, version)
    lines = {topic: Captured() for topic in LINES}
    rate = deployment.settings.outer.support_rate
    refold(deployment, through, store, Outputs(lines, Unread(), deployment.spec, rate), lambda _: None)
    return store, {topic: captured.lines for topic, captured in lines.items()}


def differing_rows(
    deployment: Deployment, tasks: Sequence[str], one: RecordStore, other: RecordStore
) -> list[str]:
    """Tasks whose rows do not hold the same bits."""
    layout = deployment.engine.layout
    names = [name for name in layout.dtype.names or () if name not in NOT_PROMISED]
    rows, others = one.load(layout, tasks).rows, other.load(layout, tasks).rows
    return [
        task
        for u, task in enumerate(tasks)
        if any(rows[u][name].tobytes() != others[u][name].tobytes() for name in names)
    ]


def missing_letters(deployment: Deployment, malformed: Iterable[Sent]) -> Counter[Any]:
    """Malformed messages that are not in the dead-letter topic as they were sent."""
    there = Counter(
        (m.key, m.value, tuple((name, text) for name, text in m.headers if not name.startswith("reptide_")))
        for m in _all(deployment.reader(DEAD_LETTER))
    )
    return Counter((sent.key, sent.value, tuple(sent.headers)) for sent in malformed) - there


def _compared(deployment: Deployment, said: Mapping[str, set[bytes]]) -> tuple[int, int, int]:
    """Lines that are missing, lines that should not be there, and repeats."""
    lost = differing = repeated = 0
    for topic, expected in said.items():
        messages = _all(deployment.reader(topic))
        there = {message.value or b"" for message in messages}
        lost, differing = lost + len(expected - there), differing + len(there - expected)
        repeated += len(messages) - len(there)
    return lost, differing, repeated


def _all(reader: KafkaTopicReader) -> list[Message]:
    """Every message of a topic."""
    found: list[Message] = []
    positions, end = reader.start(), reader.end()
    messages: list[Message] = []
    while messages or any(positions[partition] < end[partition] for partition in end):
        messages, after = reader.read(positions, AT_ONCE, QUIET_S)
        positions |= after
        found += messages
    reader.close()
    return found
