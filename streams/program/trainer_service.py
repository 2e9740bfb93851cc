"""`reptide trainer`: reads episodes, trains theta, judges it on held-out tasks and publishes it, until told to stop.

Its position in the episodes lies in the checkpoint that it publishes, and nowhere else. An episode is
recognised as a repeat by its place in the input: what one partition of the input gives to one partition of
the episodes comes in order, so a place at or below the last one trained on was there before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from threading import Event
from time import monotonic, time
from typing import Any, NamedTuple, Protocol

import numpy as np

from streams.errors import Unavailable
from streams.events.learned_labels import LearnedLabel
from streams.events.record import UNTOLD, incarnation_text
from streams.program.patience import Stopped, patiently, pause, told_away
from streams.program.pruning import EVERY
from streams.program.trainer import Advance, Trainer
from streams.watch.health import Health
from streams.watch.telemetry import Telemetry

AT_ONCE = 4096
"""The most labels of one version."""

QUIET = 50
"""Reads without a message after which labels that were there before are taken to be gone."""

CONDITIONS = ("servers",)


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


class _Placed(NamedTuple):
    """A label, and where its message lies in the episodes topic."""

    partition: int
    offset: int
    label: LearnedLabel

    @property
    def channel(self) -> str:
        """What comes in order: labels of one partition of an incarnation of the input, in one of the topic."""
        incarnation, partition, _ = self.label.source
        source = (incarnation_text(incarnation), partition) if incarnation != UNTOLD else (partition,)
        return ":".join(map(str, (self.partition, *source)))

    def without_episode(self) -> _Placed:
        """To be kept: an episode is trained on once, and is most of what a label takes."""
        return self._replace(label=self.label._replace(episode=None))


@dataclass(frozen=True)
class _Window:
    """How far the episodes topic was read, and the last labels before that."""

    positions: dict[int, int] = field(default_factory=dict)
    """Of its partitions."""
    input: dict[str, int] = field(default_factory=dict)
    """The last offset of the input, of each of its channels: of its partitions in each of the topic's."""
    labels: tuple[_Placed, ...] = ()
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

    def last(self, labels: Sequence[_Placed], size: int) -> _Window:
        """With the last of these labels, of each partition alike: how they came to be read makes no difference."""
        kept = sorted(labels, key=lambda one: (one.offset - self.positions[one.partition], one.partition))
        return replace(self, labels=tuple(kept[-size:]))


