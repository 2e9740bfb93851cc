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

from engine.problem import Problem
from engine.stream.events import EventBatch
from engine.stream.in_progress import Folded
from engine.targets import Classification
from engine.types import PREDICTORS, SERVED, Float64, Kind, Outcome
from streams.events.learned_labels import UNSCORED, LearnedLabel, line_of
from streams.events.reading import Rejected, readable_task
from streams.events.record import Record, SourcePosition, incarnation_text
from streams.logs.output import TOPICS, OutputWriter, Silence

NAMES = tuple(outcome.name.lower() for outcome in Outcome)

# Plain numbers: comparing with a member of an enumeration costs more than everything else about a line.
PREDICTED, SCORED, DUPLICATE = int(Outcome.PREDICTED), int(Outcome.SCORED), int(Outcome.DUPLICATE)
LABEL = int(Kind.LABEL)

ALARM_FIELDS = ("task", "id", "incarnation", "partition", "offset", "time", "seen")

DIGITS = 6
"""Predictions and losses are written to this many decimals, and below .1 to this many significant digits."""


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
    problem: Problem
    support_rate: float
    """Share of episodes that are kept for the outer rule; every label trains theta to be good unadapted."""
    durable: bool = True

    def produce(
        self, events: EventBatch, records: Sequence[Record], tasks: Sequence[str], folded: Folded
    ) -> None:
        """Append the outcomes of one fold; `records` [N] and `tasks` [U] belong to its events and rows."""
        said = _outcome_lines(self.problem, events, records, tasks, folded)
        said["episodes"] = [
            (row, line_of(label)) for row, label in learned_labels(events, tasks, folded, self.support_rate)
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


def silent(problem: Problem) -> Outputs:
    """Outputs that keep nothing: for what is folded again, and was said before."""
    return Outputs(dict.fromkeys(TOPICS, Silence()), DeadLetterLines(Silence(), str), problem, 1.0)


def kept(task: str, labels: int, rate: float) -> bool:
    """Whether an episode falls in the sampled share; the same at every repeat."""
    digest = blake2b(f"{task}\0{labels}".encode("utf-8", "surrogatepass"), digest_size=4).digest()
    return int.from_bytes(digest, "little") < rate * 2**32


def _outcome_lines(
    problem: Problem, events: EventBatch, records: Sequence[Record], tasks: Sequence[str], folded: Folded
) -> dict[str, list[tuple[int, bytes]]]:
    """One line for each event that was folded now, in log order, and one for each alarm; with its row."""
    lines: dict[str, list[tuple[int, bytes]]] = {"predictions": [], "scores": [], "drifts": []}
    classes = problem.target.classes if isinstance(problem.target, Classification) else None
    named = None if classes is None else len(classes)
    for fact in map(_Fact._make, _columns(events, records, folded, named)):
        if fact.code == DUPLICATE:
            continue
        said = {
            "task": tasks[fact.row], "id": fact.record.id, "incarnation": incarnation_text(fact.incarnation),
            "partition": fact.record.partition, "offset": fact.offset, "time": fact.time, "outcome": NAMES[fact.code],
        }  # fmt: skip
        if fact.kind == LABEL:
            said["label"] = fact.y if classes is None else classes[int(fact.y)]
        if fact.code == PREDICTED or fact.code == SCORED:
            said["version"] = fact.version
            said.update(zip(PREDICTORS, fact.prediction, strict=True))
        if fact.code == SCORED:
            said["seen"], said["waited_s"], said["alarm"] = fact.seen, fact.waited_s, fact.alarm
            said["loss"] = dict(zip(PREDICTORS, fact.loss, strict=True))
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
    incarnation: int
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
        out.code, events.kind, events.row, events.incarnation, events.offset, events.time_s, events.y,
        rounded(out.prediction[..., :named].astype(np.float64)), rounded(out.loss),
        out.version, out.seen, out.waited_s, out.alarm, out.expired,
    )  # fmt: skip
    return zip(*(column.tolist() for column in columns), records, strict=True)


def rounded(values: Float64) -> Float64:
    """Numbers as they are written.

    >>> rounded(np.array([12.3456789, 1.23456789e-9, 0.0])).tolist()
    [12.345679, 1.23457e-09, 0.0]
    """
    with np.errstate(divide="ignore"):
        zeros = -1 - np.floor(np.log10(np.abs(values)))
    scale = 10.0 ** (DIGITS + np.clip(np.nan_to_num(zeros, posinf=0.0, nan=0.0), 0, 200))
    near: Float64 = np.round(values * scale) / scale
    return near


def learned_labels(
    events: EventBatch, tasks: Sequence[str], folded: Folded, rate: float
) -> Iterator[tuple[int, LearnedLabel]]:
    """Each label that was learned from, with the episode that it ended if that is kept; and its row."""
    out = folded.outcomes
    if not out.learned.any():
        return
    ended = {episode.event: episode for episode in folded.episodes if len(episode.support_y)}
    index = np.flatnonzero(out.learned)
    losses: Float64 = out.loss[index].copy()
    losses[:, SERVED] = out.shared_loss[index]  # the fifth that a lane mixes
    scored = np.isfinite(losses.sum(axis=1))
    losses = np.where(scored[:, None], rounded(losses), UNSCORED)
    columns = zip(
        index.tolist(), events.row[index].tolist(), events.incarnation[index].tolist(),
        events.partition[index].tolist(), events.offset[index].tolist(),
        out.learned[index].tolist(), out.learned_x[index], events.y[index].tolist(), losses, strict=True,
    )  # fmt: skip
    for n, row, incarnation, partition, offset, labels, x, y, lost in columns:
        task, source, episode = tasks[row], SourcePosition(incarnation, partition, offset), ended.get(n)
        kept_episode = episode if episode is not None and kept(task, labels, rate) else None
        yield row, LearnedLabel(task, source, labels, x, y, lost, kept_episode)


def _dead_letter(rejected: Rejected, origin: str) -> bytes:
    """With its task, where that is known; bytes in hexadecimal, since what is refused need not be text."""
    record = rejected.record
    said: dict[str, Any] = {"task": readable_task(record), "origin": origin, "offset": record.offset}
    said["reason"], said["detail"] = rejected.reason, rejected.detail
    if record.raw is not None:
        said["bytes_hex"] = record.raw.hex()
    else:
        said["record"] = {
            "task": record.task, "id": record.id, "time": record.time, "label": record.label,
            "fields": None if record.fields is None else dict(record.fields),
        }  # fmt: skip
    return orjson.dumps(said, default=str, option=orjson.OPT_NON_STR_KEYS)
