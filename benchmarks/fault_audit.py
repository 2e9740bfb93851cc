"""What a deployment left behind, compared with what it was sent and with an uninterrupted refold of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.fault_load import TASKS, Count, Ledger
from engine.types import Outcome
from streams.assembly.deployed import Deployment
from streams.events.envelope import Headers
from streams.events.record import Place
from streams.logs.kafka.outputs import Sent
from streams.logs.kafka.reader import KafkaTopicReader, Message
from streams.logs.output import DEAD_LETTER, TOPICS
from streams.program.outputs import Outputs
from streams.replay.deployed import refold
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

Letter = tuple[Any, ...]
"""Key, value and headers as they came, and the reason."""


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


def unlearned(deployment: Deployment) -> int:
    """How many of the labels that tasks learned from the newest version of theta was not trained on."""
    return _labels(deployment) - learned(deployment)


def learned(deployment: Deployment) -> int:
    """How many labels the newest version of theta was trained on, each counted as often as it was new."""
    version = deployment.versions.current()
    if not version:
        return 0
    newest = deployment.versions.load(version)
    begun: int = newest.numbers.get("begun", {"labels": 0})["labels"]
    return int(newest.trainer["statistics.count"][-1]) + begun


def _labels(deployment: Deployment) -> int:
    """How many labels all tasks together have learned from."""
    ids = sorted(TASKS)
    return int(deployment.store.load(deployment.engine.layout, ids).rows["labels"].sum())


def audit(deployment: Deployment, ledger: Ledger) -> Figures:
    """Every difference between what there is and what there should be; all zero where nothing is wrong."""
    log = messages_of(KafkaTopicReader(deployment.connection, deployment.kafka.inputs[0]))
    through = {(0, message.partition): message.offset + 1 for message in log}
    tasks = sorted({task for task, _ in ledger.events})
    counted = folded(deployment, tasks)
    again, said = uninterrupted(deployment, through)
    adoptions = deployment.store.adoptions()
    trained = learned(deployment)
    return {
        "events": ledger.events.total(),
        "in_log": len(log),
        "lost": (ledger.events - counted).total(),
        "doubled": (counted - ledger.events).total(),
        "rows": len(tasks),
        "rows_differing": len(differing_rows(deployment, tasks, deployment.store, again)),
        **_outputs(deployment, said, ledger.forged),
        **_letters(deployment, ledger.refused),
        "forged_episodes": len(ledger.forged),
        "labels_unlearned": max(0, len(said["episodes"]) - trained),
        "labels_learned_twice": max(0, trained - len(said["episodes"])),
        "adoptions": len(adoptions),
        "versions_adopted": len(set(adoptions.values())),
        "adoptions_missing": len(again.adoptions().keys() - adoptions.keys()),
    }


def uninterrupted(
    deployment: Deployment, through: Mapping[Place, int]
) -> tuple[MemoryStore, Mapping[str, set[bytes]]]:
    """The rows and lines of a process that nothing disturbs, under the adoptions that were recorded."""
    store = MemoryStore()
    store.record(deployment.store.adoptions())
    lines = {topic: Captured() for topic in LINES}
    rate = deployment.settings.outer.support_rate
    refold(
        deployment, through, store, Outputs(lines, Unread(), deployment.spec.problem, rate), lambda _: None
    )
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


def _letters(deployment: Deployment, refused: Iterable[tuple[Sent, str]]) -> Figures:
    """Messages that are not dead letters as they were sent, or for another reason; and dead letters of others."""
    expected = Counter((m.key, m.value, tuple(m.headers), reason) for m, reason in refused)
    there = Counter(
        (m.key, m.value, *_headers_and_reason(m.headers)) for m in messages_of(deployment.reader(DEAD_LETTER))
    )
    missing = (_whatever_reason(expected) - _whatever_reason(there)).total()
    by_reason = Counter(reason for *_, reason in expected.elements())
    return {
        "refused": expected.total(),
        **{f"refused.{reason}": number for reason, number in sorted(by_reason.items())},
        "dead_letters_missing": missing,
        "dead_letters_for_another_reason": (expected - there).total() - missing,
        "dead_letters_unexpected": len(_whatever_reason(there).keys() - _whatever_reason(expected).keys()),
    }


def _whatever_reason(letters: Counter[Letter]) -> Counter[Letter]:
    return Counter(letter[:-1] for letter in letters.elements())


def _headers_and_reason(headers: Headers) -> tuple[tuple[tuple[str, bytes], ...], str]:
    """The headers that a dead letter came with, and why it was refused."""
    ours = {name: text.decode() for name, text in headers if name.startswith("reptide_")}
    return tuple((name, text) for name, text in headers if name not in ours), ours["reptide_reason"]


def _outputs(deployment: Deployment, said: Mapping[str, set[bytes]], forged: Iterable[Sent]) -> Figures:
    """Lines that are missing, lines that should not be there, and repeats."""
    others = {sent.value or b"" for sent in forged}
    lost = differing = repeated = 0
    for topic, expected in said.items():
        lines = [message.value or b"" for message in messages_of(deployment.reader(topic))]
        ours = [line for line in lines if topic != "episodes" or line not in others]
        there = set(ours)
        lost, differing = lost + len(expected - there), differing + len(there - expected)
        repeated += len(ours) - len(there)
    return {
        "outputs": sum(map(len, said.values())),
        "outputs_repeated": repeated,
        "outputs_lost": lost,
        "outputs_differing": differing,
    }


def messages_of(reader: KafkaTopicReader) -> list[Message]:
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
