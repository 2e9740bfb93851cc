"""Examples in three parts that share no task: to train on, to judge training by, and to evaluate on at the end.

Where episodes tell apart the classes of one task, the parts share no class. They hang on the seed and the examples
alone, so an evaluation meets none that training has seen.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from engine.episodes.task_source import ClassEpisodes, Examples, TaskEpisodes, TaskSource, held_out
from engine.types import EngineError
from streams.errors import SettingsError
from streams.settings.examples import Episodes

LEAST_TASKS = 2
"""Tasks that give an interval, held out or trained on: where there is more than one, it counts tasks."""


class Parts(NamedTuple):
    """Examples by what they are for."""

    training: Examples
    validation: Examples | None
    held_out: Examples


def split(examples: Examples, section: Episodes, seed: int) -> Parts:
    """Hold out whole tasks, or whole classes of the only task.

    Raises:
        SettingsError: there are too few to hold some out and have some left.

    """
    classes = section.ways is not None and not examples.task.any()
    count = len(np.unique(examples.y if classes else examples.task))
    validated, least = section.validation > 0, 1 if classes else LEAST_TASKS
    what = f"{count} class{'es' * (count != 1)}" if classes else f"{count} task{'s' * (count != 1)}"
    if count < 2 * least + validated:
        raise SettingsError(
            f"episodes.held_out: the examples are of {what}, too few to hold {least} out and have {least} left to "
            "train on; name the task of each example, or bring examples of more tasks or classes"
        )
    if section.held_out + section.validation >= 1:
        raise SettingsError("episodes.held_out, episodes.validation: together they leave nothing to train on")
    rest, judged = held_out(examples, section.held_out, seed=seed, classes=classes, least=least)
    share = section.validation / (1 - section.held_out)
    parts = (
        Parts(*held_out(rest, share, seed=seed + 1, classes=classes), judged)
        if validated and len(rest.y)
        else Parts(rest, None, judged)
    )
    if not len(parts.training.y):
        raise SettingsError(
            f"episodes.held_out, episodes.validation: of {what} they leave nothing to train on; lower them"
        )
    return parts


def source(examples: Examples, section: Episodes, shots: int, part: str) -> TaskSource:
    """Episodes of one part; `part` names it in messages.

    Raises:
        SettingsError: it has too few classes, or too few examples of each.

    """
    try:
        if section.ways is None:
            return TaskEpisodes(examples, shots, section.queries, section.temporal, section.balanced)
        _check_ways(examples, section.ways, shots, part)
        return ClassEpisodes(examples, section.ways, shots, section.queries)
    except EngineError as error:
        raise SettingsError(f"[episodes]: in the {part} part of the examples, {error}") from error


def _check_ways(examples: Examples, ways: int, shots: int, part: str) -> None:
    """Episodes may have fewer ways where a task has fewer classes, but not all of them."""
    both = np.stack([examples.task, examples.y.astype(np.int64)])
    groups, count = np.unique(both, axis=1, return_counts=True)
    few = int((count <= shots).sum())
    most = int(np.unique(groups[0, count > shots], return_counts=True)[1].max(initial=0))
    if most < ways:
        raise SettingsError(
            f"episodes.ways: in the {part} part of the examples no task has {ways} classes of more than {shots} "
            f"examples, the most is {most}, and {few} classes have too few examples; use fewer ways or shots, bring "
            "more examples, or change episodes.held_out and episodes.validation"
        )
