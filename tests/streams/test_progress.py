"""Long work in a log says how far it is, now and then."""

from __future__ import annotations

from functools import partial
from io import StringIO
from queue import Queue
from threading import Event

from rich.console import Console

from streams.pages.progress import TOLD_EVERY_S, now_and_then, progress_bar, working
from streams.program.progress import Progress


def of_a_log() -> tuple[Console, StringIO]:
    file = StringIO()
    return Console(file=file, force_terminal=False, soft_wrap=True, markup=False), file


def test_a_stream_in_a_log_says_a_line_every_half_minute() -> None:
    console, file = of_a_log()
    now = [0.0]
    with progress_bar(console, "flights", 4000, clock=lambda: now[0]) as show:
        for position in range(0, 4000, 1000):
            show(position, Progress(events=position, seconds=now[0]))
            now[0] += 0.6 * TOLD_EVERY_S
    assert file.getvalue().splitlines() == ["flights: 2,000 of 4,000 (50.0%)  56/s"]


def test_what_is_said_now_and_then_is_the_latest() -> None:
    now, said = [0.0], list[str]()
    tell = now_and_then(said.append, 10.0, lambda: now[0])
    for second in range(25):
        now[0] = float(second)
        tell(partial("at {}".format, second))
    assert said == ["at 10", "at 20"]


def test_work_that_says_nothing_by_itself_is_said_to_go_on() -> None:
    console, file = of_a_log()
    asked, told = Queue[float](), Queue[bool]()

    def wait(ended: Event, seconds: float) -> bool:
        asked.put(seconds)
        return told.get()

    now = [0.0]
    with working(console, "looking at the table", lambda: now[0], wait) as say:
        assert asked.get() == TOLD_EVERY_S
        now[0] = 30.0
        told.put(False)
        asked.get()  # the line was said
        say("rebuilding: 7 events")
        now[0] = 60.0
        told.put(False)
        asked.get()
        told.put(True)
    assert file.getvalue().splitlines() == ["looking at the table (30 s)", "rebuilding: 7 events (60 s)"]


def test_short_work_says_nothing_in_a_log() -> None:
    console, file = of_a_log()
    with working(console, "looking at the table"):
        pass
    assert file.getvalue() == ""


def test_on_a_terminal_there_is_a_bar() -> None:
    file = StringIO()
    console = Console(file=file, force_terminal=True, width=80)
    with progress_bar(console, "flights", 10) as show:
        show(10, Progress(events=10, seconds=1.0))
    assert "10/10" in file.getvalue()
