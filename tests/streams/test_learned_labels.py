"""A line of the `episodes` output says all that a label taught, and is read back as it was folded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pytest

from engine.fold import Folded
from engine.types import SERVED, EventBatch, Outcome
from streams.outputs import DIGITS, LearnedLabel, Outputs, kept, read_learned
from streams.run import steps
from tests.faults.model import GRID, World, label, observation, stream


class Fold(NamedTuple):
    events: EventBatch
    tasks: Sequence[str]
    folded: Folded


class Watched(Outputs):
    """Outputs that keep what they were given."""

    folds: list[Fold]

    def produce(self, events: Any, records: Any, tasks: Any, folded: Any) -> None:
        super().produce(events, records, tasks, folded)
        self.folds.append(Fold(events, tuple(tasks), folded))


RATE = 0.7


@pytest.fixture(scope="module")
def folded() -> tuple[list[Fold], list[LearnedLabel]]:
    """What was folded of a log, and the lines that came of it; some labels come late, with features of their own."""
    records = stream(9, 90)
    alone = [
        label(f"task {n % 3}", f"alone {n}", 180.0 + n, "xy"[n % 2], {"a": 0.5, "b": 1.0}) for n in range(9)
    ]
    world = World([*records, *alone, observation("task 0", "last", 200.0)])
    program = world.program(GRID)
    said = program.worker.outputs
    watched = Watched(said.logs, said.dead_letters, said.spec, RATE)
    object.__setattr__(watched, "folds", [])
    for _ in steps(replace(program, worker=replace(program.worker, outputs=watched))):
        pass
    return watched.folds, [read_learned(line) for line in world.outputs["episodes"].lines]


def learned(folds: Sequence[Fold]) -> list[tuple[Fold, int]]:
    """Every label that was learned from: the fold, and its place there."""
    return [(fold, int(n)) for fold in folds for n in np.flatnonzero(fold.folded.outcomes.learned)]


def test_there_is_one_line_for_each_label_that_was_learned_from(folded):
    folds, lines = folded
    expected = [
        (fold.tasks[fold.events.row[n]], (1, fold.events.partition[n], fold.events.offset[n]))
        for fold, n in learned(folds)
    ]
    assert [(line.task, line.source) for line in lines] == expected
    assert len({(line.task, line.labels) for line in lines}) == len(lines)


def test_features_label_and_count_are_those_that_were_learned_from_bit_for_bit(folded):
    folds, lines = folded
    for line, (fold, n) in zip(lines, learned(folds), strict=True):
        out = fold.folded.outcomes
        assert line.x.tobytes() == out.learned_x[n].tobytes()
        assert (line.y, line.labels) == (fold.events.y[n], out.learned[n])


def test_losses_are_those_of_the_experts_and_of_their_shared_mixture_and_of_no_label_that_was_not_scored(
    folded,
):
    folds, lines = folded
    unscored = 0
    for line, (fold, n) in zip(lines, learned(folds), strict=True):
        out = fold.folded.outcomes
        if out.code[n] == Outcome.SCORED:
            expected = [*out.loss[n, :SERVED], out.shared_loss[n]]
            np.testing.assert_allclose(line.losses, expected, atol=10.0**-DIGITS)
        else:
            unscored += 1
            assert np.isnan(line.losses).all()
    assert 0 < unscored < len(lines)


def test_where_a_task_adapted_its_episode_is_there_as_it_was_if_it_was_drawn(folded):
    folds, lines = folded
    found = {(line.task, line.labels): line.episode for line in lines if line.episode is not None}
    ended = {
        (fold.tasks[one.row], one.labels): one
        for fold in folds
        for one in fold.folded.episodes
        if len(one.support_y) and fold.folded.outcomes.learned[one.event]  # no correction, which adapts too
    }
    assert found.keys() == {key for key in ended if kept(*key, RATE)}
    assert found
    assert len(found) < len(ended)
    for key, episode in found.items():
        for name in ("support_x", "support_y", "support_weight", "query_x", "query_y"):
            assert getattr(episode, name).tobytes() == getattr(ended[key], name).tobytes(), name
