"""A label that a task learned from, as a line of the `episodes` output says it: read strictly, or not at all.

Whoever writes into the topic, and whatever damages a file, must not stop the trainer, nor teach it what is no number.
So each member is looked at before any of it is used: types, shapes, and whether the stream spec could have made it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import orjson

from engine.stream.spec import StreamSpec
from engine.targets import Classification, Regression
from engine.types import PREDICTORS, Bool, Episode, Float32, Float64, Int64, is_index
from streams.events.record import SourcePosition, told_incarnation

NUMBERS: frozenset[type] = frozenset({int, float})
OR_MISSING: frozenset[type] = NUMBERS | {type(None)}

UNSCORED: Float64 = np.full(len(PREDICTORS), np.nan)

LONGEST = 2**63
"""Counts and offsets are 64 bits."""

MOST_LOSS = 1000.0
"""More than the logarithm of any number tells."""

SLACK = 0.01
"""What rounding may add to weights and losses."""


class LearnedLabel(NamedTuple):
    """A label that a task learned from, as it lies in the `episodes` output."""

    task: str
    source: SourcePosition
    """Of the label; `UNTOLD` where the line is of an earlier version."""
    labels: int
    """The task's label count with it; with the task's id it identifies the label."""
    x: Float32
    """[W] the features that came with it, as stored, history included."""
    y: float
    losses: Float64
    """[5] what base, recent, theta, adapted and their shared mixture lost by it; NaN where it was not scored."""
    episode: Episode | None
    """Where the task adapted at this label: what it had adapted on before, and every label since."""


@dataclass(frozen=True)
class LabelReader:
    """Reads the labels of one stream spec, many at once: numbers are looked at together."""

    spec: StreamSpec

    def read(self, lines: Sequence[bytes]) -> list[LearnedLabel | str]:
        """The label of each line; or why it is none that this stream spec has made, quoting nothing of it."""
        with np.errstate(over="ignore"):
            found = [self._shaped(line) for line in lines]
        labels = {n: one for n, one in enumerate(found) if isinstance(one, LearnedLabel)}
        for n, one in zip(labels, self.sound([*labels.values()]), strict=True):
            found[n] = one
        return found

    def sound(self, labels: Sequence[LearnedLabel]) -> Sequence[LearnedLabel | str]:
        """Labels that have the shape of this stream spec's; of those whose numbers are none of its, why."""
        wrong = dict(self._unsound([*labels]))
        if not wrong:
            return labels
        reasons = {n: f"is not of this stream spec, {reason}" for n, reason in wrong.items()}
        return [reasons.get(n, one) for n, one in enumerate(labels)]

    def _shaped(self, line: bytes) -> LearnedLabel | str:
        """The label of a line, whose numbers nobody has looked at yet."""
        try:
            one = read_learned(line)
        except (ValueError, KeyError, TypeError) as error:
            return f"cannot be read ({type(error).__name__})"
        reason = self._misshapen(one)
        return f"is not of this stream spec, {reason}" if reason else one

    def _misshapen(self, one: LearnedLabel) -> str:
        if len(one.x) != self._width:
            return f"whose features are {self._width} wide"
        if len(one.losses) != len(PREDICTORS):
            return f"which has {len(PREDICTORS)} losses"
        if one.episode is None:
            return ""
        if max(len(one.episode.support_y), len(one.episode.query_y)) > self._slots:
            return f"whose sets have {self._slots} examples at most"
        weight = one.episode.support_weight
        return "" if (weight >= 0).all() and abs(weight.sum() - 1) <= SLACK else "whose support sets weigh 1"

    def _unsound(self, labels: Sequence[LearnedLabel]) -> Iterator[tuple[int, str]]:
        """Which labels hold numbers that the stream spec cannot have made."""
        if not labels:
            return
        ended = [(n, one.episode) for n, one in enumerate(labels) if one.episode is not None]
        owner = np.repeat(
            [*range(len(labels)), *(n for n, _ in ended)],
            [*[1] * len(labels), *(len(e.support_y) + len(e.query_y) for _, e in ended)],
        )
        x = np.concatenate([
            *(one.x for one in labels), *(part.ravel() for _, e in ended for part in (e.support_x, e.query_x))
        ]).reshape(-1, self._width)  # fmt: skip
        y = np.concatenate([
            np.array([one.y for one in labels]), *(part for _, e in ended for part in (e.support_y, e.query_y))
        ])  # fmt: skip
        losses = np.concatenate([one.losses for one in labels]).reshape(len(labels), -1)
        for broken, reason in (
            (owner[~self._are_features(x)], "whose features are others"),
            (owner[~self._are_labels(y)], "whose labels are others"),
            (np.flatnonzero(~self._are_losses(losses)), "whose losses are others"),
        ):
            yield from ((n, reason) for n in np.unique(broken).tolist())

    def _are_features(self, x: Float32) -> Bool:
        """Rows [N, W] as encoder and history make them: a bucket that there is not would be read out of bounds."""
        counts = x[:, self._counts]
        present = counts[:, ::2] if isinstance(self.spec.problem.target, Regression) else counts
        broken = self.spec.problem.stored.unsound(x[:, : self.spec.problem.features.width]).any(
            axis=1
        ) | np.isinf(x).any(axis=1)
        return np.asarray(~broken & (present >= 0).all(axis=1) & np.isfinite(counts).all(axis=1))

    def _are_labels(self, y: Float64) -> Bool:
        """Labels [N]: classes, those that there is room for among them; or values of the range."""
        target = self.spec.problem.target
        return is_index(y, target.outputs) if isinstance(target, Classification) else target.allows(y)

    def _are_losses(self, losses: Float64) -> Bool:
        """Losses [N, 5]: NaN, of labels not scored; or no more than the range of the target makes them."""
        target, most = self.spec.problem.target, MOST_LOSS
        if isinstance(target, Regression):
            width = float(np.float32(target.high)) - float(
                np.float32(target.low)
            )  # as labels and predictions have it
            most = (1 + SLACK) * width**2
        made = (losses >= -SLACK) & (losses <= most)
        return np.asarray(made.all(axis=1) | np.isnan(losses).all(axis=1))

    @cached_property
    def _width(self) -> int:
        return self.spec.problem.width

    @cached_property
    def _slots(self) -> int:
        return self.spec.slots

    @cached_property
    def _counts(self) -> Int64:
        """Where decayed counts of labels lie; of a regression each is followed by a mean."""
        past = self.spec.problem.history_columns
        inside: Int64 = np.r_[past.start : past.last, past.by_counts : past.stop]
        return inside if self.spec.problem.history is not None else inside[:0]


