"""Where labelled examples come from, and how they are read: by the same rules as events of a stream."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from math import isnan
from typing import Any, NamedTuple

import numpy as np

from engine.episodes.task_source import Examples
from engine.features.encoder import Features
from engine.problem import Problem
from engine.targets import Classification, Regression
from engine.types import EngineError, Float32, Kind
from streams.errors import InputError
from streams.events.reading import Rejected
from streams.events.record import Record
from streams.events.sound import Sound, sound_of

AT_ONCE = 16_384
"""Records that are decoded in one call."""

ONE_TASK = "all"
"""The task of examples that name none."""


@dataclass(frozen=True)
class Source:
    """Records of labelled examples, which may be read more than once."""

    path: str
    unit: str
    """What `Record.line` counts."""
    records: Callable[[], Iterator[Record]]
    features: Features
    timed: bool
    """Whether records have a time; where not, theirs is 0."""
    x: Float32 | None = None
    """[N, W] features in stored form by `Record.offset`; None where the records have fields to encode."""


class Labelled(NamedTuple):
    """Labelled examples, and how they came out of their source."""

    examples: Examples
    features: Features
    refused: Sequence[Rejected]
    said: str
    """What was read, in a sentence without its end."""


def example(offset: int, task: Any, label: Any, time: Any, fields: Any, line: int) -> Record:
    """A label that carries its features."""
    return Record(offset, Kind.LABEL, task, offset, time, label, fields, line)


def labelled(source: Source, target: Classification | Regression | None) -> Labelled:
    """Read all examples that have a label; without a target, labels of any kind are classes.

    Raises:
        InputError: there are none, or all are of one class.

    """
    known = target or _classes_in(source)
    problem = Problem(source.features if source.x is None else Features(()), known)
    parts: list[Examples] = []
    refused: list[Rejected] = []
    tasks: dict[str, int] = {}
    unlabelled: Counter[bool] = Counter()
    for records in _chunks(_with_label(source.records(), unlabelled)):
        found = sound_of(records, problem)
        refused += found.rejected
        parts.append(_numbered(found, tasks, source.x))
    if not sum(len(part.y) for part in parts):
        raise InputError(f"{source.path}: no example that could be read has a label{_first(source, refused)}")
    whole = Examples(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
    if isinstance(known, Classification) and len(np.unique(whole.y)) == 1:
        only = known.classes[int(whole.y[0])]
        raise InputError(f"{source.path}: every label is {only!r}, so there is nothing to tell apart")
    said = f"{len(whole.y):,} examples of {len(tasks):,} task{'s' * (len(tasks) != 1)} in {source.path}"
    if unlabelled[True]:
        said += f" ({unlabelled[True]:,} without a label passed over)"
    return Labelled(whole, source.features, refused, said)


def sound(source: Source, found: Labelled) -> Labelled:
    """Refuse examples of which some could not be read.

    Raises:
        InputError: names the first of them.

    """
    if found.refused:
        raise InputError(
            f"{source.path}: {len(found.refused):,} examples cannot be read{_first(source, found.refused)}; mend "
            "them or take them out; an example without a label is passed over"
        )
    return found


def _classes_in(source: Source) -> Classification:
    labels = {record.label for record in source.records() if _may_name_a_class(record.label)}
    try:
        return Classification(tuple(sorted(labels, key=lambda label: (isinstance(label, str), label))))
    except EngineError as error:
        raise InputError(f"{source.path}: the labels are no classes: {error}") from error


def _may_name_a_class(label: Any) -> bool:
    return isinstance(label, str | int) or (isinstance(label, float) and not isnan(label))


def _with_label(records: Iterable[Record], unlabelled: Counter[bool]) -> Iterator[Record]:
    for record in records:
        without = record.label is None and record.fault is None
        unlabelled[without] += 1
        if not without:
            yield record


def _chunks(records: Iterator[Record]) -> Iterator[list[Record]]:
    while chunk := list(islice(records, AT_ONCE)):
        yield chunk


def _numbered(found: Sound, tasks: dict[str, int], x: Float32 | None) -> Examples:
    """Examples of one call, their tasks numbered as in all calls before."""
    numbers = np.array([tasks.setdefault(task, len(tasks)) for task in found.tasks], np.int64)
    features = found.x if x is None else x[found.columns.offset[found.index]]
    return Examples(features, found.y, numbers[found.row], found.time_s)


def _first(source: Source, refused: Sequence[Rejected]) -> str:
    """The first fault, in words."""
    return f"; the first is {source.unit} {refused[0].record.line}: {refused[0].detail}" if refused else ""
