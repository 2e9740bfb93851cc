"""Real tasks, equal tuning budgets: every learner and every baseline on tasks that none of them was trained on.

Activities of 36 users (WISDM), intents of 15 and of 10 domains (HWU64, CLINC150), frauds by customer (the fraud
handbook). Every contender has the same network, is trained on the same number of episodes, or of examples, once with
each outer learning rate, and takes what was best on validation tasks: of these trainings and, if it takes gradient
steps, of the same step sizes. Nothing was chosen on test tasks. Intervals count tasks, not episodes.

    REPTIDE_DATA=FOLDER python -m benchmarks.real_tasks [wisdm | hwu64 | clinc150 | fraud ...] [--json F] [--quick]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple, cast

import numpy as np
import torch

from benchmarks.real_fraud import fraud
from benchmarks.real_sets import SEED, Drawn, Fold, RealSet, clinc150, hwu64, wisdm
from benchmarks.reporting import Figure, show, write
from engine.evaluation.episodic.baselines import PooledTraining, Tuning, baselines
from engine.evaluation.episodic.evaluate import Contender, entered
from engine.evaluation.episodic.scoring import Adapts, scored
from engine.intervals import estimate
from engine.learners.base import Learner
from engine.learners.gradient import GradientLearner
from engine.learners.matching import MatchingLearner
from engine.learners.memory import MemoryLearner
from engine.learners.prototype import PrototypeLearner
from engine.learners.snail import SnailLearner
from engine.learners.transformer import TransformerLearner
from engine.outer.backprop import Backprop
from engine.outer.base import OuterRule
from engine.outer.descent import FitSettings
from engine.outer.fit import fit, start, with_statistics
from engine.outer.implicit import Implicit
from engine.outer.reptile import Reptile
from engine.problem import InnerLoop, Problem
from engine.types import Batch, Fast, Float64, Int64, Params

SETS = {"wisdm": wisdm, "hwu64": hwu64, "clinc150": clinc150, "fraud": fraud}
REFERENCE = "fine-tuning"
MANY_TASKS = 1_000_000


@dataclass(frozen=True)
class Budget:
    """How long each training is, and how many blocks of episodes judge it."""

    rounds: int = 200
    tasks: int = 8
    """Episodes of a round."""
    outer_rates: tuple[float, ...] = (1e-3, 5e-3)
    steps: int = 10
    """Inner steps, when judged."""
    step_sizes: tuple[float, ...] = (0.03, 0.1, 0.3, 1.0)
    folds: int | None = None
    """How many of them; None for all."""
    blocks: int | None = None


QUICK = Budget(2, 2, outer_rates=(1e-3,), steps=1, step_sizes=(0.1,), folds=1, blocks=3)


@dataclass(frozen=True)
class Recipe:
    """One meta-learner: who adapts, and how theta moves."""

    learner: Callable[[Problem], Learner]
    rule: OuterRule = Backprop()  # noqa: RUF009 - a frozen value
    inner: InnerLoop = InnerLoop(steps=5, lr=0.1)  # noqa: RUF009 - a frozen value
    adapts: str = "all"


RECIPES = {
    "MAML": Recipe(GradientLearner, Backprop(first_order=False)),
    "FOMAML": Recipe(GradientLearner),
    "ANIL": Recipe(GradientLearner, Backprop(first_order=False), adapts="head"),
    "Meta-SGD": Recipe(
        GradientLearner, Backprop(first_order=False), InnerLoop(steps=5, lr=0.1, rates="learned")
    ),
    "Reptile": Recipe(GradientLearner, Reptile(steps=5, minibatches=2)),
    "iMAML": Recipe(GradientLearner, Implicit(), InnerLoop(steps=10, lr=0.3, proximal=0.5)),
    "prototype": Recipe(PrototypeLearner),
    "matching": Recipe(MatchingLearner),
    "memory": Recipe(MemoryLearner),
    "SNAIL": Recipe(SnailLearner),
    "transformer": Recipe(TransformerLearner),
}


class Tuned(NamedTuple):
    """A contender as it was chosen."""

    contender: Contender
    validation: float
    """Its mean on the validation tasks."""


class Results(NamedTuple):
    """What one contender made of the N test episodes of all folds."""

    validation: list[float]
    metrics: list[Float64]
    """[2, N] accuracy and log loss, a fold each."""
    labels: list[Float64]
    """[queries, 2] what the last class was given, and whether it was the truth."""


class Unadapted:
    """Predicts with theta itself."""

    def __init__(self, problem: Problem) -> None:
        self.problem, self._learner = problem, GradientLearner(problem)

    def adapt(self, meta: Params, support: Batch) -> Fast:
        """Nothing, of any task."""
        del meta, support
        return {}

    def predict(self, meta: Params, fast: Fast, x: torch.Tensor) -> torch.Tensor:
        """Outputs [U, N, C] of U tasks for x [U, N, W]."""
        del fast
        return self._learner.shared(meta, x.flatten(0, 1)).view(*x.shape[:2], -1)


class BaseRates:
    """Says of every query how frequent each class was on the training tasks."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem

    def adapt(self, meta: Params, support: Batch) -> Fast:
        """The same for all U tasks: log frequencies [U, 1, C]."""
        return {"outputs": meta["log_frequency"].expand(len(support.y), 1, -1)}

    def predict(self, meta: Params, fast: Fast, x: torch.Tensor) -> torch.Tensor:
        """Outputs [U, N, C] of U tasks for x [U, N, W]."""
        del meta
        return fast["outputs"].expand(-1, x.shape[1], -1)


