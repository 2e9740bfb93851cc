"""Labels from the topic `episodes`, each once; where to read on from lies in a checkpoint of theta, and nowhere else.

A label is recognised as a repeat by its place in the input: what one partition of the input gives to one partition of
the episodes comes in order, so a place at or below the last one taken was there before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol

from streams.events.learned_labels import LabelReader, LearnedLabel
from streams.events.record import UNTOLD, incarnation_text

AT_ONCE = 4096
"""The most messages of one read, and of labels what one turn takes, but for those of its last read."""

QUIET = 50
"""Reads without a message after which labels that were there before are taken to be gone."""


class EpisodeMessage(Protocol):
    """One message of the episodes topic."""

    @property
    def partition(self) -> int:
        """Of the episodes topic."""
        ...

    @property
    def offset(self) -> int:
        """In its partition."""
        ...

    @property
    def value(self) -> bytes | None:
        """A line of the `episodes` output."""
        ...


class EpisodeReader(Protocol):
    """Reads the partitions of the episodes topic from positions that the caller keeps."""

    def read(
        self, positions: Mapping[int, int], max_messages: int
    ) -> tuple[Sequence[EpisodeMessage], dict[int, int]]:
        """The next messages, and the positions after them."""
        ...

    def incarnation(self) -> int:
        """Of the episodes topic as it is now: another number where it was created anew."""
        ...

    @property
    def skipped(self) -> int:
        """How many messages were passed over, since the topic no longer held them."""
        ...

    def close(self) -> None:
        """Let go of the connection."""
        ...


class Placed(NamedTuple):
    """A label, and where its message lies in the episodes topic."""

    partition: int
    offset: int
    label: LearnedLabel

    @property
    def source(self) -> str:
        """The partition of an incarnation of the input that it comes from."""
        incarnation, partition, _ = self.label.source
        return f"{incarnation_text(incarnation)}:{partition}" if incarnation != UNTOLD else str(partition)

    @property
    def channel(self) -> str:
        """What comes in order: labels of one partition of an incarnation of the input, in one of the topic."""
        return f"{self.partition}:{self.source}"

    def without_episode(self) -> Placed:
        """To be kept: an episode is trained on once, and is most of what a label takes."""
        return self._replace(label=self.label._replace(episode=None))


@dataclass(frozen=True)
class Window:
    """How far the episodes topic was taught, and the last labels before that."""

    positions: dict[int, int] = field(default_factory=dict)
    """Of its partitions."""
    input: dict[str, int] = field(default_factory=dict)
    """The last offset of the input, of each of its channels: of its partitions in each of the topic's."""
    labels: tuple[Placed, ...] = ()
    incarnation: int = UNTOLD
    """Of the episodes topic."""

    @property
    def numbers(self) -> dict[str, Any]:
        """What a checkpoint holds of it: enough to read it again."""
        positions, through = dict(self.positions), dict(self.input)
        for placed in reversed(self.labels):
            positions[placed.partition] = placed.offset
            through[placed.channel] = placed.label.source.offset - 1
        return {
            "episodes": incarnation_text(self.incarnation),
            **_told(self.positions, self.input),
            "window": _told(positions, through),
        }

    def after(self, labels: Sequence[Placed], size: int) -> Window:
        """With labels that came next, in the order of each partition; of all so many are kept."""
        positions = self.positions | {one.partition: one.offset + 1 for one in labels}
        through = self.input | {one.channel: one.label.source.offset for one in labels}
        kept = (*self.labels, *(one.without_episode() for one in labels))
        return replace(self, positions=positions, input=through).last(kept, size)

    def last(self, labels: Sequence[Placed], size: int) -> Window:
        """With the last of these labels, of each partition alike: how they came to be read makes no difference."""
        kept = sorted(labels, key=lambda one: (one.offset - self.positions[one.partition], one.partition))
        return replace(self, labels=tuple(kept[-size:]))


@dataclass
class _Since:
    """What was read after a window, and how far."""

    window: Window
    positions: dict[int, int]
    input: dict[str, int]
    labels: list[Placed]


