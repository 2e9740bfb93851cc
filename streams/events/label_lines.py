"""Labels that tasks learned from, in columns, and the lines of the `episodes` output that say them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np

from engine.types import Episode, Float32, Float64, Int64, UInt64
from streams.events.column_text import (
    NONE,
    JoinedLines,
    Texts,
    filled,
    incarnations_text,
    lines_text,
    numbers_text,
    stretches_text,
    texts_of,
    values_text,
)
from streams.events.learned_labels import LearnedLabel
from streams.events.record import SourcePosition

LINE = (
    b'{"task":%b,"labels":%b,"incarnation":"%b","partition":%b,"offset":%b,"x":[%b],"y":%b,"losses":%b%b%b}'
)

EPISODE = b',"support":{"x":[[%b]],"y":[%b],"weight":[%b]},"query":{"x":[[%b]],"y":[%b]}'

NULL = texts_of([b"null"])


@dataclass(frozen=True, eq=False)
class LabelColumns(Sequence[LearnedLabel]):
    """L labels; what each column holds, `LearnedLabel` says."""

    tasks: Sequence[str]
    """[U], each once."""
    row: Int64
    """[L] whose each is."""
    incarnation: UInt64
    partition: Int64
    offset: Int64
    labels: Int64
    x: Float32
    """[L, W]"""
    y: Float64
    losses: Float64
    """[L, 5]"""
    episodes: Mapping[int, Episode]
    """By label, of those that ended one."""

    def __len__(self) -> int:
        return len(self.row)

    @overload
    def __getitem__(self, index: int) -> LearnedLabel: ...

    @overload
    def __getitem__(self, index: slice) -> list[LearnedLabel]: ...

    def __getitem__(self, index: int | slice) -> LearnedLabel | list[LearnedLabel]:
        """One of them, or a stretch."""
        return [*self][index]

    def __iter__(self) -> Iterator[LearnedLabel]:
        places = (place.tolist() for place in (self.incarnation, self.partition, self.offset))
        return map(
            LearnedLabel,
            [self.tasks[row] for row in self.row.tolist()],
            map(SourcePosition, *places),
            self.labels.tolist(),
            self.x,
            self.y.tolist(),
            self.losses,
            map(self.episodes.get, range(len(self))),
        )


def columns_of_labels(labels: Sequence[LearnedLabel]) -> LabelColumns:
    """Labels [L], of one at least, by column."""
    tasks, sources, counts, x, y, losses, episodes = zip(*labels, strict=True)
    row = {task: n for n, task in enumerate(dict.fromkeys(tasks))}
    incarnation, partition, offset = zip(*sources, strict=True)
    return LabelColumns(
        list(row),
        np.array([row[task] for task in tasks], np.int64),
        np.array(incarnation, np.uint64),
        np.array(partition, np.int64),
        np.array(offset, np.int64),
        np.array(counts, np.int64),
        np.stack(x),
        np.array(y, np.float64),
        np.stack(losses),
        {n: episode for n, episode in enumerate(episodes) if episode is not None},
    )


@dataclass(frozen=True, eq=False)
class LabelLines(JoinedLines):
    """Lines of the `episodes` output, and the labels that they say."""

    labels: LabelColumns


def lines_of(labels: LabelColumns) -> LabelLines:
    """The lines of the `episodes` output that `read_learned` reads."""
    lines = lines_text(
        LINE,
        values_text(labels.tasks).take(labels.row),
        numbers_text(labels.labels),
        incarnations_text(labels.incarnation),
        numbers_text(labels.partition),
        numbers_text(labels.offset),
        numbers_text(labels.x),
        numbers_text(labels.y),
        *_losses_text(labels.losses),
        _episodes_text(labels.episodes, len(labels)),
    )
    return LabelLines(lines.content, lines.begins, lines.ends, labels)


def _losses_text(losses: Float64) -> tuple[Texts, Texts]:
    """Lists of losses [L, 5] of the labels that were scored, and null of the others."""
    is_scored = ~np.isnan(losses[:, 0])
    scored, others = np.flatnonzero(is_scored), np.flatnonzero(~is_scored)
    lists = filled(b"[%b]", numbers_text(losses[scored]))
    return lists.among(scored, len(losses)), NULL.take(np.zeros_like(others)).among(others, len(losses))


def _episodes_text(episodes: Mapping[int, Episode], count: int) -> Texts:
    """Members of the lines of so many labels, of those that ended an episode."""
    if not episodes:
        return NONE.among(np.zeros(0, np.int64), count)
    ended = episodes.values()
    members = (
        _stretches([getattr(episode, name) for episode in ended])
        for name in ("support_x", "support_y", "support_weight", "query_x", "query_y")
    )
    return filled(EPISODE, *members).among(np.array([*episodes], np.int64), count)


def _stretches(parts: Sequence[Any]) -> Texts:
    """A text for each array."""
    return stretches_text(np.concatenate(parts), np.cumsum([0, *(part.size for part in parts)]))
