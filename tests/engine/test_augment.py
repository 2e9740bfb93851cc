"""Task augmentation keeps a task one task."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from engine.episodes.augment import (
    Augmented,
    FeatureNoise,
    Mixup,
    PermutedLabels,
    RotatedClasses,
    Shifted,
    as_images,
)
from engine.episodes.task_source import ClassEpisodes, Examples, TaskEpisodes
from engine.evaluation.episodic.evaluate import tasks_of
from engine.types import Batch, EngineError, Episodes


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def episodes(tasks: int = 20, side: int = 3) -> Episodes:
    """Every image of a class is the same picture, support and query alike; the last query is padding."""
    picture = torch.arange(float(side * side)).view(1, 1, -1) + 100 * torch.arange(4.0).view(1, 4, 1)
    y = torch.arange(4.0).expand(tasks, 4).contiguous()
    support = Batch(picture.expand(tasks, 4, -1).clone(), y, torch.full((tasks, 4), 0.25))
    weight = support.weight.clone()
    weight[:, -1] = 0
    return Episodes(support, Batch(support.x.clone(), y.clone(), weight))


def test_a_class_is_turned_as_a_whole_and_classes_apart() -> None:
    before = episodes()
    after = RotatedClasses()(before, generator())
    assert torch.equal(after.support.x, after.query.x)
    turns = []
    for task in range(20):
        for k in range(4):
            image = before.support.x[task, k].view(3, 3)
            turns.append(
                next(q for q in range(4) if torch.equal(image.rot90(q), after.support.x[task, k].view(3, 3)))
            )
    assert set(turns) == {0, 1, 2, 3}
    assert any(len(set(turns[i : i + 4])) > 1 for i in range(0, 80, 4))


def test_permuted_labels_are_the_same_permutation_on_both_sides() -> None:
    after = PermutedLabels(4)(episodes(), generator())
    assert torch.equal(after.support.y, after.query.y)
    assert torch.equal(after.support.y.sort(1).values, episodes().support.y)
    assert len(after.support.y.unique(dim=0)) > 1


def test_noise_has_its_scale_and_leaves_padding_alone() -> None:
    before = episodes(tasks=500)
    after = FeatureNoise(torch.tensor([0.0] * 8 + [2.0]))(before, generator())
    moved = after.query.x - before.query.x
    assert not moved[:, -1].any()
    assert not moved[..., :8].any()
    assert 1.9 < float(moved[:, :-1, 8].std()) < 2.1


def test_mixup_stays_within_a_label_between_two_examples() -> None:
    y = torch.tensor([[0.0, 0, 1, 1, 2]])
    x = torch.tensor([[[0.0], [1.0], [10.0], [20.0], [5.0]]])
    query = Batch(x, y, torch.full((1, 5), 0.2))
    mixed = Mixup()(Episodes(query, query), generator()).query.x[0, :, 0]
    assert 0 <= mixed[0] <= 0.5 <= mixed[1] <= 1
    assert 10 <= mixed[2] <= 15 <= mixed[3] <= 20
    assert mixed[4] == 5


def test_a_shifted_image_keeps_what_stays_in_sight() -> None:
    image = torch.zeros(1, 1, 49)
    image[0, 0, 24] = 1.0
    side = Batch(image.expand(200, 1, 49).clone(), torch.zeros(200, 1), torch.ones(200, 1))
    after = Shifted(most=2)(Episodes(side, side), generator()).support.x
    assert torch.equal(after.sum((1, 2)), torch.ones(200))
    places = {divmod(int(one.argmax()), 7) for one in after[:, 0]}
    assert places == {(row, column) for row in range(1, 6) for column in range(1, 6)}


def test_augmented_draws_repeat() -> None:
    count = 40
    pool = Examples(
        np.random.default_rng(0).normal(size=(count, 9)).astype(np.float32),
        (np.arange(count) % 4).astype(np.float32),
        np.zeros(count, np.int64),
        np.zeros(count),
    )
    source = Augmented(ClassEpisodes(pool, 3, 1, 2), (RotatedClasses(), FeatureNoise(0.1)))
    first, again, other = (source.draw(2, seed=0, step=step) for step in (0, 0, 1))
    assert torch.equal(first.query.x, again.query.x)
    assert not torch.equal(first.query.x, other.query.x)


def users(count: int = 6, each: int = 8) -> Examples:
    index = np.arange(count * each)
    x = np.random.default_rng(0).normal(size=(len(index), 9)).astype(np.float32)
    return Examples(x, (index % 2).astype(np.float32), index // each, np.zeros(len(index)))


def test_augmented_episodes_are_of_the_tasks_that_they_are_made_of() -> None:
    source = TaskEpisodes(users(), 2, 2)
    noisy = Augmented(source, (FeatureNoise(0.1),))
    assert tasks_of(noisy, 50, seed=1).tolist() == tasks_of(source, 50, seed=1).tolist()
    assert len(set(tasks_of(noisy, 50, seed=1))) == 6


def test_augmented_episodes_of_a_source_that_does_not_tell_are_each_of_a_task_of_their_own() -> None:
    class Untold:
        draw = TaskEpisodes(users(), 2, 2).draw

    assert tasks_of(Augmented(Untold(), ()), 60, seed=1).tolist() == list(range(60))


def test_rows_that_are_no_square_image_are_refused() -> None:
    with pytest.raises(EngineError, match="no square images"):
        as_images(torch.zeros(2, 8), 1)


def test_mixup_needs_a_distribution() -> None:
    with pytest.raises(EngineError, match="positive"):
        Mixup(a=0)


def test_a_class_that_only_the_query_set_has_is_turned_too() -> None:
    before = episodes()
    support = before.support._replace(y=before.support.y.clamp(max=1))
    after = RotatedClasses()(before._replace(support=support), generator())
    assert not torch.equal(after.query.x[:, 2:], before.query.x[:, 2:])
