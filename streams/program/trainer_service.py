"""`reptide trainer`: reads episodes, trains theta, judges it on held-out tasks and publishes it, until told to stop.

The clock decides how often a version is published, and nothing else. Theta is taught in rounds, and which labels make
one the places in the input decide. What is served was also taught the round that has only begun; but training goes on
from theta as the last whole round left it, which a version holds as well: once that round is whole it is taught anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from threading import Event
from time import monotonic, time
from typing import Any

import numpy as np

from engine.outer.fit import TrainState
from streams.errors import Unavailable
from streams.events.record import incarnation_text
from streams.program.episode_labels import EpisodeLabels, EpisodeReader, Placed, Window, positions_in
from streams.program.label_rounds import mixed, rounds_of
from streams.program.label_window import LabelWindow
from streams.program.patience import Stopped, patiently, pause, told_away
from streams.program.pruning import EVERY
from streams.program.schedule import Schedule
from streams.program.trainer import Advance, Taught, Trainer
from streams.stores.versions import Checkpoint
from streams.watch.health import Health
from streams.watch.telemetry import Telemetry

CONDITIONS = ("servers",)

READS = "trainer on"
"""What a trainer says first, before the name of the topic that it reads."""


@dataclass
class TrainerService:
    """Runs a trainer on the labels of all workers."""

    trainer: Trainer
    episodes: EpisodeReader
    schedule: Schedule
    """When a round falls due, as workers adopt theta."""
    telemetry: Telemetry
    health: Health
    publish_every_s: float
    show: Callable[[Advance], None]
    say: Callable[[str], None]
    prune: Callable[[], object] = lambda: None
    """Deletes versions of theta and adoptions that nobody needs."""
    away: str = ""
    """Why the last attempt failed; empty while all servers answer."""

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

    @cached_property
    def labels(self) -> EpisodeLabels:
        """What there is to be taught."""
        trains = self.trainer
        return EpisodeLabels(self.episodes, trains.labels, trains.window, self._answered, self._passed_over)

    def turn(self) -> Advance | None:
        """Make one version of the labels that came since the last; None where there were none, or no round yet."""
        with self.telemetry.store_seconds("theta"):
            before = self.trainer.newest()
        window = self.labels.taught(before.numbers if before else {})
        found, known = self.labels.since(window), _begun(before, window)
        rounds = rounds_of(mixed(found), window.input, self.schedule)
        if all(one.offset < known.get(one.partition, 0) for one in found) or (
            not before and len(rounds) == 1
        ):
            return None  # theta of a handful of labels is worse than none
        advance = self._advance(before, window, rounds, known)
        self.show(advance)
        if advance.version % EVERY == 0:
            self.prune()
        return advance

    def _advance(
        self,
        before: Checkpoint | None,
        window: Window,
        rounds: Sequence[Sequence[Placed]],
        known: Mapping[int, int],
    ) -> Advance:
        """Make a version by rounds of which the last has only begun; where they take long, by the first of them."""
        trainer, taught = self.trainer, list[Taught]()
        state, number = trainer.state(before), _rounds(before)
        for one, after in self._in_time(state, number, rounds[:-1], window):
            taught.append(one)
            state, number, window = one.state, number + 1, after
        left = rounds[len(taught) :]
        begun = left[0] if len(left) == 1 else ()
        if begun:
            taught.append(self._taught(state, number + 1, begun, window))
        served = taught[-1].state
        beside = trainer.beside(served, [one.label for one in (*window.labels, *begun)])
        numbers = {**window.numbers, "rounds": number, "begun": _described(begun), **beside}
        version = (before.version if before else 0) + 1
        published = trainer.publish(version, state, numbers, served if begun else None)
        new = sum(one.offset >= known.get(one.partition, 0) for part in rounds[: len(taught)] for one in part)
        if published:
            self.labels.go_on(window, [one for labels in left for one in labels])
            self._tell(taught, version, new)
        steps = [step for one in taught for step in one.steps]
        return Advance(version, new, steps, taught[-1].verdict, published)

    def _in_time(
        self, state: TrainState, number: int, rounds: Sequence[Sequence[Placed]], window: Window
    ) -> Iterator[tuple[Taught, Window]]:
        """Teach whole rounds, the first in any case, until it is time to publish."""
        began = monotonic()
        for n, labels in enumerate(rounds, number + 1):
            taught = self._taught(state, n, labels, window)
            state, window = taught.state, window.after(labels, self.trainer.window)
            yield taught, window
            if monotonic() - began >= self.publish_every_s:
                return

    def _taught(self, state: TrainState, number: int, labels: Sequence[Placed], window: Window) -> Taught:
        every = LabelWindow.of([one.label for one in (*window.labels, *labels)])
        return self.trainer.teach(state, number, every, len(labels))

    def _tell(self, taught: Sequence[Taught], version: int, new: int) -> None:
        """Set what the metrics show of a version."""
        for number, one in enumerate(taught, 1):
            verdict = one.verdict
            labels = new if number == len(taught) else 0
            self.telemetry.round(labels, not verdict.refused, verdict.loss_before, verdict.loss_after)
        losses = [
            (s.report.query_loss_before, s.report.query_loss_after) for one in taught for s in one.steps
        ]
        self.telemetry.inner_loss(*np.array(losses, np.float64).reshape(-1, 2).T)
        self.telemetry.theta(version, time())

    def _answered(self) -> None:
        """The servers have: Redis was asked before the topic was read."""
        self.health.alive()
        if not self.away:
            self.health.say("servers", True, "answer")

    def _passed_over(self, sentence: str) -> None:
        self.telemetry.passed_over()
        self.say(sentence)

    def _away(self, error: Unavailable) -> None:
        self.away = told_away(error, self.away, self.health, self.say)

    def _well(self) -> None:
        self.away = ""
        self.health.say("servers", True, "answer")
        self.telemetry.skipped(self.episodes.skipped)


def _rounds(before: Checkpoint | None) -> int:
    """How many whole rounds came before; each was a version while that was not written."""
    return int(before.numbers.get("rounds", before.version)) if before else 0


def _begun(before: Checkpoint | None, window: Window) -> dict[int, int]:
    """How far in each partition the round that had begun is taught to what is served."""
    numbers = before.numbers if before else {}
    same_topic = numbers.get("episodes") == incarnation_text(window.incarnation)
    return positions_in(numbers.get("begun", {})) if same_topic else {}


def _described(begun: Sequence[Placed]) -> dict[str, Any]:
    return {
        "labels": len(begun),
        "positions": {str(one.partition): one.offset + 1 for one in begun},
    }