@dataclass
class EpisodeLabels:
    """Reads the labels that were taught before, and those that came since."""

    topic: EpisodeReader
    reader: LabelReader
    size: int
    """Labels of the window."""
    read: Callable[[], object]
    """Called after each read."""
    passed_over: Callable[[str], object]
    """Told, in a sentence, of a message that is no label."""
    _window: Window = field(default_factory=Window)
    _since: _Since | None = None

    def taught(self, numbers: Mapping[str, Any]) -> Window:
        """The labels before those of a checkpoint; read again where this process has not taught them itself.

        An episodes topic that was made anew is read from its start, and what it holds of the input stays known.
        """
        incarnation = self.topic.incarnation()
        if int(numbers.get("episodes", "0"), 16) not in (incarnation, UNTOLD):
            numbers = {"input": numbers["input"]}
        positions, through = _read_from(numbers)
        if (self._window.incarnation, self._window.positions) != (incarnation, positions):
            at, since = _read_from(numbers.get("window", {}))
            again = self._again(at, since, positions)
            self._window = Window(positions, through, incarnation=incarnation).last(again, self.size)
        return self._window

    def since(self, window: Window) -> list[Placed]:
        """Every label after a window, each once, as they were read."""
        if self._since is None or self._since.window is not window:
            self._since = _Since(window, dict(window.positions), dict(window.input), [])
        since = self._since
        enough = len(since.labels) + AT_ONCE
        while len(since.labels) < enough:
            messages, since.positions = self._read(since.positions)
            if not messages:
                break
            since.labels += self._new(messages, since.input)
        return since.labels

    def go_on(self, window: Window, left: Sequence[Placed]) -> None:
        """Take it that all up to a window was taught, and of what was read since these labels were not."""
        if self._since is not None:
            self._since = replace(self._since, window=window, labels=[*left])
        self._window = window

    def _again(
        self, at: Mapping[int, int], since: dict[str, int], positions: Mapping[int, int]
    ) -> list[Placed]:
        """Labels from one place to another, as far as the topic has kept them."""
        labels: list[Placed] = []
        quiet = 0
        while quiet < QUIET and any(at.get(partition, 0) < end for partition, end in positions.items()):
            messages, after = self._read(at)
            quiet, at = (0 if messages or after != at else quiet + 1), after
            inside = [m for m in messages if m.offset < positions.get(m.partition, 0)]
            labels += [one.without_episode() for one in self._new(inside, since)]
        return labels

    def _read(self, positions: Mapping[int, int]) -> tuple[Sequence[EpisodeMessage], dict[int, int]]:
        found = self.topic.read(positions, AT_ONCE)
        self.read()
        return found

    def _new(self, messages: Sequence[EpisodeMessage], through: dict[str, int]) -> Iterator[Placed]:
        """Labels of messages, each once; how far each channel has come is kept."""
        for message, one in zip(messages, self._readable(messages), strict=True):
            placed = Placed(message.partition, message.offset, one) if one else None
            if placed and placed.label.source.offset > through.get(placed.channel, -1):
                through[placed.channel] = placed.label.source.offset
                yield placed

    def _readable(self, messages: Sequence[EpisodeMessage]) -> Iterator[LearnedLabel | None]:
        """The label of each message; what is none, or one of another stream spec, is passed over and told."""
        found = self.reader.read([message.value or b"" for message in messages])
        for message, one in zip(messages, found, strict=True):
            if isinstance(one, str):
                self.passed_over(
                    f"the label in partition {message.partition} at offset {message.offset} {one}; passed over"
                )
            yield one if isinstance(one, LearnedLabel) else None


def _told(positions: Mapping[int, int], through: Mapping[str, int]) -> dict[str, Any]:
    """Where to read from, as a checkpoint holds it."""
    return {"positions": {str(partition): at for partition, at in positions.items()}, "input": dict(through)}


def _read_from(numbers: Mapping[str, Any]) -> tuple[dict[int, int], dict[str, int]]:
    """Where to read from: positions in the episodes topic, and how far each channel had come."""
    return positions_in(numbers), dict(numbers.get("input", {}))


def positions_in(numbers: Mapping[str, Any]) -> dict[int, int]:
    """Positions in the partitions of the episodes topic, as a checkpoint holds them."""
    return {int(partition): at for partition, at in numbers.get("positions", {}).items()}
