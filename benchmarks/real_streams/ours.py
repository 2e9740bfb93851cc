"""The embedded program on a stream, as `reptide run` runs it, and what it said of each label."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np

from benchmarks.real_streams.judge import Predicted
from benchmarks.real_streams.prepared import Prepared
from benchmarks.real_streams.sources import Source
from engine.types import PREDICTORS, Bool
from streams.assembly.embedded import embedded
from streams.pages.run.evaluation import scores_of
from streams.program.embedded import run
from streams.settings.tree import load_settings
from streams.system.collector import leave_imports_out
from streams.system.machine import keep_freed_memory

FEW = 300
"""Rows after which every part of the program has run: tasks have adapted, and theta was trained and judged."""


@dataclass(frozen=True)
class Ours:
    """What the program said of the labels that it scored."""

    scored: Bool
    """[L] labels that met their observation."""
    predictors: dict[str, Predicted]
    """Of all L labels; zero where none was scored."""
    events_per_s: float
    """By the processor's time, from the first event to the last; outputs, rows and rounds of the trainer included.

    What a process loads once, modules and machine code, is loaded before.
    """


def load_all(source: Source, folder: Path) -> None:
    """Run the first rows of a stream as a command would, so that all that is loaded at first events is there."""
    keep_freed_memory()
    program = embedded(load_settings(source.write(folder, FEW), {}))
    run(program, lambda _: None)
    program.close()
    shutil.rmtree(folder)
    leave_imports_out()


def streamed(stream: Prepared, folder: Path, name: str, changes: Mapping[str, Any] | None = None) -> Ours:
    """Run a stream written to `folder`, with `changes` to the defaults; the state is dropped afterwards."""
    program = embedded(load_settings(stream.source.settings(folder, name, changes or {}), {}))
    try:
        began = process_time()
        events = run(program, lambda _: None).events
        return _collected(stream, program, events / (process_time() - began))
    finally:
        program.close()
        shutil.rmtree(folder / name, ignore_errors=True)


def _collected(stream: Prepared, program: Any, events_per_s: float) -> Ours:
    labels, outputs = len(stream.y), stream.target.outputs
    scored = np.zeros(labels, np.bool_)
    prediction = np.zeros((len(PREDICTORS), labels, outputs), np.float32)
    loss = np.zeros((len(PREDICTORS), labels))
    for part in scores_of(program.outputs["scores"], stream.target):
        place = np.searchsorted(stream.offset, part.offset)
        scored[place] = True
        prediction[:, place] = part.labels.prediction.transpose(1, 0, 2)
        loss[:, place] = part.labels.loss.T
    return Ours(
        scored,
        {name: Predicted(prediction[k], loss[k]) for k, name in enumerate(PREDICTORS)},
        events_per_s,
    )
