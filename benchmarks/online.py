"""Measure what one event costs in Python: `reptide.Online`, one observation and its label at a time.

A model that has seen some events of each task, then pairs of `predict_one` and `learn_one` in a random order of
tasks: 8 numbers and 2 categories, two classes, the defaults for everything else. CPU time of the process, all that a
call does in it: decoding, the fold, adaptations, and the rounds of the trainer as they fall due, shown apart.
"""

from __future__ import annotations

from collections.abc import Callable
from time import process_time_ns
from typing import Any

import numpy as np
import torch

from benchmarks.reporting import arguments, show, write
from reptide import Category, Classification, Numeric, Online

TASKS = (1_000, 20_000)
NUMBERS, CATEGORIES, PLACES = 8, 2, 50
PAIRS, EACH = 4_000, 8
"""Pairs that are measured, and observations of a task before these."""


class Timed:
    """CPU time of calls, in milliseconds."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function, self.ms = function, list[float]()

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Call the function."""
        began = process_time_ns()
        result = self.function(*arguments, **named)
        self.ms.append((process_time_ns() - began) / 1e6)
        return result


def events(tasks: int, count: int, seed: int) -> list[dict[str, Any]]:
    """Observations of tasks that differ in what makes their label."""
    drawn, taste = np.random.default_rng(seed), np.random.default_rng(3).normal(size=(tasks, NUMBERS))
    task, x = drawn.integers(0, tasks, count), drawn.normal(size=(count, NUMBERS))
    places = drawn.integers(0, PLACES, (count, CATEGORIES))
    label = np.einsum("nf,nf->n", x, taste[task]) + places[:, 0] % 2 + drawn.normal(size=count) > 0
    return [
        {
            "task": f"user-{u}", "id": f"{seed}-{n}", "label": "yes" if y else "no",
            **{f"n{i}": value for i, value in enumerate(row)}, **{f"c{i}": at for i, at in enumerate(of)},
        }
        for n, (u, y, row, of) in enumerate(
            zip(task.tolist(), label.tolist(), x.tolist(), places.tolist(), strict=True)
        )
    ]  # fmt: skip


def warm(tasks: int, each: int) -> Online:
    """A model that has learned from so many events of each task."""
    columns = [Numeric(f"n{i}") for i in range(NUMBERS)] + [Category(f"c{i}") for i in range(CATEGORIES)]
    model = Online(columns, Classification(("no", "yes")))
    rows = events(tasks, tasks * each, seed=1)
    for start in range(0, len(rows), 2_048):
        part = [row | {"at": float(start + n)} for n, row in enumerate(rows[start : start + 2_048])]
        model.predict_many(part, task="task", id="id", at="at")
        model.learn_many(part, task="task", label="label", id="id", at="at")
    return model


def measure(tasks: int, each: int, pairs: int) -> dict[str, float]:
    """CPU milliseconds of a pair, of each of the two, and of the rounds among them."""
    model = warm(tasks, each)
    model._train = rounds = Timed(model._train)  # type: ignore[method-assign]  # noqa: SLF001
    predict, learn = Timed(model.predict_one), Timed(model.learn_one)
    began = process_time_ns()
    for n, row in enumerate(events(tasks, pairs, seed=2)):
        at = 1e6 + n
        predict(row["task"], row, id=row["id"], at=at)
        learn(row["task"], row["label"], id=row["id"], at=at + 0.5)
    whole = (process_time_ns() - began) / 1e6
    trained = sum(rounds.ms)
    return {
        "pair_ms": whole / pairs,
        "pair_without_rounds_ms": (whole - trained) / pairs,
        "predict_ms": float(np.mean(predict.ms)),
        "predict_p50_ms": float(np.median(predict.ms)),
        "learn_ms": float(np.mean(learn.ms)),
        "learn_p50_ms": float(np.median(learn.ms)),
        "round_ms": trained / max(len(rounds.ms), 1),
    }


def main() -> None:
    """Measure few tasks and many."""
    options = arguments(__doc__.splitlines()[0])
    torch.set_num_threads(1)
    pairs, each = (200, 1) if options.quick else (PAIRS, EACH)
    found = {tasks: measure(tasks, each, pairs) for tasks in (TASKS[:1] if options.quick else TASKS)}
    names = list(found[TASKS[0]])
    show(
        f"one event in Python: CPU milliseconds, mean of {pairs:,} pairs",
        ["tasks", *names],
        [[f"{tasks:,}", *figures.values()] for tasks, figures in found.items()],
    )
    figures = {f"{tasks}.{name}": value for tasks, of in found.items() for name, value in of.items()}
    figures["x_tasks"] = found[max(found)]["pair_ms"] / found[min(found)]["pair_ms"]
    write(options.json, figures)


if __name__ == "__main__":
    main()
