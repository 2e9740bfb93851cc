"""Measure what one score costs in process: from the row of a task in memory, and a mapping of fields, to a score.

`Engine.predict`, which changes nothing, for one observation at a time of a model that has learned from some events of
each task (those of `benchmarks.online`, 1,000 tasks in a random order), its features encoded from their fields first.

Beside it stands what the processor took meanwhile for a fixed piece of work, Python and numpy as a score is: where
two runs differ in both by as much, it is the machine that differs.
"""

from __future__ import annotations

from time import perf_counter_ns, process_time_ns
from typing import Any

import numpy as np
import torch

from benchmarks.online import EACH, events, warm
from benchmarks.reporting import arguments, show, write
from engine.stream.fold import Engine
from engine.stream.table import TaskTable, taken
from engine.types import Meta
from reptide import Online
from streams.program.theta import ThetaCache
from streams.system.collector import settle

TASKS, SCORES, WARM_UP = 1_000, 20_000, 200
"""Scores at first that are not counted: memory and code are taken up."""

BETWEEN = 50
"""Scores from one piece of fixed work to the next."""


def scored(engine: Engine, theta: Meta, row: TaskTable, fields: dict[str, Any], at: float) -> Any:
    """What is served for one observation."""
    x = engine.spec.problem.features.encode([fields]).x
    return engine.predict(row, x, theta, np.array([at])).served


def fixed_work() -> float:
    """Milliseconds of the processor for small arrays made and added up."""
    began = process_time_ns()
    for size in range(1, 101):
        np.zeros(size).sum()
    return (process_time_ns() - began) / 1e6


def measure(model: Online, scores: int) -> dict[str, float]:
    """Milliseconds of a score, CPU and wall, the median and the 99th of a hundred; and of the fixed work."""
    engine, store = model.engine, model.versions
    theta = ThetaCache(engine, store).get(store.current())
    cpu, wall, fixed = [], [], []
    settle()  # as a stream does
    for n, fields in enumerate(events(TASKS, scores + WARM_UP, seed=2)):
        if n % BETWEEN == 0:
            fixed.append(fixed_work())
        index = np.array([model.row(fields["task"])])
        row = TaskTable(engine.layout, (fields["task"],), taken(model.rows, index))
        began, by_cpu = perf_counter_ns(), process_time_ns()
        scored(engine, theta, row, fields, 1e6 + n)
        cpu.append((process_time_ns() - by_cpu) / 1e6)
        wall.append((perf_counter_ns() - began) / 1e6)
    return {
        f"{kind}_p{share}_ms": float(np.percentile(times[WARM_UP:], share))
        for kind, times in (("cpu", cpu), ("wall", wall))
        for share in (50, 99)
    } | {"fixed_work_p50_ms": float(np.median(fixed))}


def main() -> None:
    """Measure scores of one model."""
    options = arguments(__doc__.splitlines()[0])
    torch.set_num_threads(1)
    figures = measure(warm(TASKS, 1 if options.quick else EACH), 500 if options.quick else SCORES)
    show("one score in process, milliseconds", list(figures), [list(figures.values())])
    write(options.json, figures)


if __name__ == "__main__":
    main()
