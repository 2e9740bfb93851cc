"""What a worker says: predictions, scores, drifts, episodes and dead letters, one JSON object a line.

Every line is a function of the events and the rows alone, so a line that is produced again after a crash
is the same line, recognised by its task and id.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any, Protocol

import numpy as np
import orjson

from engine.problem import Problem
from engine.stream.events import EventBatch
from engine.stream.in_progress import Folded
from engine.types import SERVED, Episode, Float64
from streams.events.column_text import writable
from streams.events.columns import ids_of
from streams.events.label_lines import LabelColumns, lines_of
from streams.events.learned_labels import UNSCORED
from streams.events.reading import Rejected, readable_task
from streams.events.record import Record
from streams.logs.output import OutputWriter
from streams.program.outcome_lines import Lines, outcome_lines, rounded


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


class SaidBefore:
    """Dead letters that are there already."""

    def append(self, rejected: Sequence[Rejected]) -> None:
        """Keep nothing."""

    def sync(self) -> None:
        """Nothing to keep."""


@dataclass(frozen=True)
class Outputs:
    """The output topics of one worker."""

    logs: Mapping[str, OutputWriter]
    """All of `TOPICS`, or `episodes` alone, or none."""
    dead_letters: DeadLetters
    problem: Problem
    support_rate: float
    """Share of episodes that are kept for the outer rule; every label trains theta to be good unadapted."""
    durable: bool = True

    def produce(
        self, events: EventBatch, records: Sequence[Record], tasks: Sequence[str], folded: Folded
    ) -> None:
        """Append the outcomes of one fold; `records` [N] and `tasks` [U] belong to its events and rows."""
        said: dict[str, Lines] = {}
        if "predictions" in self.logs:
            said = outcome_lines(self.problem, events, ids_of(records), tasks, folded.outcomes)
        if "episodes" in self.logs and folded.outcomes.learned.any():
            labels = learned_labels(events, tasks, folded, self.support_rate)
            said["episodes"] = Lines(labels.row, lines_of(labels))
        keys = [task.encode() for task in tasks]
        for topic, (rows, lines) in said.items():
            if lines:
                self.logs[topic].append(lines, [keys[row] for row in rows.tolist()])

    def sync(self) -> None:
        """Keep everything appended over a crash of the machine."""
        if self.durable:
            for log in self.logs.values():
                log.sync()
            self.dead_letters.sync()


def silent(problem: Problem) -> Outputs:
    """Outputs that keep nothing: for what is folded again, and was said before."""
    return Outputs({}, SaidBefore(), problem, 1.0)


def kept(task: str, labels: int, rate: float) -> bool:
    """Whether an episode falls in the sampled share; the same at every repeat."""
    digest = blake2b(f"{task}\0{labels}".encode("utf-8", "surrogatepass"), digest_size=4).digest()
    return int.from_bytes(digest, "little") < rate * 2**32


def learned_labels(events: EventBatch, tasks: Sequence[str], folded: Folded, rate: float) -> LabelColumns:
    """Each label that was learned from, with the episode that it ended if that is kept."""
    out = folded.outcomes
    index = np.flatnonzero(out.learned)
    losses: Float64 = out.loss[index]
    losses[:, SERVED] = out.shared_loss[index]  # the fifth that a lane mixes
    scored = np.isfinite(losses.sum(axis=1))
    return LabelColumns(
        tasks=tasks,
        row=events.row[index],
        incarnation=events.incarnation[index],
        partition=events.partition[index],
        offset=events.offset[index],
        labels=out.learned[index],
        x=out.learned_x[index],
        y=events.y[index].astype(np.float64),
        losses=np.where(scored[:, None], rounded(losses), UNSCORED),
        episodes={
            int(np.searchsorted(index, episode.event)): _apart(episode)
            for episode in folded.episodes
            if out.learned[episode.event]
            and len(episode.support_y)
            and kept(tasks[episode.row], episode.labels, rate)
        },
    )


def _apart(episode: Episode) -> Episode:
    """Give an episode arrays of its own: in those of a fold lie the support sets of all its tasks."""
    return replace(
        episode,
        support_x=episode.support_x.copy(),
        support_y=episode.support_y.copy(),
        support_weight=episode.support_weight.copy(),
        query_x=episode.query_x.copy(),
        query_y=episode.query_y.copy(),
    )


def _dead_letter(rejected: Rejected, origin: str) -> bytes:
    """With its task, where that is known; bytes in hexadecimal, since what is refused need not be text."""
    record = rejected.record
    said: dict[str, Any] = {"task": readable_task(record), "origin": origin, "offset": record.offset}
    said["reason"], said["detail"] = rejected.reason, rejected.detail
    if record.raw is not None:
        said["bytes_hex"] = record.raw.hex()
    else:
        said["record"] = {
            **{name: writable(getattr(record, name)) for name in ("task", "id", "time", "label")},
            "fields": record.fields and {name: writable(value) for name, value in record.fields.items()},
        }
    return orjson.dumps(said, default=str, option=orjson.OPT_NON_STR_KEYS)
