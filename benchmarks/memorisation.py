"""Meta-overfitting: what makes theta adapt where an input says which task it is, instead of remembering tasks.

Sines a sin(x) of 20 amplitudes, trained on with the number of the task beside x, and held-out tasks of amplitudes
between, whose number means nothing (Yin et al. 2020, arXiv:1912.03820, section 6.1). A learner that remembers has no
use for its support set, and fails where the number lies. MAML, K = 5, mean squared error with noise of variance .01.

    python -m benchmarks.memorisation [--json F] [--quick]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from benchmarks.reporting import Figure, arguments, show, write
from benchmarks.sinusoid import ONE_STEP, SECOND_ORDER, network
from engine.episodes.augment import Augmentation, Augmented, FeatureNoise
from engine.features.columns import Numeric
from engine.features.encoder import Features
from engine.learners.gradient import GradientLearner
from engine.outer.base import query_loss
from engine.outer.descent import FitSettings
from engine.outer.fit import fit, start
from engine.problem import InnerLoop, Problem
from engine.targets import Regression
from engine.types import Batch, Episodes, Params

AMPLITUDES = torch.linspace(0.1, 4, 20)
NOISE = 0.1
"""Of a label: standard deviation."""

SUPPORT, QUERY = 5, 10
TASKS_A_ROUND, ROUNDS = 16, 3000
JUDGED_TASKS, JUDGED_QUERY = 600, 50
STEPS = (1, 10)
TRAINING_SEED, JUDGED_SEED = 0, 1


@dataclass(frozen=True)
class Sines:
    """A `TaskSource`: rows of x and, as one of 20, the number of the task."""

    held_out: bool = False
    """Whether amplitudes are any from the range, and the number is drawn apart from them."""
    numbered: bool = True
    query: int = QUERY

    def draw(self, count: int, *, seed: int, step: int) -> Episodes:
        """Draw `count` episodes."""
        generator = torch.Generator().manual_seed(seed * ROUNDS + step)
        number = torch.randint(len(AMPLITUDES), (count, 1), generator=generator)
        amplitude = AMPLITUDES[number]
        if self.held_out:
            low, high = AMPLITUDES[[0, -1]]
            amplitude = low + (high - low) * torch.rand(count, 1, generator=generator)
        said = torch.eye(len(AMPLITUDES))[number] * self.numbered
        return Episodes(*(_points(amplitude, said, size, generator) for size in (SUPPORT, self.query)))


def _points(amplitude: Tensor, said: Tensor, count: int, generator: torch.Generator) -> Batch:
    x = 10 * torch.rand(len(amplitude), count, 1, generator=generator) - 5
    y = amplitude * x.squeeze(-1).sin()
    y = y + NOISE * torch.randn(y.shape, generator=generator)
    return Batch(torch.cat([x, said.expand(-1, count, -1)], -1), y, torch.full_like(y, 1 / count))


@dataclass(frozen=True)
class Remedy:
    """One row: what is done against remembering."""

    name: str
    weight_decay: float = 0.0
    augmented: Sequence[Augmentation] = ()
    numbered: bool = True


SHARE = 1 / len(AMPLITUDES)
DEVIATIONS = torch.tensor([10 / 12**0.5] + [(SHARE * (1 - SHARE)) ** 0.5] * len(AMPLITUDES))
"""Of each feature, by which `episodes.augment` scales its noise."""

REMEDIES = (
    Remedy("nothing"),
    *(Remedy(f"weight decay {decay}", decay) for decay in (0.01, 0.03, 0.1)),
    *(
        Remedy(f"the same noise on all, {noise}", augmented=(FeatureNoise(noise),))
        for noise in (0.1, 0.3, 1.0)
    ),
    *(
        Remedy(f"noise of {share} deviations", augmented=(FeatureNoise(share * DEVIATIONS),))
        for share in (0.1, 0.3, 1.0)
    ),
    Remedy("the number is left out", numbered=False),
)


def learner(inner: InnerLoop) -> GradientLearner:
    """The learner; statistics of 0 and 1 standardise nothing."""
    columns = (Numeric("x"), *(Numeric(f"task{i}") for i in range(len(AMPLITUDES))))
    return GradientLearner(
        Problem(Features(columns), Regression(-100, 100), network, adapts="all", inner=inner)
    )


def trained(remedy: Remedy, rounds: int) -> Params:
    """Theta of MAML, under one remedy."""
    source = Augmented(Sines(numbered=remedy.numbered), remedy.augmented)
    episodes = (source.draw(TASKS_A_ROUND, seed=TRAINING_SEED, step=step) for step in range(rounds))
    settings = FitSettings(lr=3e-3, schedule="cosine", steps=rounds, weight_decay=remedy.weight_decay)
    learns = learner(TRAINED)
    return fit(learns, SECOND_ORDER, episodes, start(learns, TRAINING_SEED), settings)[0].params


TRAINED = replace(ONE_STEP, lr=0.02)
"""The inner loop of training; more steps of the same when judged."""


def errors(theta: Params, remedy: Remedy) -> list[float]:
    """Mean squared error on training and on held-out tasks, after each number of steps."""
    sources = (Sines(held_out, remedy.numbered, JUDGED_QUERY) for held_out in (False, True))
    sides = [source.draw(JUDGED_TASKS, seed=JUDGED_SEED, step=0) for source in sources]
    built = [learner(replace(TRAINED, steps=steps)) for steps in STEPS]
    return [
        float(query_loss(one, theta, one.adapt(theta, side.support), side)) for one in built for side in sides
    ]


def main() -> None:
    """Train and judge under every remedy."""
    asked = arguments(__doc__ or "")
    torch.set_num_threads(1)
    rows: list[list[Figure]] = []
    figures: dict[str, Figure] = {}
    columns = [f"{side}, {steps} steps" for steps in STEPS for side in ("training", "held out")]
    for remedy in REMEDIES:
        found = errors(trained(remedy, 20 if asked.quick else ROUNDS), remedy)
        rows.append([remedy.name, *found])
        figures |= {
            f"memorisation.{remedy.name}.{what}": value for what, value in zip(columns, found, strict=True)
        }
    show("Sines that are told by number, MSE", ["", *columns], rows)
    write(asked.json, figures)


if __name__ == "__main__":
    main()