def task_numbers(labels: Sequence[LearnedLabel]) -> Int64:
    """Number the tasks of labels [N] from 0 in the order of their ids.

    An array of the ids would be as wide as the longest, which may be 65,536 characters, in every place.
    """
    tasks = [one.task for one in labels]
    numbers = {task: n for n, task in enumerate(sorted({*tasks}))}
    return np.array([numbers[task] for task in tasks], np.int64)


def read_learned(line: bytes) -> LearnedLabel:
    """Read a line of the `episodes` output; whether a stream spec can have made it is for `LabelReader` to say.

    Raises:
        ValueError: it is no JSON, or a member is not what it must be.
        KeyError: a member is missing.
        TypeError: a member is of another kind.

    """
    said = orjson.loads(line)
    x = _numbers(said["x"], OR_MISSING)
    losses = said["losses"]
    lost = UNSCORED if losses is None else _numbers(losses, NUMBERS, kind=np.float64)
    source = SourcePosition(told_incarnation(said), _count(said["partition"]), _count(said["offset"]))
    task, labels, y = said["task"], _count(said["labels"]), said["y"]
    if type(y) not in NUMBERS or not isinstance(task, str):
        raise TypeError("a label is a number, and a task is text")
    if not task or not labels or not 0 <= source.incarnation < 2 * LONGEST:
        raise ValueError("a task is not empty, a label count not 0, an incarnation 64 bits")
    return LearnedLabel(task, source, labels, x, float(y), lost, _episode(said, labels, len(x)))


def _episode(said: Mapping[str, Any], labels: int, width: int) -> Episode | None:
    if "support" not in said:
        return None
    support, query = said["support"], said["query"]
    return Episode(
        row=-1,
        labels=labels,
        event=-1,
        support_x=(support_x := _rows(support["x"], width)),
        support_y=_numbers(support["y"], NUMBERS, len(support_x)),
        support_weight=_numbers(support["weight"], NUMBERS, len(support_x)),
        query_x=(query_x := _rows(query["x"], width)),
        query_y=_numbers(query["y"], NUMBERS, len(query_x)),
    )


def _rows(rows: Any, width: int) -> Float32:
    """Rows of features [N, W]; one at least, since an episode without any says nothing."""
    if not isinstance(rows, list) or not rows:
        raise ValueError("expected rows of features")
    return np.stack([_numbers(row, OR_MISSING, width) for row in rows])


def _numbers(values: Any, kinds: frozenset[type], count: int = -1, kind: Any = np.float32) -> Any:
    """A list of `count` numbers, of any count where none is given; a null, where it may be one, is NaN."""
    if not isinstance(values, list):
        raise TypeError("expected a list")
    if not kinds.issuperset(map(type, values)) or count not in (-1, len(values)):
        raise ValueError("expected as many numbers as examples")
    return np.array(values, kind)


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < LONGEST:
        raise ValueError("expected a whole number from 0 on")
    return value
