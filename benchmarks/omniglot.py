"""Omniglot: how well each learner tells characters apart that it never saw, after so many minutes of training.

Lake, Salakhutdinov, Tenenbaum 2015 (Science 350); 964 background classes of 20 drawings are trained on, 659
evaluation classes judged on. A seventh of the background's alphabets is kept back: on them the accuracy is
followed while training, and every choice was made. Episodes of 2,000 draws; each query is judged alone, never
with the other queries' statistics.

    REPTIDE_DATA=FOLDER python -m benchmarks.omniglot [LEARNER ...] [--json F] [--quick] [--theta FOLDER]

Without a name it lists the learners. With --theta the trained initialization is kept, and one that is there is
judged again without training.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from benchmarks.reporting import Figure, show, write
from engine.episodes.augment import Augmented, RotatedClasses
from engine.episodes.meta_train import MetaTraining, Stretch, begun, meta_train
from engine.episodes.task_source import ClassEpisodes, Examples
from engine.features.encoder import Features
from engine.features.pixels import Pixels
from engine.learners.base import Embeds, Learner
from engine.learners.gradient import GradientLearner
from engine.learners.matching import MatchingLearner
from engine.learners.memory import MemoryLearner
from engine.learners.prototype import PrototypeLearner
from engine.learners.snail import SnailLearner
from engine.learners.transformer import TransformerLearner
from engine.networks.conv4 import conv4, strided_conv4
from engine.networks.mlp import mlp
from engine.outer.backprop import Backprop
from engine.outer.base import OuterRule
from engine.outer.descent import FitSettings
from engine.outer.fit import start
from engine.outer.reptile import Reptile
from engine.problem import InnerLoop, Problem
from engine.targets import Classification
from engine.types import Params
from streams.system.machine import keep_freed_memory

SIDE, DRAWINGS = 28, 20
FOLLOWED_ALPHABETS = (3, 7, 11, 14, 21, 26)
"""Of the background: judged on while training, never trained on."""

EPISODES, FOLLOWED_EPISODES = 2000, 300
QUERIES = 5
"""Query drawings of a class, when judged."""

EVALUATION_SEED = 12345
BLOCK = 10


FAST_CONV4 = partial(conv4, precision="bfloat16")
TWO_STEPS = InnerLoop(steps=2, lr=0.03, clip=10)
ONE_STEP = InnerLoop(steps=1, lr=0.4, clip=10)
"""For what adapts by gradient steps; one of 0.4 is what MAML's paper trains 5-way Omniglot with (appendix A.1)."""


@dataclass(frozen=True)
class Recipe:
    """How one learner is trained."""

    learner: Callable[[Problem], Learner]
    rule: OuterRule
    rounds: int
    lr: float
    ways: int = 5
    tasks: int = 12
    """Episodes of a round."""
    queries: int = 5
    network: Callable[..., torch.nn.Module] = FAST_CONV4
    inner: InnerLoop = field(default_factory=InnerLoop)
    judged: tuple[tuple[int, int], ...] = ((5, 1), (5, 5), (20, 1))
    """Ways and shots of the test episodes."""

    def built(self, ways: int, shots: int, inner: InnerLoop) -> Learner:
        """The learner for episodes of so many ways and shots."""
        problem = Problem(
            Features((Pixels("drawing", SIDE),)),
            Classification(tuple(range(ways)), exchangeable=True),
            self.network,
            adapts="all",
            inner=inner,
            support=ways * shots,
        )
        return self.learner(problem)


STEPPING = Recipe(
    GradientLearner,
    Backprop(),
    rounds=11_000,
    lr=3e-3,
    tasks=16,
    queries=2,
    network=strided_conv4,
    inner=TWO_STEPS,
    judged=((5, 1),),
)
RECIPES: dict[str, Recipe] = {
    "prototype": Recipe(PrototypeLearner, Backprop(splits=6), rounds=15_000, lr=4e-3, ways=60, tasks=1),
    "matching": Recipe(
        MatchingLearner, Backprop(splits=2), rounds=10_500, lr=2e-3, ways=20, tasks=3, judged=((5, 1),)
    ),
    "memory": Recipe(MemoryLearner, Backprop(splits=2), rounds=10_500, lr=2e-3, judged=((5, 1),)),
    "snail": Recipe(SnailLearner, Backprop(splits=2), rounds=10_500, lr=2e-3, judged=((5, 1),)),
    "transformer": Recipe(TransformerLearner, Backprop(splits=2), rounds=11_000, lr=2e-3, judged=((5, 1),)),
    "maml-fc": replace(
        STEPPING,
        rule=Backprop(first_order=False),
        rounds=36_000,
        lr=4e-3,
        queries=4,
        network=partial(mlp, hidden=(256, 128, 64, 64), head="zero"),
        inner=ONE_STEP,
    ),
    "maml": replace(STEPPING, rule=Backprop(first_order=False), rounds=8_000, inner=ONE_STEP),
    "fomaml": STEPPING,
    "reptile": replace(
        STEPPING, rule=Reptile(steps=4, minibatches=4), rounds=7_500, lr=1.5e-3, tasks=8, queries=7
    ),
}
"""Rounds take half an hour of a core that has bfloat16; those of prototype and maml-fc, an hour of two at most."""


@dataclass(frozen=True)
class Point:
    """How far training had come."""

    minutes: float
    """Of processor time."""
    accuracy: float
    """5-way 1-shot on the followed classes, in percent."""


