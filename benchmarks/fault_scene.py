"""A deployment under load, and what befalls it: the faults of the benchmark, one method each."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from copy import copy
from dataclasses import dataclass, field
from math import inf
from time import monotonic, sleep

import numpy as np

from benchmarks.fault_audit import behind, unlearned
from benchmarks.fault_deployment import Served
from benchmarks.fault_load import Count, Load
from benchmarks.fault_processes import OF_TRAINERS, OF_WORKERS, Crew, Process
from streams.errors import Unavailable
from streams.testing.servers import Server

STUCK_S = 40.0
"""A group that folded nothing for so long will not: it takes less to notice a death and give its partitions away."""
SLOW_S = 180.0
"""A trainer that published nothing for so long will not: it may make a version of thousands of labels."""
PAUSE_S = 0.2
DOWN_S = 8.0
"""A node that is down for so long is missed by the others: its session has expired."""
SETTLED_S = 20.0
"""By then every death was noticed and every partition given away. Where the leader of a group leaves in the midst
of that, Kafka makes another member the leader at once; with Tansu 0.6 nobody reads for half a minute or more."""
FORGOTTEN_S = 1.0
"""What a Redis with `appendfsync everysec` may forget in a power cut. A worker that dies just then cannot remind it
of what it had adopted, and what it said may come again otherwise: not promised, so no other fault comes so close."""


@dataclass
class Scene:
    """The deployment under load, and the faults that befall it."""

    servers: Served
    crew: Crew
    load: Load
    rng: np.random.Generator
    happened: Counter[str] = field(default_factory=Counter)

    def kill(self) -> None:
        """Kill a worker: at any moment, or in the middle of a batch."""
        worker = self._victim()
        if self.rng.random() < 0.5:
            worker.signal(signal.SIGKILL)
        elif worker.signal_before(str(self.rng.choice(list(OF_WORKERS))), signal.SIGKILL):
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
        self.servers.redis.kill()
        self.servers.redis.start()
        self.happened["redis_restarts"] += 1

    def cut_power_of_redis(self) -> None:
        """The same, but the files lack what came in the last second."""
        file = max(self.servers.redis_files.rglob("*.aof"), key=lambda path: path.stat().st_mtime)
        kept = file.stat().st_size
        sleep(FORGOTTEN_S)
        self.servers.redis.kill()
        os.truncate(file, kept)
        self.servers.redis.start()
        sleep(FORGOTTEN_S)
        self.happened["redis_power_cuts"] += 1

    def kill_trainer(self) -> None:
        """Kill the trainer: at any moment, or in the middle of a version; its successor makes the next one."""
        self._supervise()
        if self.rng.random() < 0.5:
            self.crew.trainer.signal(signal.SIGKILL)
        elif self.crew.trainer.signal_before(str(self.rng.choice(list(OF_TRAINERS))), signal.SIGKILL):
            self.happened["trainer_kills_within_a_version"] += 1
        self.crew.replace_trainer()
        self.wait_for_a_version()
        self.happened["trainer_kills"] += 1

    def kill_broker(self) -> None:
        """Kill a node, every other time the controller, and start it on its files."""
        node = self._node(controller=self.happened["broker_kills"] % 2 == 0)
        node.kill()
        sleep(DOWN_S)
        node.start()
        self.happened["broker_kills"] += 1

    def restart_broker(self) -> None:
        """Stop a node as an operator does, and start it."""
        node = self._node()
        node.terminate()
        node.start()
        self.happened["broker_restarts"] += 1

    def stall_broker(self, seconds: float) -> None:
        """Stop a node for a while; leader it was, the others go on without it."""
        with self._node().stalled():
            sleep(seconds)
        self.happened["broker_stalls"] += 1

    def stall_brokers(self, seconds: float) -> None:
        """Stop all nodes for a while."""
        with ExitStack() as stack:
            for node in self.servers.brokers.nodes:
                stack.enter_context(node.stalled())
            sleep(seconds)
        self.happened["cluster_stalls"] += 1

    def _node(self, controller: bool = False) -> Server:
        """One that the others can do without."""
        self.servers.brokers.wait_until_in_sync(self.servers.deployment.topics.all())
        if controller:
            self.happened["controller_kills"] += 1
            return self.servers.brokers.controller()
        return self.servers.brokers.nodes[int(self.rng.integers(len(self.servers.brokers.nodes)))]

    def join(self) -> None:
        """Let one more worker join."""
        self.crew.start()
        self.happened["joins"] += 1

    def leave(self) -> None:
        """Let a worker leave, once the group has settled, and another join in its place."""
        sleep(SETTLED_S)
        worker = self._victim()
        worker.signal(signal.SIGTERM)
        self.crew.leave(worker, 0)
        self.crew.start()
        self.happened["leaves"] += 1

    def become(self, workers: int) -> None:
        """Let workers join or leave, all at once, until there are so many."""
        while len(self.crew.members) < workers:
            self.crew.start()
        leaving = self.crew.members[workers:]
        for worker in leaving:
            worker.signal(signal.SIGTERM)
        for worker in leaving:
            self.crew.leave(worker, 0)

    def wait_until_folded(self) -> float:
        """Wait until all that was acknowledged by now is folded, or nothing more is; returns how long that took.

        Raises:
            RuntimeError: a worker ended by itself.

        """
        sent: Count = copy(self.load.ledger.events)
        return self._wait(lambda: behind(self.servers.deployment, sent))

    def wait_for_a_version(self) -> None:
        """Wait until a version of theta is published, unless none is for long."""
        seen: set[int] = set()

        def none_yet() -> int:
            seen.add(self.servers.deployment.versions.current())
            return int(len(seen) == 1)

        self._wait(none_yet, SLOW_S)

    def wait_until_learned(self) -> float:
        """Wait until the trainer has learned from every label there is, or learns no more; returns how long."""
        return self._wait(lambda: unlearned(self.servers.deployment), SLOW_S)

    def _wait(self, count: Callable[[], int], stuck_s: float = STUCK_S) -> float:
        """Wait until what is left is nothing, or has not become less for so long."""
        began = advanced = monotonic()
        left = inf
        while left and monotonic() - advanced < stuck_s:
            sleep(PAUSE_S)
            self._supervise()
            if dead := self.crew.dead():
                raise RuntimeError(f"a process ended by itself: {dead[0].output.read_text()}")
            with suppress(Unavailable):
                still = count()
                advanced, left = (monotonic(), still) if still < left else (advanced, left)
        return monotonic() - began

    def _supervise(self) -> None:
        self.happened["starts_given_up"] += self.crew.start_again()

    def _victim(self) -> Process:
        self._supervise()
        return self.crew.members[int(self.rng.integers(len(self.crew.members)))]
