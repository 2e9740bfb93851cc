"""A class of images learned from one example: prototypes over a small convolutional network.

The images are drawn here: a kind is three strokes, an example is them shifted, with noise. Accuracy is on kinds that
were not trained on, beside that of the nearest example, pixel by pixel.
"""

import numpy as np
from torch import nn

from reptide import FewShot

SIDE, WAYS, EACH, SEEN, KINDS = 16, 5, 8, 80, 100
draws = np.random.default_rng(3)


def drawn(strokes: np.ndarray) -> np.ndarray:
    """Strokes [3, 2, 2], each from a point to a point, as an image [SIDE, SIDE] of 0 to 255."""
    image, shift = np.zeros((SIDE, SIDE)), draws.integers(-2, 3, size=2)
    for begin, end in strokes:
        for share in np.linspace(0, 1, 20):
            row, column = np.rint(begin + share * (end - begin)).astype(int) + shift
            image[row % SIDE, column % SIDE] = 255
    return np.clip(image + draws.normal(scale=40, size=image.shape), 0, 255).astype(np.uint8)


def network(inputs: int, outputs: int) -> nn.Module:
    """Two convolutions; `engine.networks.conv4:conv4` is the larger one that papers compare on."""
    return nn.Sequential(
        nn.Unflatten(-1, (1, SIDE, SIDE)),
        *(nn.Conv2d(1, 16, 3, padding=1), nn.GroupNorm(1, 16), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 16, 3, padding=1), nn.GroupNorm(1, 16), nn.ReLU(), nn.MaxPool2d(2)),
        nn.Flatten(-3),
        nn.Linear(inputs, outputs),
    )


images = np.stack([drawn(kind) for kind in draws.uniform(2, SIDE - 3, (KINDS, 3, 2, 2)) for _ in range(EACH)])
kinds = np.repeat(np.arange(KINDS), EACH)
seen = kinds < SEEN
settings = {"episodes.rounds": 60, "episodes.every": 30, "episodes.tasks": 4, "episodes.queries": 5}
few = FewShot("prototype", ways=WAYS, shots=1, network=network, settings={**settings, "outer.lr": 0.003})
few.fit(images[seen], kinds[seen], say=print)

ours, nearest = [], []
for _ in range(20):
    of = draws.choice(np.arange(SEEN, KINDS), WAYS, replace=False)
    support = of * EACH
    queries = np.setdiff1d(np.flatnonzero(np.isin(kinds, of)), support)
    ours.append(few.adapt(images[support], kinds[support]).score(images[queries], kinds[queries]))
    apart = np.square(images[queries][:, None] - images[support][None].astype(float)).sum(axis=(2, 3))
    nearest.append((of[apart.argmin(axis=1)] == kinds[queries]).mean())
print(
    f"one example of each of {WAYS} new kinds: {np.mean(ours):.0%} right, nearest pixels {np.mean(nearest):.0%}"
)
