"""`reptide trainer`: reads episodes, trains theta, judges it on held-out tasks and publishes it, until told to stop.

Its position in the episodes lies in the checkpoint that it publishes, and nowhere else. An episode is
recognised as a repeat by its place in the input: what one partition of the input gives to one partition of
the episodes comes in order, so a place at or below the last one trained on was there before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from threading import Event
from time import monotonic, time
from typing import Any, Protocol

import numpy as np

from streams.errors import Unavailable
from streams.health import Health
from streams.outputs import FoundEpisode, read_episode
from streams.roles.patience import Stopped, patiently, told_away
from streams.stores.base import Checkpoint
from streams.telemetry import Telemetry
from streams.trainer import Advance, Trainer

AT_ONCE = 4096
"""The most episodes of one version."""

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

    def close(self) -> None:
        """Let go of the connection."""
        ...


@dataclass
class TrainerService:
    """Runs a trainer on the episodes of all workers."""

    trainer: Trainer
    episodes: EpisodeReader
    telemetry: Telemetry
    health: Health
    publish_every_s: float
    show: Callable[[Advance], None]
    say: Callable[[str], None]
    away: str = ""
    """Why the last attempt failed; empty while all servers answer."""

    def run(self, stopping: Event) -> None:
        """Train until told to stop; what was not published is trained on again."""
        try:
            while not stopping.is_set():
                began = monotonic()
                patiently(self.turn, stopping, stopping.wait, self._away)
                self._well()
                stopping.wait(max(0.0, self.publish_every_s - (monotonic() - began)))
        except Stopped:
            self.say("stopped while a server was away; nothing is lost")
        finally:
            self.episodes.close()

    def turn(self) -> Advance | None:
        """Make one version of the episodes that came since the last; None where there were none."""
        before = self.trainer.newest()
        found, consumed = self.unread(before)
        if not found:
            return None
        advance = self.trainer.advance(before, found, consumed)
        verdict = advance.verdict
        if advance.published:
            self.telemetry.round(
                advance.episodes, not verdict.refused, verdict.loss_before, verdict.loss_after
            )
            losses = [(one.report.query_loss_before, one.report.query_loss_after) for one in advance.rounds]
            self.telemetry.inner_loss(*np.array(losses, np.float64).reshape(-1, 2).T)
            self.telemetry.theta(advance.version, time())
        self.show(advance)
        return advance

    def unread(self, before: Checkpoint | None) -> tuple[list[FoundEpisode], dict[str, Any]]:
        """Episodes not trained on yet, each once; and what a checkpoint then has consumed."""
        numbers = before.numbers if before else {}
        positions = {int(partition): offset for partition, offset in numbers.get("positions", {}).items()}
        through = dict(numbers.get("input", {}))
        found: list[FoundEpisode] = []
        while len(found) < AT_ONCE:
            messages, positions = self.episodes.read(positions, AT_ONCE)
            if not messages:
                break
            for message in messages:
                one = self._readable(message)
                channel = f"{message.partition}:{one.partition if one else ''}"
                if one and one.offset > through.get(channel, -1):
                    through[channel] = one.offset
                    found.append(one)
        return found, {"positions": {str(p): at for p, at in positions.items()}, "input": through}

    def _readable(self, message: EpisodeMessage) -> FoundEpisode | None:
        """The episode of a message; what is none, or one of another task spec, is passed over and told."""
        width = self.trainer.learner.spec.features.width
        try:
            one = read_episode(message.value or b"")
            if one.episode.query_x.shape[1:] == one.episode.support_x.shape[1:] == (width,):
                return one
            why = f"is not of this task spec, whose features are {width} wide"
        except (ValueError, KeyError, TypeError, IndexError) as error:
            # Its kind alone: its text may quote what somebody wrote into the topic.
            why = f"cannot be read ({type(error).__name__})"
        self.say(
            f"the episode in partition {message.partition} at offset {message.offset} {why}; passed over"
        )
        return None

    def _away(self, error: Unavailable) -> None:
        self.away = told_away(error, self.away, self.health, self.say)

    def _well(self) -> None:
        self.away = ""
        self.health.alive()
        self.health.say("servers", True, "answer")
