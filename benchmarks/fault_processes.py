"""Real processes for the fault benchmark: the command `reptide`, forked from a server that has imported it.

A process may be told to send itself a signal just before its next effect of one kind: where a batch is half
done is when death hurts. What is patched is only that moment; the effects are the real ones.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Sequence
from multiprocessing.sharedctypes import RawArray
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import torch

from streams.cli import app
from streams.logs.kafka.log import KafkaLog
from streams.logs.kafka.outputs import KafkaOutputs
from streams.logs.kafka.reader import KafkaTopicReader
from streams.stores.redis.rows import RedisStore
from streams.stores.redis.versions import RedisMeta

OF_WORKERS: dict[str, tuple[Any, str]] = {
    "adopt": (RedisStore, "adopt"),
    "load": (RedisStore, "load"),
    "produce": (KafkaOutputs, "send"),
    "sync": (KafkaOutputs, "sync"),
    "swap": (RedisStore, "swap"),
    "commit": (KafkaLog, "commit"),
}
OF_TRAINERS: dict[str, tuple[Any, str]] = {
    "read": (KafkaTopicReader, "read"),
    "write": (RedisMeta, "_write"),
    "show": (RedisMeta, "_move"),
}
"""A version of theta is written, waited for, then shown."""
EFFECTS = OF_WORKERS | OF_TRAINERS
NAMES = tuple(EFFECTS)

FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(["benchmarks.fault_processes", "streams.cli.serving", "engine.stream.scan"])

PATIENCE_S = 6.0
"""A process without partitions comes to no effect: it gets the signal from outside after so long."""
PAUSE_S = 0.02
EXIT_S = 20.0
NOTHING = -1
AWAY = "does not answer"


def live(arguments: Sequence[str], output: Path, wish: Any) -> None:
    """Be the command, until the wished moment."""
    written = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(written, sys.stdout.fileno())
    os.dup2(written, sys.stderr.fileno())
    for number, (owner, name) in enumerate(EFFECTS.values()):
        setattr(owner, name, _heeding(getattr(owner, name), number, wish))
    sys.argv = ["reptide", *arguments]
    torch.set_num_threads(1)  # the command asks for it in the environment, which torch has read by now
    app.main()


def _heeding(effect: Callable[..., Any], number: int, wish: Any) -> Callable[..., Any]:
    def call(*arguments: Any, **options: Any) -> Any:
        if wish[0] == number:
            wish[0] = NOTHING
            os.kill(os.getpid(), wish[1])
        result = effect(*arguments, **options)
        wish[2] += 1
        return result

    return call


class Process:
    """One running command; what it says is in the file `output`."""

    def __init__(self, arguments: Sequence[str], output: Path) -> None:
        self.output = output
        self._wish = RawArray("i", [NOTHING, 0, 0])
        self._process = FORKED.Process(target=live, args=(arguments, output, self._wish))
        self._process.start()

    @property
    def status(self) -> int | None:
        """The exit status; negative for a signal, None while it runs."""
        return self._process.exitcode

    @property
    def gave_up_at_its_start(self) -> bool:
        """Whether it ended since a server was away for longer than a role that starts waits for one.

        A role that has started waits for ever.
        """
        return self.status == 1 and any(AWAY in line for line in self.output.read_text().splitlines()[-1:])

    def signal(self, number: int) -> None:
        """Send a signal."""
        os.kill(self._process.pid or 0, number)

    def signal_before(self, effect: str, number: int) -> bool:
        """Have it end or stop itself before its next such effect; false where it came to none, and was signalled."""
        self._wish[1] = number
        self._wish[0] = NAMES.index(effect)
        deadline = monotonic() + PATIENCE_S
        while self._wish[0] != NOTHING and self.status is None and monotonic() < deadline:
            sleep(PAUSE_S)
        came = bool(self._wish[0] == NOTHING)
        self._wish[0] = NOTHING
        if not came:
            self.signal(number)
        return came

    def wait_for_an_effect(self) -> None:
        """Wait until it has come to one more effect.

        Raises:
            TimeoutError: it has not.

        """
        before, deadline = self._wish[2], monotonic() + EXIT_S
        while self._wish[2] == before:
            if monotonic() > deadline:
                raise TimeoutError(f"one that goes on does nothing: {self.output.read_text()}")
            sleep(PAUSE_S)

    def must_end(self, status: int) -> None:
        """Wait for its end.

        Raises:
            RuntimeError: it has another exit status, or did not end in time.

        """
        self._process.join(EXIT_S)
        if self.status != status:
            raise RuntimeError(f"it ended with {self.status}, not {status}: {self.output.read_text()}")

    def kill(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        self._process.join()


class Crew:
    """The workers and the trainer that are to be alive."""

    def __init__(self, config: Path, directory: Path) -> None:
        self.members: list[Process] = []
        self._config, self._directory, self._started = config, directory, 0
        self.trainer = self._process("trainer")

    def start(self) -> None:
        """Start one more worker."""
        self.members.append(self._process("worker"))

    def leave(self, worker: Process, status: int) -> None:
        """Take leave of a worker that is to end with this exit status."""
        worker.must_end(status)
        self.members.remove(worker)

    def replace_trainer(self) -> None:
        """Start another trainer in the place of one that was killed."""
        self.trainer.must_end(-signal.SIGKILL)
        self.trainer = self._process("trainer")

    def start_again(self) -> int:
        """Start in their place, as a supervisor does, those that gave up at their start; returns how many."""
        given_up = [process for process in self.all() if process.gave_up_at_its_start]
        for process in given_up:
            if process is self.trainer:
                self.trainer = self._process("trainer")
            else:
                self.members.remove(process)
                self.start()
        return len(given_up)

    def dead(self) -> list[Process]:
        """Those that ended by themselves."""
        return [process for process in self.all() if process.status is not None]

    def all(self) -> list[Process]:
        """The trainer and the workers."""
        return [self.trainer, *self.members]

    def kill(self) -> None:
        """End all of them, whatever they do."""
        for process in self.all():
            process.kill()

    def _process(self, role: str) -> Process:
        self._started += 1
        return Process([role, str(self._config)], self._directory / f"{role}-{self._started}.log")
