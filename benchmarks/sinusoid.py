"""Sinusoid regression: a few gradient steps from a learned initialization fit a sine never seen.

Tasks y = a sin(x - p), a in [0.1, 5], p in [0, pi], x in [-5, 5], ten support points (Finn, Abbeel, Levine
2017, arXiv:1703.03400, section 5.1), an MLP 1-40-40-1 without normalisation, all of it adapted. Judged by
mean squared error on query points apart from the support, on 600 tasks never trained on. The step size of the test
is, for the first-order methods and iMAML, the one that is best after the most steps on other tasks again. MAML, ANIL
and Meta-SGD, whose outer loop sees what a step size does, keep that of their training, more steps of the same. Two
baselines stand beside: the initialization that each method learned, unadapted, and pooled training with fine-tuning.

    python -m benchmarks.sinusoid [--json F] [--quick]
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from benchmarks.reporting import Figure, arguments, show, write
from engine.features.columns import Numeric
from engine.features.encoder import Features
from engine.learners.gradient import GradientLearner
from engine.outer.backprop import Backprop
from engine.outer.base import OuterRule, query_loss
from engine.outer.descent import FitSettings
from engine.outer.fit import fit, start
from engine.outer.implicit import Implicit
from engine.outer.pooled import Pooled
from engine.outer.reptile import Reptile
from engine.problem import InnerLoop, Problem
from engine.targets import Regression
from engine.types import Batch, Episodes, Params

SUPPORT = 10
QUERY = 20
TASKS_A_ROUND = 32
HELD_OUT_TASKS = 600
HELD_OUT_QUERY = 100
STEPS = (0, 1, 5, 10)
RATES = (0.005, 0.01, 0.02, 0.03, 0.05, 0.1)
TRAINING_SEED, HELD_OUT_SEED, VALIDATION_SEED = 0, 1, 2


@dataclass(frozen=True)
class Method:
    """One row of the table: how it trains."""

    name: str
    rule: OuterRule
    inner: InnerLoop
    """The inner loop of training."""
    rounds: int
    lr: float
    """Of the outer loop."""
    adapts: str = "all"
    tuned: bool = True
    """Whether the step size of the test is chosen on other tasks, and not that of training."""

    def learner(self, inner: InnerLoop) -> GradientLearner:
        """Build the learner of this method's tasks, with an inner loop of training or test."""
        return GradientLearner(problem(inner, self.adapts))


SECOND_ORDER = Backprop(first_order=False)
ONE_STEP = InnerLoop(steps=1, lr=0.01, clip=100)
METHODS = (
    Method("MAML", SECOND_ORDER, ONE_STEP, rounds=3000, lr=1e-2, tuned=False),
    Method("ANIL", SECOND_ORDER, ONE_STEP, rounds=3000, lr=1e-2, adapts="head", tuned=False),
    Method("Meta-SGD", SECOND_ORDER, replace(ONE_STEP, rates="learned"), rounds=3000, lr=1e-2, tuned=False),
    Method("iMAML", Implicit(), InnerLoop(steps=10, lr=0.02, clip=10, proximal=2), rounds=3000, lr=1e-2),
    Method("FOMAML", Backprop(), InnerLoop(steps=5, lr=0.02, clip=10), rounds=3000, lr=1e-2),
    Method(
        "Reptile", Reptile(steps=8, minibatches=2), InnerLoop(steps=1, lr=0.02, clip=10), rounds=2000, lr=1e-2
    ),
    Method("pooled", Pooled(), InnerLoop(steps=1, lr=0.02, clip=10), rounds=3000, lr=1e-3),
)


def network(inputs: int, outputs: int) -> nn.Module:
    """Build the paper's network: two hidden layers of 40."""
    hidden = [nn.Linear(inputs, 40), nn.ReLU(), nn.Linear(40, 40), nn.ReLU()]
    return nn.Sequential(*hidden, nn.Linear(40, outputs))


def problem(inner: InnerLoop, adapts: str) -> Problem:
    """Describe the tasks; statistics of 0 and 1 standardise nothing, and x is within the clip of 10."""
    return Problem(Features((Numeric("x"),)), Regression(-100, 100), network, adapts=adapts, inner=inner)


def sines(tasks: int, query: int, generator: torch.Generator) -> Episodes:
    """Draw tasks; support and query points are drawn apart."""
    amplitude = 0.1 + 4.9 * torch.rand(tasks, 1, generator=generator)
    phase = math.pi * torch.rand(tasks, 1, generator=generator)

    def points(count: int) -> Batch:
        x = 10 * torch.rand(tasks, count, generator=generator) - 5
        return Batch(x.unsqueeze(-1), amplitude * torch.sin(x - phase), _even(tasks, count))

    return Episodes(points(SUPPORT), points(query))


def _even(tasks: int, count: int) -> Tensor:
    return torch.full((tasks, count), 1 / count)


def rounds(count: int) -> Iterator[Episodes]:
    """Draw the tasks that are trained on, the same for every method."""
    generator = torch.Generator().manual_seed(TRAINING_SEED)
    for _ in range(count):
        yield sines(TASKS_A_ROUND, QUERY, generator)


def train(method: Method, count: int) -> Params:
    """Learn an initialization; the rate falls to zero, which takes the noise of the last tasks out of it."""
    learner = method.learner(method.inner)
    settings = FitSettings(lr=method.lr, schedule="cosine", steps=count)
    state, _ = fit(learner, method.rule, rounds(count), start(learner, TRAINING_SEED), settings)
    return state.params


def error(learner: GradientLearner, theta: Params, tasks: Episodes) -> float:
    """Adapt, and take the mean squared error on the query points."""
    return float(query_loss(learner, theta, learner.adapt(theta, tasks.support), tasks))


def chosen(method: Method, theta: Params, tasks: Episodes) -> InnerLoop:
    """Choose the test's step size: the best after the most steps, on tasks that are not held out; or training's."""
    if not method.tuned:
        return method.inner
    loops = [replace(method.inner, steps=max(STEPS), lr=lr) for lr in RATES]
    return min(loops, key=lambda inner: error(method.learner(inner), theta, tasks))


def main() -> None:
    """Train and judge every method."""
    asked = arguments(__doc__ or "")
    torch.set_num_threads(1)
    held_out, validation = (
        sines(HELD_OUT_TASKS, HELD_OUT_QUERY, torch.Generator().manual_seed(seed))
        for seed in (HELD_OUT_SEED, VALIDATION_SEED)
    )
    rows: list[list[Figure]] = []
    figures: dict[str, Figure] = {}
    for method in METHODS:
        count = 20 if asked.quick else method.rounds
        begun = time.perf_counter()
        theta = train(method, count)
        seconds = time.perf_counter() - begun
        inner = chosen(method, theta, validation)
        errors = [error(method.learner(replace(inner, steps=steps)), theta, held_out) for steps in STEPS]
        rows.append([method.name, *errors, inner.lr, count, seconds])
        figures |= {f"sinusoid.{method.name}.mse_after_{s}": e for s, e in zip(STEPS, errors, strict=True)}
        figures |= {f"sinusoid.{method.name}.rounds": count, f"sinusoid.{method.name}.train_s": seconds}
    after = ["unadapted", *(f"after {steps}" for steps in STEPS[1:])]
    show(
        "Sinusoid, MSE on 600 held-out tasks, 10 support points",
        ["", *after, "step size", "rounds", "train s"],
        rows,
    )
    write(asked.json, figures)


if __name__ == "__main__":
    main()
