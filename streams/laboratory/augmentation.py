"""The names in `episodes.augment`, and what they need of the features and the target."""

from __future__ import annotations

import torch

from engine.episodes.augment import (
    Augmentation,
    Augmented,
    FeatureNoise,
    Mixup,
    PermutedLabels,
    RotatedClasses,
    Shifted,
)
from engine.episodes.task_source import Examples, TaskSource
from engine.features.columns import Cyclic, Numeric
from engine.features.pixels import Pixels
from engine.outer.fit import measured
from engine.problem import Problem
from engine.targets import Classification
from streams.errors import SettingsError
from streams.settings.examples import Episodes


def augmented(source: TaskSource, section: Episodes, problem: Problem, examples: Examples) -> TaskSource:
    """Training episodes, augmented as the settings say.

    Raises:
        SettingsError: an augmentation does not go with the features or the target.

    """
    ways = [_augmentation(name, section, problem, examples) for name in section.augment]
    return Augmented(source, ways) if ways else source


def _augmentation(name: str, section: Episodes, problem: Problem, examples: Examples) -> Augmentation:
    if name == "rotate":
        _of_classes(name, problem)
        return RotatedClasses(_image(name, problem).channels)
    if name == "shift":
        return Shifted(channels=_image(name, problem).channels)
    if name == "permute":
        return PermutedLabels(len(_of_classes(name, problem).classes))
    if name == "noise":
        return FeatureNoise(_spread(problem, examples) * section.noise)
    return _mixup(problem)


def _image(name: str, problem: Problem) -> Pixels:
    column, *others = problem.features.columns
    if others or not isinstance(column, Pixels):
        raise SettingsError(f"episodes.augment: {name!r} is for images; take it out")
    return column


def _of_classes(name: str, problem: Problem) -> Classification:
    if not isinstance(problem.target, Classification):
        raise SettingsError(
            f"episodes.augment: {name!r} is for classes, and the target is a number; take it out"
        )
    return problem.target


def _spread(problem: Problem, examples: Examples) -> torch.Tensor:
    """Standard deviation of each number [W], 1 for a pixel; 0 where a number is an id or lies on a circle."""
    found = measured(torch.from_numpy(examples.x))
    deviation = (found.m2 / found.count.clamp(min=1)).sqrt().float()
    kinds = [(column, column.width) for column in problem.features.columns]
    pixel = torch.tensor([isinstance(column, Pixels) for column, width in kinds for _ in range(width)])
    number = torch.tensor([isinstance(column, Numeric) for column, width in kinds for _ in range(width)])
    return torch.where(pixel, 1.0, torch.where(number, deviation, 0.0))


def _mixup(problem: Problem) -> Mixup:
    hashed = [c.name for c in problem.features.columns if not isinstance(c, Numeric | Cyclic | Pixels)]
    if hashed:
        raise SettingsError(
            f"episodes.augment: 'mixup' is for numbers, and {hashed[0]!r} is stored as hashed ids; take it out"
        )
    return Mixup()
