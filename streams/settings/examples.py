"""The settings `[examples]`, where labelled examples lie, and `[episodes]`, how they are cut and trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from streams.settings.base import Section


class Examples(Section):
    """A table (CSV, JSONL, Parquet), arrays (`.npz`), or a folder of images: FOLDER/CLASS/, or FOLDER/TASK/CLASS/.

    Arrays are named: `x` [n, ...] and `y` [n], and where there are any `task` [n] and `time` [n].
    """

    path: Path
    task: tuple[str, ...] = ()
    """Column or columns of a table that name the task. Without it all examples are of one task."""
    label: str | None = None
    """Column of a table."""
    time: str | None = None
    """Column of a table: event time. Only temporal episodes need it."""
    side: int = Field(28, ge=1)
    """Images of a folder are scaled to squares of so many pixels ..."""
    channels: Literal[1, 3] = 1
    """... and are read as grey, or as red, green and blue."""


class Episodes(Section):
    """How episodes are cut, and how theta is trained and judged on them.

    With `ways`, an episode tells so many classes apart, drawn from all classes of one task; then `target` is left
    out. Without, an episode is of one task (a user, a device), whose classes or range `target` gives.
    """

    ways: int | None = Field(None, ge=2)
    shots: int = Field(5, ge=1)
    """Support examples: of each class with `ways` or `balanced`, else in all."""
    queries: int = Field(15, ge=1)
    """Query examples: of each class with `ways`, else in all."""
    temporal: bool = False
    """Whether the support set is what came right before the queries."""
    balanced: bool = False
    held_out: float = Field(0.2, gt=0, lt=1)
    """Share that `evaluate` judges on, and nothing else looks at: of tasks; of classes where there is one task."""
    validation: float = Field(0.1, ge=0, lt=1)
    """Share that judges theta while it is trained, and step sizes of baselines; it is not trained on either."""
    augment: tuple[Literal["rotate", "shift", "permute", "noise", "mixup"], ...] = ()
    """What is done to training episodes, in this order; see `engine.episodes.augment`."""
    noise: float = Field(0.1, gt=0)
    """Of `augment = ["noise"]`: standard deviation, in those of each number; for images in units of a pixel."""
    rounds: int = Field(1000, ge=1)
    tasks: int = Field(16, ge=1)
    """Episodes of one batch; of each process."""
    accumulate: int = Field(1, ge=1)
    """Batches of one round."""
    every: int = Field(100, ge=1)
    """After so many rounds theta is judged and training saved."""
    judged: int = Field(200, ge=1)
    """Validation episodes of one judgement."""
    patience: int = Field(0, ge=0)
    """Training ends after so many judgements without a better one; 0 never ends it."""
    judged_shots: tuple[int, ...] = ()
    """Shots that `evaluate` judges with; `shots` where it is not given. SNAIL has room for the largest: another
    largest is another theta."""
    steps: tuple[int, ...] = Field((0, 1, 5, 10), min_length=1)
    """Inner steps that `evaluate` judges after, rising."""

    @model_validator(mode="after")
    def _judged_in_order(self) -> Self:
        if min(self.steps) < 0 or list(self.steps) != sorted(set(self.steps)):
            raise ValueError(f"steps must rise from 0 or more, got {list(self.steps)}")
        if min(self.judged_shots, default=1) < 1 or len(set(self.judged_shots)) < len(self.judged_shots):
            raise ValueError(f"judged_shots must be different and positive, got {list(self.judged_shots)}")
        return self
