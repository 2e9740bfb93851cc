"""Task augmentation: more tasks out of the same examples, against meta-overfitting.

Where the tasks are few, a learner may remember them instead of learning to adapt (Rajendran, Irpan, Jang 2020,
arXiv:2007.05549; Yin et al. 2020, arXiv:1912.03820). Each function makes other episodes out of episodes and a
generator; what tells the classes of a task apart is changed alike in its support and its query set.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from engine.episodes.task_source import TaskSource, tasks_drawn
from engine.types import Batch, EngineError, Episodes, Int64

Augmentation = Callable[[Episodes, torch.Generator], Episodes]


@dataclass(frozen=True)
class Augmented:
    """A `TaskSource` whose episodes are augmented, one way after another; as repeatable as the source."""

    source: TaskSource
    ways: Sequence[Augmentation]

    def draw(self, count: int, *, seed: int, step: int) -> Episodes:
        """Draw `count` episodes of the source, and augment them."""
        episodes = self.source.draw(count, seed=seed, step=step)
        drawn = int(np.random.default_rng((seed, step, 1)).integers(2**62))
        generator = torch.Generator().manual_seed(drawn)
        for augment in self.ways:
            episodes = augment(episodes, generator)
        return episodes

    def tasks(self, count: int, *, seed: int, step: int) -> Int64:
        """Which task each episode of that draw is of: that of the episode it is made of."""
        return tasks_drawn(self.source, count, seed=seed, step=step)


@dataclass(frozen=True)
class RotatedClasses:
    """Turn all images of a class by the same multiple of 90 degrees, drawn for each class of each episode.

    A character on its side is another character (Santoro et al. 2016, arXiv:1605.06065, section 4.1). Square
    images of `channels`; for labels that are class indices.
    """

    channels: int = 1

    def __call__(self, episodes: Episodes, generator: torch.Generator) -> Episodes:
        """Episodes with turned classes."""
        tasks, classes = len(episodes.support.y), 1 + max(int(side.y.max()) for side in episodes)
        turns = torch.randint(4, (tasks, classes), generator=generator)
        return Episodes(*(self._turned(side, turns) for side in episodes))

    def _turned(self, batch: Batch, turns: Tensor) -> Batch:
        images = as_images(batch.x, self.channels)
        turn = turns.gather(1, batch.y.long()).view(*batch.y.shape, 1, 1, 1)
        turned = images
        for quarter in (1, 2, 3):
            turned = torch.where(turn == quarter, images.rot90(quarter, (-2, -1)), turned)
        return batch._replace(x=turned.reshape(batch.x.shape))


@dataclass(frozen=True)
class PermutedLabels:
    """Number the classes anew in every episode, so that no label can be known without the support set."""

    classes: int

    def __call__(self, episodes: Episodes, generator: torch.Generator) -> Episodes:
        """Episodes with other labels."""
        numbers = torch.rand(len(episodes.support.y), self.classes, generator=generator).argsort(1).float()
        return Episodes(*(side._replace(y=numbers.gather(1, side.y.long())) for side in episodes))


@dataclass(frozen=True)
class FeatureNoise:
    """Add Gaussian noise to every example: standard deviation `scale`, or one for each stored column."""

    scale: float | Tensor

    def __call__(self, episodes: Episodes, generator: torch.Generator) -> Episodes:
        """Episodes with noisy features."""
        return Episodes(*(self._noisy(side, generator) for side in episodes))

    def _noisy(self, batch: Batch, generator: torch.Generator) -> Batch:
        noise = torch.randn(batch.x.shape, generator=generator) * self.scale
        return batch._replace(x=batch.x + noise * (batch.weight > 0).unsqueeze(-1))


@dataclass(frozen=True)
class Mixup:
    """Replace each query example by a mixture with another of its own label, as near to it as Beta(a, a) says.

    Mixup (Zhang et al. 2018, arXiv:1710.09412) within a class: labels stay class indices. With no other example
    of the label the example stays. For features that are numbers; a mixture of two hashed ids means nothing.
    """

    a: float = 0.5

    def __post_init__(self) -> None:
        if not self.a > 0:
            raise EngineError(f"mixup needs a positive parameter of its Beta distribution, got {self.a}")

    def __call__(self, episodes: Episodes, generator: torch.Generator) -> Episodes:
        """Episodes with mixed query examples."""
        x, y, weight = episodes.query
        alike = (y.unsqueeze(1) == y.unsqueeze(2)) & (weight > 0).unsqueeze(1)
        alike |= torch.eye(y.shape[1], dtype=torch.bool)  # padding mixes with itself
        other = torch.multinomial(alike.flatten(0, 1).float(), 1, generator=generator).view(*y.shape, 1)
        seed = int(torch.randint(2**31, (), generator=generator))
        drawn = np.random.default_rng(seed).beta(self.a, self.a, size=(*y.shape, 1))
        share = torch.from_numpy(np.maximum(drawn, 1 - drawn).astype(np.float32))
        mixed = share * x + (1 - share) * x.gather(1, other.expand_as(x))
        return episodes._replace(query=Batch(mixed, y, weight))


@dataclass(frozen=True)
class Shifted:
    """Move every image by up to `most` pixels each way; what enters is 0."""

    most: int = 2
    channels: int = 1

    def __call__(self, episodes: Episodes, generator: torch.Generator) -> Episodes:
        """Episodes with shifted images."""
        return Episodes(*(self._shifted(side, generator) for side in episodes))

    def _shifted(self, batch: Batch, generator: torch.Generator) -> Batch:
        images = as_images(batch.x, self.channels).flatten(0, 1)
        side = images.shape[-1]
        padded = torch.nn.functional.pad(images, [self.most] * 4)
        by = torch.randint(2 * self.most + 1, (2, len(images), 1), generator=generator)
        rows, columns = torch.arange(side) + by
        turned = padded[torch.arange(len(images)).view(-1, 1, 1, 1), torch.arange(self.channels).view(1, -1, 1, 1),
                        rows.view(-1, 1, side, 1), columns.view(-1, 1, 1, side)]  # fmt: skip
        return batch._replace(x=turned.reshape(batch.x.shape))


def as_images(x: Tensor, channels: int) -> Tensor:
    """Rows [..., C * H * W] as square images [..., C, H, W].

    Raises:
        EngineError: they are not square.

    """
    side = int((x.shape[-1] // channels) ** 0.5)
    if channels * side * side != x.shape[-1]:
        raise EngineError(f"rows of {x.shape[-1]} numbers are no square images of {channels} channels")
    return x.unflatten(-1, (channels, side, side))  # type: ignore[no-any-return]