@lru_cache(maxsize=128)
def built(kind: Callable[[Problem], Adapts], problem: Problem) -> Adapts:
    """Build a contender once for all trainings and folds."""
    return kind(problem)


def candidates(which: RealSet, fold: Fold, budget: Budget) -> Iterator[tuple[str, list[Contender]]]:
    """Every contender of one fold, trained once with each outer learning rate."""
    for name, recipe in RECIPES.items():
        yield name, [trained(name, recipe, which, fold, budget, rate) for rate in budget.outer_rates]
    found = [plain(which, fold, budget, rate) for rate in budget.outer_rates]
    for versions in zip(*found, strict=True):
        # Without a network, or with an untrained one, there is nothing to train twice.
        alike = versions[0].name not in ("transfer", REFERENCE, "pooled, unadapted")
        yield versions[0].name, list(versions[:1] if alike else versions)


def trained(name: str, recipe: Recipe, which: RealSet, fold: Fold, budget: Budget, rate: float) -> Contender:
    """Meta-train one learner."""
    problem = replace(which.problem, inner=recipe.inner, adapts=recipe.adapts)
    learner = cast(Learner, built(recipe.learner, problem))
    begun = with_statistics(learner, start(learner, SEED), torch.from_numpy(fold.examples.x))
    episodes = (fold.training.draw(budget.tasks, seed=SEED, step=step) for step in range(budget.rounds))
    state, _ = fit(learner, recipe.rule, episodes, begun, outer(budget, rate))
    return Contender(name, partial(built, recipe.learner), problem, state.params)


def outer(budget: Budget, rate: float) -> FitSettings:
    """The outer loop of everything that is trained."""
    return FitSettings(lr=rate, schedule="cosine", steps=budget.rounds)


def plain(which: RealSet, fold: Fold, budget: Budget, rate: float) -> list[Contender]:
    """Train the baselines, pooled training on as many examples; their step sizes are chosen as all others' are."""
    examples = budget.tasks * (which.problem.support + which.queries)
    training = PooledTraining(budget.rounds, budget.tasks, examples, outer(budget, rate), SEED)
    untuned = Tuning(fold.training, steps=0, rates=budget.step_sizes[:1], episodes=1)
    found = baselines(which.problem, fold.examples, fold.training, training, untuned)
    found = [replace(one, build=partial(built, one.build)) for one in found]
    theta = next(one.theta for one in found if one.name == REFERENCE)
    return found if which.target.exchangeable else [*found, *unadapted(which, fold, theta)]


def unadapted(which: RealSet, fold: Fold, theta: Params) -> list[Contender]:
    """What knows nothing of a task; only where a class is the same class in every task."""
    counts = np.bincount(fold.examples.y.astype(np.int64), minlength=which.target.outputs)
    frequency = {"log_frequency": torch.from_numpy(counts / counts.sum()).float().log()}
    return [
        Contender("pooled, unadapted", Unadapted, which.problem, theta),
        Contender("base rate", BaseRates, which.problem, frequency),
    ]


def tuned(which: RealSet, fold: Fold, trainings: Sequence[Contender], budget: Budget) -> Tuned:
    """The training, and the step size, that are best on the validation tasks."""
    takes_steps = entered(trainings[0], (budget.steps,))[0].steps is not None
    sizes: Sequence[float | Literal["auto"]] = (
        budget.step_sizes if takes_steps else (trainings[0].problem.inner.lr,)
    )
    found = [
        (one, float(judged(which, one, fold.validation, budget)[0][int(which.by_loss)].mean()))
        for training in trainings
        for one in (at_step_size(training, size) for size in sizes)
    ]
    sign = 1 if which.by_loss else -1
    return Tuned(*min(found, key=lambda pair: sign * pair[1]))


