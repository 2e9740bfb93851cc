"""Rows made anew from the log: the way out when a row is damaged, or the row layout has changed.

The adoption table says under which theta every event was folded, so the rows come out as they were.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from streams.logs.base import ONLY
from streams.logs.output import Silence
from streams.outputs import TOPICS, DeadLetterLines
from streams.run import Progress
from streams.settings import Settings
from streams.wiring import embedded


def rebuild(settings: Settings, show: Callable[[int, Progress], None]) -> int:
    """Fold the log again, as far as it was folded; returns the number of rows."""
    program = embedded(settings)
    try:
        outputs = replace(
            program.worker.outputs,
            logs=dict.fromkeys(TOPICS, Silence()),
            dead_letters=DeadLetterLines(Silence(), program.log.origin),
        )
        worker = replace(program.worker, outputs=outputs)
        worker.theta.get(worker.theta.current())  # refused before anything is cleared
        through = program.log.committed()
        # First: a crash from here on leaves no position above what the rows hold.
        program.log.commit({ONLY: 0})
        program.store.clear()
        program.log.seek(0)
        progress = Progress()
        while (left := through - program.log.position()) > 0 and (step := worker.step(left)) is not None:
            progress.add(step)
            show(program.log.position(), progress)
        return sum(1 for _ in program.store.tasks())
    finally:
        program.close()
