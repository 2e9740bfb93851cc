"""The whole matrix: every learner, on every network, under every outer rule, kept to what they all promise.

For each learner and network `engine.checks.check_learner` (ragged and empty support sets, padding, batch mates, equal
bits, a fold that any cut leaves the same); for each outer rule that the learner takes, one round: a finite
pseudo-gradient for every learned parameter, and theta moved by it. Small sizes: no promise depends on them.

    python -m benchmarks.conformance [--json F] [--quick]
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import nn

import streams  # noqa: F401 - sets how MKL rounds, before it is loaded
from benchmarks.reporting import Figure, arguments, show, write
from engine.checks.promises import CheckFailed
from engine.checks.suite import check_learner
from engine.episodes.task_source import Examples, TaskEpisodes
from engine.features.columns import Numeric
from engine.features.encoder import Features
from engine.features.pixels import Pixels
from engine.learners.base import Learner
from engine.learners.gradient import GradientLearner
from engine.learners.matching import MatchingLearner
from engine.learners.memory import MemoryLearner
from engine.learners.prototype import PrototypeLearner
from engine.learners.snail import SnailLearner
from engine.learners.transformer import TransformerLearner
from engine.networks.conv4 import conv4
from engine.networks.mlp import mlp
from engine.networks.resnet12 import resnet12
from engine.networks.tabular import tabular
from engine.networks.transformer import transformer
from engine.outer.backprop import Backprop
from engine.outer.base import OuterRule
from engine.outer.descent import FitSettings
from engine.outer.fit import fit, start
from engine.outer.implicit import Implicit
from engine.outer.pooled import Pooled
from engine.outer.reptile import Reptile
from engine.problem import InnerLoop, Problem
from engine.stream.spec import StreamSpec
from engine.targets import Classification
from engine.types import EngineError

SIDE, CLASSES = 16, 3
ROWS, IMAGES = Features((Numeric("a"), Numeric("b"))), Features((Pixels("image", SIDE),))

NETWORKS: dict[str, tuple[Features, Callable[[int, int], nn.Module]]] = {
    "mlp": (ROWS, partial(mlp, hidden=(8,))),
    "tabular": (ROWS, partial(tabular, width=8, blocks=1)),
    "transformer": (ROWS, partial(transformer, width=8, depth=1, heads=2)),
    "conv4": (IMAGES, partial(conv4, width=8)),
    "resnet12": (IMAGES, partial(resnet12, widths=(8, 8), excitation=True)),
}
LEARNERS: dict[str, Callable[[Problem], Learner]] = {
    "gradient": GradientLearner,
    "prototype": partial(PrototypeLearner, width=8),
    "matching": partial(MatchingLearner, width=8),
    "memory": partial(MemoryLearner, width=8, slots=8),
    "snail": partial(SnailLearner, width=8, filters=4),
    "transformer": partial(TransformerLearner, width=8, heads=2),
}
RULES: dict[str, OuterRule] = {
    "backprop, first order": Backprop(),
    "backprop": Backprop(first_order=False),
    "backprop, 3 splits": Backprop(splits=3),
    "reptile": Reptile(),
    "implicit": Implicit(),
    "pooled": Pooled(),
}


def problem_of(network: str) -> Problem:
    """Tasks of three classes that are the same in every task."""
    features, build = NETWORKS[network]
    return Problem(
        features,
        Classification(tuple(range(CLASSES))),
        build,
        adapts="all",
        inner=InnerLoop(steps=2, lr=0.05),
        support=8,
    )


def held(learner: Callable[[Problem], Learner], problem: Problem) -> Figure:
    """How many promises a learner keeps on a network, or the one it breaks."""
    try:
        return len(check_learner(learner(problem), StreamSpec(problem)))
    except CheckFailed as broken:
        return f"BROKEN: {broken}"


def moved(learner: Callable[[Problem], Learner], problem: Problem, rule: OuterRule) -> Figure:
    """What became of a round: "moves", or why the pair is refused."""
    if isinstance(rule, Implicit):
        problem = replace(problem, inner=replace(problem.inner, proximal=1.0))
    subject = learner(problem)
    rng, count = np.random.default_rng(0), 80
    y = rng.integers(0, CLASSES, count).astype(np.float32)
    x = rng.random((count, problem.features.width), np.float32)
    source = TaskEpisodes(Examples(x, y, np.arange(count) % 4, np.zeros(count)), shots=6, queries=9)
    begun = start(subject, 0)
    try:
        state, rounds = fit(subject, rule, [source.draw(4, seed=0, step=0)], begun, FitSettings())
    except EngineError:
        return "refused"
    still = all(torch.equal(state.params[name], begun.params[name]) for name in subject.learned)
    return "moves" if rounds[0].applied and not still else "BROKEN: theta stays"


def main() -> None:
    """Check every cell of the matrix."""
    asked = arguments(__doc__ or "")
    torch.set_num_threads(1)
    rows: list[list[Figure]] = []
    figures: dict[str, Figure] = {}
    for network in list(NETWORKS)[: 1 if asked.quick else None]:
        for name, learner in LEARNERS.items():
            problem = problem_of(network)
            cells = [held(learner, problem), *(moved(learner, problem, rule) for rule in RULES.values())]
            rows.append([f"{name} on {network}", *cells])
            kept = zip(["promises", *RULES], cells, strict=True)
            figures |= {f"conformance.{name}.{network}.{column}": cell for column, cell in kept}
    show("Promises kept, and outer rules", ["", "promises", *RULES], rows)
    write(asked.json, figures)


if __name__ == "__main__":
    main()
