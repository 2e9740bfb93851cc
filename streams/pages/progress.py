"""Progress on long work: on a terminal a bar or a status line; in a log, a line now and then."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread
from time import monotonic

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from streams.events.wording import utc
from streams.pages.kit.phrases import duration, percent
from streams.program.progress import Progress

Show = Callable[[int, Progress], None]
Clock = Callable[[], float]

TOLD_EVERY_S = 30.0
"""How often a log is told."""


def now_and_then(
    say: Callable[[str], None], every_s: float = TOLD_EVERY_S, clock: Clock = monotonic
) -> Callable[[Callable[[], str]], None]:
    """A callable that says words, when the last are long enough ago."""
    told = clock()

    def show(words: Callable[[], str]) -> None:
        """Say it, if it is time."""
        nonlocal told
        if clock() - told >= every_s:
            told = clock()
            say(words())

    return show


@contextmanager
def progress_bar(console: Console, title: str, total: int, clock: Clock = monotonic) -> Iterator[Show]:
    """A bar of `total` steps; the callable it yields takes the position and the totals."""
    if not console.is_terminal:
        tell = now_and_then(console.print, clock=clock)
        yield lambda position, totals: tell(
            lambda: (
                f"{title}: {position:,} of {total:,} ({percent(position / max(total, 1))})  {said_of(totals)}"
            )
        )
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[said]}"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=console, refresh_per_second=4) as bar:
        line = bar.add_task(title, total=total, said="")
        yield lambda position, totals: bar.update(line, completed=position, said=said_of(totals))


@contextmanager
def working(
    console: Console,
    what: str,
    clock: Clock = monotonic,
    wait: Callable[[Event, float], bool] = Event.wait,
) -> Iterator[Callable[[str], None]]:
    """Say that something is done which may take long; the callable it yields says how far it is.

    `wait` waits until the work has ended or so many seconds have passed, and returns whether it has ended.
    """
    if console.is_terminal:
        with console.status(what) as status:
            yield status.update
        return
    words, ended, started, say = [what], Event(), clock(), console.print

    def tell() -> None:
        """Say how far it is, every now and then."""
        while not wait(ended, TOLD_EVERY_S):
            say(f"{words[-1]} ({duration(clock() - started)})")

    telling = Thread(target=tell, name="progress", daemon=True)
    telling.start()
    try:
        yield lambda said: words.__setitem__(-1, said)
    finally:
        ended.set()
        telling.join()


def said_of(totals: Progress) -> str:
    """The running totals in a line."""
    parts = [f"{totals.events / max(totals.seconds, 1e-9):,.0f}/s"]
    if totals.until_s:
        parts.append(f"to {utc(totals.until_s)}")
    if totals.version:
        parts.append(f"theta {totals.version}  lift {totals.lift:+.4f}  drifts {totals.alarms:,}")
    if totals.rejected:
        parts.append(f"refused {totals.rejected:,}")
    return "  ".join(parts)