def at_step_size(contender: Contender, size: float | Literal["auto"]) -> Contender:
    """The same initialization, adapted by other steps."""
    return replace(
        contender, problem=replace(contender.problem, inner=replace(contender.problem.inner, lr=size))
    )


def judged(which: RealSet, contender: Contender, drawn: Drawn, budget: Budget) -> tuple[Float64, Float64]:
    """Metrics [2, N] of the episodes; and of each query what the last class was given, and if it was the truth."""
    entrant = entered(contender, (budget.steps,))[0]
    metrics, labels = [], []
    for episodes in drawn.blocks[: budget.blocks]:
        outputs = entrant.outputs(episodes)[entrant.way()]
        metrics.append(scored(which.target, outputs, episodes.query))
        given = which.target.predict(outputs.double())[..., -1]
        last = which.target.outputs - 1
        pairs = torch.stack([given, (episodes.query.y == last).double()], -1)
        labels.append(pairs[episodes.query.weight > 0].numpy())
    return np.concatenate(metrics, 1), np.concatenate(labels)


def average_precision(labels: Float64) -> float:
    """Precision at each positive, averaged; equal scores in one step. `labels` [N, 2] are score and truth."""
    order = np.argsort(-labels[:, 0], kind="stable")
    score, truth = labels[order].T
    last = np.flatnonzero(np.append(np.diff(score) != 0, True))
    hits = np.cumsum(truth)[last]
    return float((np.diff(hits, prepend=0) * hits / (last + 1)).sum() / max(hits[-1], 1))


def measured(which: RealSet, budget: Budget) -> tuple[dict[str, Results], Int64]:
    """Train, tune and judge every contender, fold after fold; and the task of each test episode."""
    results: dict[str, Results] = {}
    tasks: list[Int64] = []
    for number, fold in enumerate(islice(which.folds(), budget.folds)):
        for name, trainings in candidates(which, fold, budget):
            choice = tuned(which, fold, trainings, budget)
            metrics, labels = judged(which, choice.contender, fold.test, budget)
            found = results.setdefault(name, Results([], [], []))
            found.validation.append(choice.validation)
            print(f"{name} on validation tasks: {which.shown(choice.validation)}", flush=True)
            found.metrics.append(metrics)
            found.labels.append(labels)
        task = fold.test.task[: found.metrics[-1].shape[1]]
        tasks.append(number * MANY_TASKS + task)  # a source numbers its own tasks
    return results, np.concatenate(tasks)


def table(
    which: RealSet, results: dict[str, Results], task: Int64
) -> Iterator[tuple[list[Figure], dict[str, Figure]]]:
    """A row for each contender, best on validation first, and its figures."""
    row, sign = int(which.by_loss), 1 if which.by_loss else -1
    reference = np.concatenate(results[REFERENCE].metrics, 1)[row]
    for name in sorted(results, key=lambda name: sign * float(np.mean(results[name].validation))):
        found = results[name]
        values = np.concatenate(found.metrics, 1)[row]
        mean, gain = estimate(values, task), estimate(values - reference, task)
        figures: dict[str, Figure] = {
            "validation": float(np.mean(found.validation)),
            "mean": mean.mean,
            "low": mean.low,
            "high": mean.high,
        }
        if name != REFERENCE:
            figures |= {"gain": gain.mean, "gain_low": gain.low, "gain_high": gain.high}
        cells = [which.shown(float(value)) for value in figures.values()]
        cells += [""] * (7 - len(cells))
        if which.by_loss:
            figures["average_precision"] = average_precision(np.concatenate(found.labels))
            cells.append(f"{figures['average_precision']:.3f}")
        yield [name, *cells], figures


def main() -> None:
    """Train and judge every contender on the sets that were named, or on all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sets", nargs="*", choices=[*SETS, []], metavar="SET", help=f"of {', '.join(SETS)}")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--quick", action="store_true", help="a small version that shows only that it runs")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    figures: dict[str, Figure] = {}
    for name in asked.sets or SETS:
        which, begun = SETS[name](), time.process_time()
        results, task = measured(which, QUICK if asked.quick else Budget())
        rows = []
        for cells, found in table(which, results, task):
            rows.append(cells)
            figures |= {f"real.{name}.{cells[0]}.{what}": value for what, value in found.items()}
        minutes = (time.process_time() - begun) / 60
        figures[f"real.{name}.cpu_min"] = minutes
        title = f"{which.title}; {len(task):,} episodes of {len(np.unique(task))} {which.unit}s, {minutes:.1f} min"
        against = ["- fine-tuning", "low", "high"]
        columns = ["", "validation", "test", "low", "high", *against, *(["AP"] if which.by_loss else [])]
        show(title, columns, rows)
    write(asked.json, figures)


if __name__ == "__main__":
    main()
