"""What a worker says: predictions, scores, drifts, episodes and dead letters, one JSON object a line.

Every line is a function of the events and the rows alone, so a line that is produced again after a crash
is the same line, recognised by its task and id.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, NamedTuple, Protocol

import numpy as np
import orjson

from engine.fold import Folded
from engine.spec import Classification, TaskSpec
from engine.types import Episode, EventBatch, Kind, Outcome
from streams.logs.base import Record
from streams.logs.output import OutputWriter
from streams.wire import Rejected

DEAD_LETTER = "dead-letter"
TOPICS = ("predictions", "scores", "drifts", "episodes", DEAD_LETTER)
PREDICTORS = ("theta", "adapted", "served")
NAMES = tuple(outcome.name.lower() for outcome in Outcome)

# Plain numbers: comparing with a member of an enumeration costs more than everything else about a line.
PREDICTED, SCORED, DUPLICATE = int(Outcome.PREDICTED), int(Outcome.SCORED), int(Outcome.DUPLICATE)
LABEL = int(Kind.LABEL)

ALARM_FIELDS = ("task", "id", "partition", "offset", "time", "seen")

DIGITS = 6
"""Probabilities and losses are written to this many decimals."""


class DeadLetters(Protocol):
    """Where events go that had to be refused: with their origin, the reason, and their bytes as they came."""

    def append(self, rejected: Sequence[Rejected]) -> None:
        """Add dead letters."""
        ...

    def sync(self) -> None:
        """Keep what was appended over a crash of the machine."""
        ...


@dataclass(frozen=True)
class DeadLetterLines:
    """Dead letters as JSON lines."""

    log: OutputWriter
    origin: Callable[[Record], str]

    def append(self, rejected: Sequence[Rejected]) -> None:
        """Add dead letters."""
        if rejected:
            self.log.append([_dead_letter(one, self.origin(one.record)) for one in rejected])

    def sync(self) -> None:
        """Keep what was appended over a crash of the machine."""
        self.log.sync()


@dataclass(frozen=True)
class Outputs:
    """The output topics of one worker."""

    logs: Mapping[str, OutputWriter]
    dead_letters: DeadLetters
    spec: TaskSpec
    support_rate: float
    """Share of episodes whose support set is kept; the others train theta to be good unadapted."""
    durable: bool = True

    def produce(
        self, events: EventBatch, records: Sequence[Record], tasks: Sequence[str], folded: Folded
    ) -> None:
        """Append the outcomes of one fold; `records` [N] and `tasks` [U] belong to its events and rows."""
        said = _outcome_lines(self.spec, events, records, tasks, folded)
        said["episodes"] = [
            (episode.row, _episode_line(episode, tasks[episode.row], events, self.support_rate))
            for episode in folded.episodes
        ]
        keys = [task.encode() for task in tasks]
        for topic, lines in said.items():
            if lines:
                self.logs[topic].append([line for _, line in lines], [keys[row] for row, _ in lines])

    def sync(self) -> None:
        """Keep everything appended over a crash of the machine."""
        if self.durable:
            for log in self.logs.values():
                log.sync()
            self.dead_letters.sync()


class FoundEpisode(NamedTuple):
    """An episode as it lies in the `episodes` output."""

    task: str
    partition: int
    offset: int
    """Of the label that ended it."""
    episode: Episode


def read_episode(line: bytes) -> FoundEpisode:
    """Read a line of the `episodes` output."""
    said = orjson.loads(line)
    support, query = said["support"], said["query"]
    width = len(query["x"][0])
    episode = Episode(
        row=-1,
        labels=said["labels"],
        event=-1,
        support_x=np.array(support["x"], np.float32).reshape(-1, width),
        support_y=np.array(support["y"], np.float32),
        support_weight=np.array(support["weight"], np.float32),
        query_x=np.array(query["x"], np.float32),
        query_y=np.array(query["y"], np.float32),
    )
    return FoundEpisode(said["task"], said["partition"], said["offset"], episode)


def kept(task: str, labels: int, rate: float) -> bool:
    """Whether an episode falls in the sampled share; the same at every repeat."""
    digest = blake2b(f"{task}\0{labels}".encode("utf-8", "surrogatepass"), digest_size=4).digest()
    return int.from_bytes(digest, "little") < rate * 2**32


def _outcome_lines(
    spec: TaskSpec, events: EventBatch, records: Sequence[Record], tasks: Sequence[str], folded: Folded
) -> dict[str, list[tuple[int, bytes]]]:
    """One line for each event that was folded now, in log order, and one for each alarm; with its row."""
    lines: dict[str, list[tuple[int, bytes]]] = {"predictions": [], "scores": [], "drifts": []}
    classes = spec.target.classes if isinstance(spec.target, Classification) else None
    named = None if classes is None else len(classes)
    for fact in map(_Fact._make, _columns(events, records, folded, named)):
        if fact.code == DUPLICATE:
            continue
        said = {
            "task": tasks[fact.row], "id": fact.record.id, "partition": fact.record.partition,
            "offset": fact.offset, "time": fact.time, "outcome": NAMES[fact.code],
        }  # fmt: skip
        if fact.kind == LABEL:
            said["label"] = fact.y if classes is None else classes[int(fact.y)]
        if fact.code == PREDICTED or fact.code == SCORED:
            said["version"] = fact.version
            said["theta"], said["adapted"], said["served"] = fact.prediction
        if fact.code == SCORED:
            theta, adapted, served = fact.loss
            said["seen"], said["waited_s"], said["alarm"] = fact.seen, fact.waited_s, fact.alarm
            said["loss"] = {"theta": theta, "adapted": adapted, "served": served}
        if fact.expired:
            said["expired"] = fact.expired
        lines["scores" if fact.kind == LABEL else "predictions"].append((fact.row, orjson.dumps(said)))
        if fact.alarm:
            lines["drifts"].append((fact.row, orjson.dumps({key: said[key] for key in ALARM_FIELDS})))
    return lines


class _Fact(NamedTuple):
    """What became of one event, as plain numbers."""

    code: int
    kind: int
    row: int
    offset: int
    time: float
    y: float
    prediction: list[list[float]]
    loss: list[float]
    version: int
    seen: int
    waited_s: float
    alarm: bool
    expired: int
    record: Record


def _columns(
    events: EventBatch, records: Sequence[Record], folded: Folded, named: int | None
) -> Iterator[tuple[Any, ...]]:
    """One fact an event; of predictions the classes that are named, and not the room for more."""
    out = folded.outcomes
    columns = (
        out.code, events.kind, events.row, events.offset, events.time_s, events.y,
        out.prediction[..., :named].astype(np.float64).round(DIGITS), out.loss.round(DIGITS),
        out.version, out.seen, out.waited_s, out.alarm, out.expired,
    )  # fmt: skip
    return zip(*(column.tolist() for column in columns), records, strict=True)


def _episode_line(episode: Episode, task: str, events: EventBatch, rate: float) -> bytes:
    keep = slice(None) if kept(task, episode.labels, rate) else slice(0)
    said = {
        "task": task,
        "labels": episode.labels,
        "partition": int(events.partition[episode.event]),
        "offset": int(events.offset[episode.event]),
        "support": {
            "x": np.ascontiguousarray(episode.support_x[keep]),
            "y": np.ascontiguousarray(episode.support_y[keep]),
            "weight": np.ascontiguousarray(episode.support_weight[keep]),
        },
        "query": {"x": np.ascontiguousarray(episode.query_x), "y": np.ascontiguousarray(episode.query_y)},
    }
    return orjson.dumps(said, option=orjson.OPT_SERIALIZE_NUMPY)


def _dead_letter(rejected: Rejected, origin: str) -> bytes:
    """The bytes are written in hexadecimal, since what is refused need not be text."""
    record = rejected.record
    said: dict[str, Any] = {"origin": origin, "offset": record.offset, "reason": rejected.reason}
    said["detail"] = rejected.detail
    if record.raw is not None:
        said["bytes_hex"] = record.raw.hex()
    else:
        said["record"] = {
            "task": record.task, "id": record.id, "time": record.time, "label": record.label,
            "fields": None if record.fields is None else dict(record.fields),
        }  # fmt: skip
    return orjson.dumps(said, default=str, option=orjson.OPT_NON_STR_KEYS)
