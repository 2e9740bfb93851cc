"""A few examples of an episode as images, for a page: one of each class adapted on, and some that were predicted."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from engine.evaluation.episodic.report import DrawnEpisode, Image
from engine.features.pixels import Pixels
from engine.problem import Problem
from engine.targets import Classification
from engine.types import Batch, Episodes

MOST = 10
"""Images of a row."""


def images_of(problem: Problem) -> Pixels | None:
    """The column that is an image, where it is the only one and labels are classes."""
    first, *others = problem.features.columns
    drawable = isinstance(first, Pixels) and not others and isinstance(problem.target, Classification)
    return first if drawable and isinstance(first, Pixels) else None


def drawn_episode(
    column: Pixels, shots: int, episodes: Episodes, outputs: Tensor, which: int
) -> DrawnEpisode:
    """One of U episodes with the outputs [U, Q, C] on its query set."""
    support, query = (Batch(*(value[which] for value in side)) for side in episodes)
    best = outputs[which].argmax(-1)
    return DrawnEpisode(
        shots=shots,
        side=column.side,
        channels=column.channels,
        support=[_image(support, i, None) for i in _first_of_each_class(support)],
        query=[_image(query, i, int(best[i])) for i in range(_few(query))],
    )


def _first_of_each_class(support: Batch) -> list[int]:
    label = np.where(support.weight > 0, support.y, np.inf)
    classes, first = np.unique(label, return_index=True)
    return [int(i) for i in first[np.isfinite(classes)][:MOST]]


def _few(query: Batch) -> int:
    return min(int((query.weight > 0).sum()), MOST)


def _image(batch: Batch, at: int, predicted: int | None) -> Image:
    pixels = (batch.x[at] * 255).round().long().tolist()
    return Image(label=int(batch.y[at]), predicted=predicted, pixels=pixels)
