"""`reptide worker`: one member of the group that folds a stream, until it is told to stop.

A server that is away stops nothing for good: the batch in hand is taken again, whole, while the log keeps the
membership alive. Told to stop, the worker finishes its batch and leaves the group; what it has not
committed by then its successor reads again and recognises.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Event
from time import perf_counter, time

import numpy as np

from streams.errors import Forgot, Unavailable
from streams.events.record import Polled
from streams.logs.base import GroupLog
from streams.program.batch_limit import BatchLimit
from streams.program.patience import Stopped, patiently, told_away
from streams.program.progress import Progress
from streams.program.worker import Worker
from streams.system.collector import settle
from streams.watch.health import Health

POLL_S = 0.1
REMINDED_S = 1.0
"""How long a worker waits after a restart of the store, so that all others have told it what they had adopted."""
JOINS = "worker of group"
"""What a worker says first, before the name of the group that it joins."""
CONDITIONS = ("servers", "lag")
"""What a worker must have to be ready. Not partitions: one that has none stands by for those of others."""


@dataclass
class WorkerService:
    """Runs a worker on its partitions."""

    worker: Worker
    log: GroupLog
    topics: Sequence[str]
    """Names of the input topics."""
    health: Health
    budget_s: float
    """How long a batch should take."""
    ready_lag: int
    show: Callable[[Progress], None]
    say: Callable[[str], None]
    """Tells an operator, in a sentence."""
    ping: Callable[[], object]
    """Raises `Unavailable` unless the store answers."""
    check: Callable[[], object]
    """Asked by a member of the group before it folds a batch; raises where the rows are no state to go on from."""
    progress: Progress = field(default_factory=Progress)
    version: int = 0
    """Of theta, as last seen in use."""
    away: str = ""
    """Why the last attempt failed; empty while all servers answer."""
    forgot: bool = False
    """Whether the store was restarted, and was not told yet what it may have forgotten."""

    def run(self, stopping: Event) -> Progress:
        """Fold until told to stop."""
        settle()
        limit = BatchLimit(self.budget_s, self.worker.batch)
        try:
            while not stopping.is_set():
                # Polling commits, so the store is asked first whether it is what it was.
                patiently(self._meet_store, stopping, self.log.wait, self._away)
                polled = patiently(
                    lambda: self.log.poll(limit.events, POLL_S), stopping, stopping.wait, self._away
                )
                patiently(self._report, stopping, stopping.wait, self._away)
                if polled:
                    limit.learn(*self._take(polled, stopping))
        except Stopped:
            self.say("stopped while a server was away; the batch in hand will be folded by a successor")
        finally:
            self._leave()
        return self.progress

    def _leave(self) -> None:
        """Leave the group, which commits; nothing that the store may have forgotten."""
        try:
            self._ping()
        except Unavailable:
            self.log.rewind()
        try:
            self.log.close()
        except Unavailable as error:
            self.say(f"left without a word to the group, which will notice: {error}")

    def _ping(self) -> None:
        with self.worker.telemetry.store_seconds("ping"):
            self.ping()

    def _meet_store(self) -> None:
        """Ask whether the store is what it was, and remind one that was restarted before anything is folded again."""
        try:
            self._ping()
        except Forgot as error:
            self._again(error)
        if self.forgot:
            with self.worker.telemetry.store_seconds("adopt"):
                self.worker.store.remind()
            self.forgot = False
            self.log.wait(REMINDED_S)

    def _again(self, error: Forgot) -> None:
        self.say(f"{error}; what was not committed is folded again")
        self.forgot = True
        self.log.rewind()

    def _take(self, polled: Sequence[Polled], stopping: Event) -> tuple[int, float]:
        """Fold one batch; returns its events, and how long they took, from the last attempt on."""

        def attempt() -> float:
            """Fold it once, unless a server is away; what a store forgot comes again with another batch."""
            began = perf_counter()
            try:
                self.check()
                self.progress.add(self.worker.take(polled))
            except Forgot as error:
                self._again(error)
            return perf_counter() - began

        took = patiently(attempt, stopping, self.log.wait, self._away)
        appended = np.array([record.appended_s for part in polled for record in part.records])
        self.worker.telemetry.batch(took, len(appended), time() - appended)
        if self.progress.version != self.version:
            self.version = self.progress.version
            self.worker.telemetry.theta(self.version, time())
        self._back()
        self.show(self.progress)
        return len(appended), took

    def _report(self) -> None:
        """Set what the metrics and the probes show."""
        lag, assigned = self.log.lag(), self.log.assigned()
        self.health.alive()
        self._back()
        self.worker.telemetry.lag({(self.topics[topic], p): events for (topic, p), events in lag.items()})
        self.worker.telemetry.skipped(sum(self.log.skipped.values()))
        behind, unknown = sum(lag.values()), len(assigned - {partition for _, partition in lag})
        known = f", and how far in {unknown} more is not known yet" if unknown else ""
        self.health.say(
            "lag",
            behind <= self.ready_lag and not unknown,
            f"{behind:,} events behind in {len(assigned) - unknown} partitions{known}",
        )

    def _away(self, error: Unavailable) -> None:
        self.away = told_away(error, self.away, self.health, self.say)

    def _back(self) -> None:
        if self.away:
            self.say("going on")
        self.away = ""
        self.health.say("servers", True, "answer")
