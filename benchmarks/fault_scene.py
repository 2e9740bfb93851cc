"""A deployment under load, and what befalls it: the faults of the benchmark, one method each."""

from __future__ import annotations

import os
import signal
from collections import Counter
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep

import numpy as np

from benchmarks.fault_audit import behind
from benchmarks.fault_load import Count, Load
from benchmarks.fault_processes import NAMES, Crew, Process
from streams.deployment import Deployment
from streams.errors import Unavailable
from streams.servers import Server

STUCK_S = 40.0
"""A group that folded nothing for so long will not: it takes less to notice a death and give its partitions away."""
PAUSE_S = 0.2
SETTLED_S = 20.0
"""By then every death was noticed and every partition given away. Where the leader of a group leaves in the midst
of that, Kafka makes another member the leader at once; with Tansu 0.6 nobody reads for half a minute or more."""
FORGOTTEN_S = 1.0
"""What a Redis with `appendfsync everysec` may forget in a power cut. A worker that dies just then cannot remind it
of what it had adopted, and what it said may come again otherwise: not promised, so no other fault comes so close."""


@dataclass
class Scene:
    """The deployment under load, and the faults that befall it."""

    deployment: Deployment
    crew: Crew
    broker: Server
    redis: Server
    redis_files: Path
    load: Load
    rng: np.random.Generator
    happened: Counter[str] = field(default_factory=Counter)

    def kill(self) -> None:
        """Kill a worker: at any moment, or in the middle of a batch."""
        worker = self._victim()
        if self.rng.random() < 0.5:
            worker.signal(signal.SIGKILL)
        elif worker.signal_before(str(self.rng.choice(NAMES)), signal.SIGKILL):
            self.happened["kills_within_a_batch"] += 1
        self.crew.leave(worker, -signal.SIGKILL)
        self.crew.start()
        self.happened["kills"] += 1

    def zombie(self) -> None:
        """Stop a worker with a batch in hand until others have folded it, then let it go on writing."""
        worker = self._victim()
        while not worker.signal_before(str(self.rng.choice(["produce", "sync", "swap"])), signal.SIGSTOP):
            worker.signal(signal.SIGCONT)
            worker = self._victim()
        self.wait_until_folded()
        worker.signal(signal.SIGCONT)
        worker.wait_for_an_effect()
        self.happened["zombies"] += 1

    def restart_redis(self) -> None:
        """Kill Redis and start it on its files."""
        self.redis.kill()
        self.redis.start()
        self.happened["redis_restarts"] += 1

    def cut_power_of_redis(self) -> None:
        """The same, but the files lack what came in the last second."""
        file = max(self.redis_files.rglob("*.aof"), key=lambda path: path.stat().st_mtime)
        kept = file.stat().st_size
        sleep(FORGOTTEN_S)
        self.redis.kill()
        os.truncate(file, kept)
        self.redis.start()
        sleep(FORGOTTEN_S)
        self.happened["redis_power_cuts"] += 1

    def stall_broker(self, seconds: float) -> None:
        """Stop the broker for a while."""
        with self.broker.stalled():
            sleep(seconds)
        self.happened["broker_stalls"] += 1

    def join(self) -> None:
        """Let one more worker join."""
        self.crew.start()
        self.happened["joins"] += 1

    def leave(self) -> None:
        """Let a worker leave, once the group has settled."""
        sleep(SETTLED_S)
        worker = self._victim()
        worker.signal(signal.SIGTERM)
        self.crew.leave(worker, 0)
        self.happened["leaves"] += 1

    def wait_until_folded(self) -> float:
        """Wait until all that was acknowledged by now is folded, or nothing more is; returns how long that took.

        Raises:
            RuntimeError: a worker ended by itself.

        """
        sent: Count = copy(self.load.ledger.events)
        began = advanced = monotonic()
        left = sent.total()
        while left and monotonic() - advanced < STUCK_S:
            sleep(PAUSE_S)
            if dead := self.crew.dead():
                raise RuntimeError(f"a worker ended by itself: {dead[0].output.read_text()}")
            with suppress(Unavailable):
                still = behind(self.deployment, sent)
                advanced, left = (monotonic(), still) if still < left else (advanced, left)
        return monotonic() - began

    def _victim(self) -> Process:
        return self.crew.members[int(self.rng.integers(len(self.crew.members)))]