def drawings(which: str) -> Examples:
    """The trained, followed or evaluation classes."""
    with np.load(Path(os.environ["REPTIDE_DATA"]) / "omniglot28.npz") as archive:
        kept = np.isin(archive["background_alphabet"], FOLLOWED_ALPHABETS)
        background = archive["background"]
        images = {
            "trained": background[~kept],
            "followed": background[kept],
            "evaluation": archive["evaluation"],
        }[which]
    count = len(images) * DRAWINGS
    return Examples(
        (images.reshape(count, SIDE * SIDE) / np.float32(255)).astype(np.float32),
        np.repeat(np.arange(len(images)), DRAWINGS).astype(np.float32),
        np.zeros(count, np.int64),
        np.zeros(count),
    )


@torch.no_grad()
def accuracies(learner: Learner, theta: Params, source: ClassEpisodes, episodes: int) -> torch.Tensor:
    """Share of queries told right [episodes], in percent."""
    if isinstance(learner, Embeds):
        source, learner = embedded(learner, theta, source), learner.of_embeddings()
    found = []
    for step in range(-(-episodes // BLOCK)):
        drawn = source.draw(BLOCK, seed=EVALUATION_SEED, step=step)
        outputs = learner.predict(theta, learner.adapt(theta, drawn.support), drawn.query.x)
        right = (outputs.argmax(-1) == drawn.query.y) * drawn.query.weight
        found.append(100 * right.sum(1))
    return torch.cat(found)[:episodes].double()


def embedded(learner: Embeds, theta: Params, source: ClassEpisodes) -> ClassEpisodes:
    """The same episodes of drawings that are embedded once, each by itself, instead of in every episode."""
    rows = torch.from_numpy(source.examples.x).split(500)
    x = torch.cat([learner.embed(theta, part.unsqueeze(0)).squeeze(0) for part in rows])
    return replace(source, examples=source.examples._replace(x=x.numpy()))


def followed(recipe: Recipe) -> Callable[[Params], float]:
    """5-way 1-shot accuracy on classes that are not trained on, the same episodes each time."""
    learner = recipe.built(5, 1, recipe.inner)
    source = ClassEpisodes(drawings("followed"), 5, 1, QUERIES)
    return lambda theta: float(accuracies(learner, theta, source, FOLLOWED_EPISODES).mean())


def trained(recipe: Recipe, rounds: int, show_point: Callable[[Point], None]) -> tuple[Params, list[Point]]:
    """Theta after so many rounds, and how it came there."""
    learner = recipe.built(recipe.ways, 1, recipe.inner)
    source = Augmented(
        ClassEpisodes(drawings("trained"), recipe.ways, 1, recipe.queries), (RotatedClasses(),)
    )
    settings = MetaTraining(rounds, recipe.tasks, every=max(1, rounds // 15))
    outer = FitSettings(lr=recipe.lr, schedule="cosine", warmup=min(50, rounds - 1), steps=rounds)
    accuracy = followed(recipe)
    begin = begun(start(learner, 0))
    curve = [Point(0.0, accuracy(begin.best))]
    theta, minutes = begin.best, 0.0
    for stretch, spent in timed(meta_train(learner, recipe.rule, source, None, settings, outer, begin)):
        theta, minutes = stretch.best, minutes + spent
        curve.append(Point(minutes, accuracy(theta)))
        show_point(curve[-1])
    return theta, curve


def timed(stretches: Iterator[Stretch]) -> Iterator[tuple[Stretch, float]]:
    """Each stretch, and the minutes of processor time it took."""
    began = time.process_time()
    for stretch in stretches:
        yield stretch, (time.process_time() - began) / 60
        began = time.process_time()


def judged(recipe: Recipe, theta: Params, episodes: int) -> Iterator[tuple[int, int, float, float]]:
    """Ways, shots, mean accuracy on the evaluation classes and half of its 95% interval."""
    evaluation = drawings("evaluation")
    for ways, shots in recipe.judged:
        learner = recipe.built(ways, shots, recipe.inner)
        found = accuracies(learner, theta, ClassEpisodes(evaluation, ways, shots, QUERIES), episodes)
        yield ways, shots, float(found.mean()), float(1.96 * found.std() / len(found) ** 0.5)


def main() -> None:
    """Train and judge the learners that were named."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("learners", nargs="*", choices=[*RECIPES, []], metavar="LEARNER")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--quick", action="store_true", help="a small version that shows only that it runs")
    parser.add_argument("--rounds", type=int, help="train for so many rounds instead")
    parser.add_argument("--theta", type=Path, help="folder to keep the trained initialization in")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    rows: list[list[Figure]] = []
    figures: dict[str, Figure] = {}
    for name in asked.learners:
        recipe = RECIPES[name]
        rounds = 5 if asked.quick else asked.rounds or recipe.rounds
        curve: list[Point] = []
        kept = asked.theta / f"{name}.safetensors" if asked.theta else None
        if kept and kept.exists():
            theta = load_file(kept)
        else:
            theta, curve = trained(recipe, rounds, lambda point: print(point, flush=True))
        if kept and curve:
            kept.parent.mkdir(parents=True, exist_ok=True)
            save_file(theta, kept)
        minutes = curve[-1].minutes if curve else 0.0
        for ways, shots, mean, half in judged(recipe, theta, 20 if asked.quick else EPISODES):
            rows.append([name, f"{ways}-way {shots}-shot", mean, half, rounds, minutes])
            figures[f"omniglot.{name}.{ways}way{shots}shot"] = mean
        figures |= {f"omniglot.{name}.after_{p.minutes:.2f}_min": p.accuracy for p in curve}
    title = f"Omniglot, evaluation classes, accuracy (%) over {EPISODES:,} episodes"
    show(title, ["", "episodes", "mean", "+-95%", "rounds", "training min"], rows)
    write(asked.json, figures)


if __name__ == "__main__":
    main()