@dataclass
class TrainerService:
    """Runs a trainer on the labels of all workers."""

    trainer: Trainer
    episodes: EpisodeReader
    telemetry: Telemetry
    health: Health
    publish_every_s: float
    show: Callable[[Advance], None]
    say: Callable[[str], None]
    prune: Callable[[], object] = lambda: None
    """Deletes versions of theta and adoptions that nobody needs."""
    away: str = ""
    """Why the last attempt failed; empty while all servers answer."""
    _window: _Window = field(default_factory=_Window)

    def run(self, stopping: Event) -> None:
        """Train until told to stop; what was not published is trained on again."""
        try:
            while not stopping.is_set():
                began = monotonic()
                patiently(self.turn, stopping, stopping.wait, self._away)
                self._well()
                pause(self.publish_every_s - (monotonic() - began), stopping, self.health)
        except Stopped:
            self.say("stopped while a server was away; nothing is lost")
        finally:
            self.episodes.close()

    def turn(self) -> Advance | None:
        """Make one version of the labels that came since the last; None where there were none."""
        with self.telemetry.store_seconds("theta"):
            before = self.trainer.newest()
        earlier = self._window = self._earlier(before.numbers if before else {})
        found, reached = self._unread(earlier)
        if not found:
            return None
        kept = (*earlier.labels, *(one.without_episode() for one in found))
        now = reached.last(kept, self.trainer.window)
        new, old = ([placed.label for placed in part] for part in (found, earlier.labels))
        advance = self.trainer.advance(before, new, old, now.numbers)
        verdict = advance.verdict
        if advance.published:
            self._window = now
            self.telemetry.round(advance.labels, not verdict.refused, verdict.loss_before, verdict.loss_after)
            losses = [(one.report.query_loss_before, one.report.query_loss_after) for one in advance.rounds]
            self.telemetry.inner_loss(*np.array(losses, np.float64).reshape(-1, 2).T)
            self.telemetry.theta(advance.version, time())
        self.show(advance)
        if advance.version % EVERY == 0:
            self.prune()
        return advance

    def _earlier(self, numbers: Mapping[str, Any]) -> _Window:
        """The labels before those of a checkpoint; read again where this process has not trained on them itself.

        An episodes topic that was made anew is read from its start, and what it holds of the input stays known.
        """
        incarnation = self.episodes.incarnation()
        if int(numbers.get("episodes", "0"), 16) not in (incarnation, UNTOLD):
            numbers = {"input": numbers["input"]}
        positions, through = _read_from(numbers)
        if (self._window.incarnation, self._window.positions) == (incarnation, positions):
            return self._window
        at, since = _read_from(numbers.get("window", {}))
        labels: list[_Placed] = []
        quiet = 0
        while quiet < QUIET and any(at.get(partition, 0) < end for partition, end in positions.items()):
            messages, after = self._read(at)
            quiet, at = (0 if messages or after != at else quiet + 1), after
            inside = [m for m in messages if m.offset < positions.get(m.partition, 0)]
            labels += [one.without_episode() for one in self._new(inside, since)]
        return _Window(positions, through, incarnation=incarnation).last(labels, self.trainer.window)

    def _unread(self, before: _Window) -> tuple[list[_Placed], _Window]:
        """Labels not trained on yet, each once; and how far they reach."""
        positions, through = dict(before.positions), dict(before.input)
        found: list[_Placed] = []
        while len(found) < AT_ONCE:
            messages, positions = self._read(positions)
            if not messages:
                break
            found += self._new(messages, through)
        return found, replace(before, positions=positions, input=through, labels=())

    def _read(self, positions: Mapping[int, int]) -> tuple[Sequence[EpisodeMessage], dict[int, int]]:
        """The next messages, by which the servers have answered: Redis was asked before."""
        found = self.episodes.read(positions, AT_ONCE)
        self.health.alive()
        if not self.away:
            self.health.say("servers", True, "answer")
        return found

    def _new(self, messages: Sequence[EpisodeMessage], through: dict[str, int]) -> Iterator[_Placed]:
        """Labels of messages, each once; how far each channel has come is kept."""
        for message, one in zip(messages, self._readable(messages), strict=True):
            placed = _Placed(message.partition, message.offset, one) if one else None
            if placed and placed.label.source.offset > through.get(placed.channel, -1):
                through[placed.channel] = placed.label.source.offset
                yield placed

    def _readable(self, messages: Sequence[EpisodeMessage]) -> Iterator[LearnedLabel | None]:
        """The label of each message; what is none, or one of another stream spec, is passed over and told."""
        found = self.trainer.labels.read([message.value or b"" for message in messages])
        for message, one in zip(messages, found, strict=True):
            if isinstance(one, str):
                self.telemetry.passed_over()
                self.say(
                    f"the label in partition {message.partition} at offset {message.offset} {one}; passed over"
                )
            yield one if isinstance(one, LearnedLabel) else None

    def _away(self, error: Unavailable) -> None:
        self.away = told_away(error, self.away, self.health, self.say)

    def _well(self) -> None:
        self.away = ""
        self.health.say("servers", True, "answer")
        self.telemetry.skipped(self.episodes.skipped)


def _told(positions: Mapping[int, int], through: Mapping[str, int]) -> dict[str, Any]:
    """Where to read from, as a checkpoint holds it."""
    return {"positions": {str(partition): at for partition, at in positions.items()}, "input": dict(through)}


def _read_from(numbers: Mapping[str, Any]) -> tuple[dict[int, int], dict[str, int]]:
    """Where to read from: positions in the episodes topic, and how far each channel had come."""
    positions = {int(partition): at for partition, at in numbers.get("positions", {}).items()}
    return positions, dict(numbers.get("input", {}))
