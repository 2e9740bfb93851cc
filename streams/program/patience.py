"""What a process does while a server is away: it asks again, until it is answered or told to stop."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event
from time import monotonic, sleep
from types import FrameType
from typing import TypeVar

from streams.errors import Unavailable
from streams.watch.health import Health

T = TypeVar("T")

RETRY_S, LONGEST_RETRY_S = 0.25, 1.0
"""Before the first new attempt, and at most before a later one: each wait is twice the one before."""
STARTS_S = 5.0
"""How long a role that starts waits for its servers: as long as a restart takes, and not as a wrong address would."""

ALIVE_EVERY_S = 1.0
"""Whoever waits for longer says so often that it is alive."""


class Stopped(Exception):
    """The process was told to stop while a server was away; nothing is lost."""


def patiently(
    action: Callable[[], T],
    stopping: Event,
    wait: Callable[[float], object],
    told: Callable[[Unavailable], None],
) -> T:
    """Do something until no server is away, or full.

    Raises:
        Stopped: the process is to stop first.

    """
    pause_s = RETRY_S
    while True:
        try:
            return action()
        except Unavailable as error:
            told(error)
        if stopping.is_set():
            raise Stopped
        try:
            wait(pause_s)
        except Unavailable:
            stopping.wait(pause_s)
        pause_s = min(2 * pause_s, LONGEST_RETRY_S)


def pause(seconds: float, stopping: Event, health: Health) -> None:
    """Wait until it is time or the process is to stop, and be alive meanwhile, however long that is."""
    until = monotonic() + seconds
    while not stopping.is_set() and (left := until - monotonic()) > 0:
        health.alive()
        stopping.wait(min(left, ALIVE_EVERY_S))


def made(
    make: Callable[[], T], clock: Callable[[], float] = monotonic, wait: Callable[[float], object] = sleep
) -> T:
    """Do what a role begins with; a server that is restarted meanwhile makes no difference, one that stays away does.

    Raises:
        Unavailable: a server was away for longer than `STARTS_S`.

    """
    until = clock() + STARTS_S

    def give_up(error: Unavailable) -> None:
        """Not before it is time."""
        if clock() > until:
            raise error

    return patiently(make, Event(), wait, give_up)


def told_away(error: Unavailable, before: str, health: Health, say: Callable[[str], None]) -> str:
    """A server is away: be alive and not ready, and say why, unless that was said before; returns why."""
    why = str(error)
    health.alive()
    health.say("servers", False, why)
    if why != before:
        say(f"waiting: {why}")
    return why


@contextmanager
def stopping_on_signals() -> Iterator[Event]:
    """An event that SIGTERM or SIGINT sets; a second one ends the process at once."""
    stopping = Event()

    def stop(number: int, _: FrameType | None) -> None:
        """Answer the first signal; the next one of its kind finds no handler."""
        stopping.set()
        signal.signal(number, signal.SIG_DFL)

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
