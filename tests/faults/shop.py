"""A small stream in a file, with its settings, for programs on real files and LMDB."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from benchmarks.fault_deployment import SMALL_TASKS
from engine.types import Outcome
from streams.assembly.embedded import embedded
from streams.logs.output import TOPICS
from streams.program.embedded import Embedded, run, steps
from streams.settings.tree import Settings, load_settings
from tests.faults.model import NOT_PROMISED, Left, bits, told

CONFIG = f"""
[input]
path = "events.csv"
task = ["user"]
time = "at"
label = "bought"
label_time = "known_at"
{SMALL_TASKS}
[run]
directory = "state"
batch = 24
max_gib = 0.1
"""


def shop(directory: Path, observations: int = 300, seed: int = 0) -> Settings:
    """Write a table of observations with delayed labels, and settings beside it."""
    rng = np.random.default_rng(seed)
    at = np.sort(rng.integers(0, 4 * observations, observations))
    columns: dict[str, Any] = {
        "user": [f"user {n}/{{}}" for n in rng.integers(0, 8, observations)],
        "at": at,
        "a": rng.normal(size=observations).round(3),
        "b": rng.normal(size=observations).round(3),
        "bought": rng.choice(np.array(["x", "y", None]), observations, p=[0.5, 0.4, 0.1]),
        "known_at": at + rng.integers(0, 60, observations),
    }
    pl.DataFrame(columns, strict=False).write_csv(directory / "events.csv")
    (directory / "shop.toml").write_text(CONFIG)
    return settings_of(directory)


def settings_of(directory: Path) -> Settings:
    return load_settings(directory / "shop.toml", {})


def run_to_the_end(settings: Settings) -> Left:
    """Run the program in this process, as far as its log goes."""
    program = embedded(settings)
    try:
        run(program, lambda progress: None)
        return left(program)
    finally:
        program.close()


def stop_after(settings: Settings, batches: int) -> None:
    """Run the program, but for no more than some batches."""
    program = embedded(settings)
    for _, _ in zip(range(batches), steps(program), strict=False):
        pass
    program.close()


def keeping_nothing(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Prune often, all but what a restart needs."""
    for name in (
        "streams.program.pruning.FRESH",
        "streams.program.pruning.RECENT",
        "streams.program.embedded.EVERY",
    ):
        monkeypatch.setattr(name, 2)
    return settings.model_copy(update={"outer": settings.outer.model_copy(update={"keep_gib": 0.0})})


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file of a state directory; but LMDB's lock, which tells who reads."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "lock.mdb"
    }


def what_is_left(settings: Settings) -> Left:
    """What lies in a state directory."""
    program = embedded(settings)
    try:
        return left(program)
    finally:
        program.close()


def left(program: Embedded) -> Left:
    table = program.store.load(program.engine.layout, users(program))
    names = [name for name in table.rows.dtype.names or () if name not in NOT_PROMISED]
    versions = [program.trainer.store.load(v) for v in sorted(program.trainer.store.sizes())]
    return Left(
        {user: {n: row[n].tobytes() for n in names} for user, row in zip(table.ids, table.rows, strict=True)},
        {topic: frozenset(program.outputs[topic].read(0, 10**6)[0]) for topic in TOPICS},
        [(bits(v.params), bits(v.trainer), told(v.numbers)) for v in versions],
        dict(program.store.adoptions()),
    )


def users(program: Embedded) -> list[str]:
    records = program.log
    records.seek(0)
    found = {record.task for polled in records.poll(records.end()) for record in polled.records}
    return sorted(found - {None})


def counts(settings: Settings) -> dict[str, tuple[int, int]]:
    """Observations and labels that each row has counted."""
    program = embedded(settings)
    try:
        table = program.store.load(program.engine.layout, users(program))
        folded = table.rows["counts"]
        labels = [Outcome.SCORED, Outcome.LATE, Outcome.ORPHAN]
        return {
            user: (int(folded[u, Outcome.PREDICTED]), int(folded[u, labels].sum()))
            for u, user in enumerate(table.ids)
        }
    finally:
        program.close()


def counts_of_input(settings: Settings) -> dict[str, tuple[int, int]]:
    """The same numbers by a group-by of the table."""
    assert settings.input
    table = pl.read_csv(settings.input.path).group_by("user").agg(pl.len(), pl.col("bought").count())
    return {user: (rows, labels) for user, rows, labels in table.rows()}
