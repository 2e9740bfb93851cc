"""Progress on long work: a bar with rates, lift and drift counts while a stream runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from streams.run import Progress
from streams.words import utc

Show = Callable[[int, Progress], None]


@contextmanager
def progress_bar(console: Console, title: str, total: int) -> Iterator[Show]:
    """A bar of `total` steps; the callable it yields takes the position and the totals."""
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
