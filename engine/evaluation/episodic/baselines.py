"""What every meta-learner must be shown beside, trained on the same tasks and as many examples.

Chen et al. 2019 (arXiv:1904.04232) find an ordinary classifier with a new head ("Baseline", here: transfer) close
to meta-learners once it is given their network. In order of what they take from the training tasks:

    majority class, support mean   nothing, and nothing of the features
    nearest mean                   the standardisation of the features alone
    random initialization          nothing: every parameter adapts from where the seed put it
    transfer                       a body, pooled over all tasks and frozen; the head adapts
    fine-tuning                    the same initialization; every parameter adapts

Where classes are exchangeable (N-way episodes) no network can be right about all tasks at once, so pooled training
is that of a classifier of all training classes, whose body is given a new head of N classes, of zeros. Examples are
trained on as they are: most task augmentation, as of numbering classes anew, makes no sense without tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.episodes.meta_train import moved, on_device
from engine.episodes.task_source import Examples, TaskSource, batch_of
from engine.evaluation.episodic.evaluate import BLOCK, Contender, entered
from engine.evaluation.episodic.scoring import scored
from engine.learners.base import Learner
from engine.learners.gradient import GradientLearner
from engine.learners.labels import mass_of
from engine.learners.prototype import PrototypeLearner
from engine.outer.base import OuterRule, Report, gradient_of, leaves
from engine.outer.descent import FitSettings
from engine.outer.fit import TrainState, fit, start, with_statistics
from engine.outer.pooled import Pooled
from engine.problem import InnerLoop, Problem
from engine.targets import Classification, Regression
from engine.types import Batch, EngineError, Episodes, Fast, Int64, Params

Progress = Callable[[str, int, int], None]
"""Is told what is done, how much of it, and of how much."""


@dataclass(frozen=True)
class PooledTraining:
    """Rounds of pooled training, of batches of `tasks` episodes, or of `examples` where classes are exchangeable.

    The outer loop is the baseline's own: a rate for pseudo-gradients says nothing about one for gradients.
    """

    rounds: int = 2000
    tasks: int = 16
    examples: int = 128
    outer: FitSettings = field(default_factory=FitSettings)
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        if min(self.rounds, self.tasks, self.examples) < 1:
            raise EngineError(f"rounds, tasks and examples must be positive, got {self}")

    @property
    def batches(self) -> int:
        """Of all rounds."""
        return self.rounds * self.outer.accumulate


@dataclass(frozen=True)
class Tuning:
    """How a step size is chosen: by the mean of the main metric over episodes of tasks that are not judged on."""

    source: TaskSource
    steps: int = 10
    """Inner steps to choose for: the last of those that contenders are judged after."""
    rates: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
    episodes: int = 100
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        if not self.rates or self.episodes < 1 or self.steps < 0:
            raise EngineError(f"a step size is chosen among some, by some episodes, got {self}")


def baselines(
    problem: Problem,
    examples: Examples,
    source: TaskSource,
    training: PooledTraining,
    tuning: Tuning,
    progress: Progress = lambda _said, _done, _of: None,
) -> list[Contender]:
    """Build every baseline from training examples and episodes of them.

    `problem` is that of the meta-learner: features, target and network are its own, its inner loop is not.
    """
    plain = replace(problem, adapts="all", inner=InnerLoop(clip=problem.inner.clip))
    head = replace(plain, adapts="head")
    unadapted = _beginning(plain, examples, training.seed)
    pooled = _pooled(plain, examples, source, training, progress)
    stepping = (
        Contender("random initialization", GradientLearner, plain, unadapted, "untrained; all adapts", False),
        Contender("transfer", GradientLearner, head, pooled, "pooled training; the head adapts"),
        Contender("fine-tuning", GradientLearner, plain, pooled, "pooled training; all adapts"),
    )
    tuned = []
    for done, one in enumerate(stepping):
        progress("tuning baselines", done, len(stepping))
        tuned.append(with_tuned_step(one, tuning))
    return [*tuned, *_untrained(plain, examples, training.seed)]


def with_tuned_step(contender: Contender, tuning: Tuning) -> Contender:
    """Choose the inner step size; the same budget for baselines and for what they are compared with.

    What takes no steps stays as it is. So, better, does a step size that training learned or went through.
    """
    if entered(contender, (tuning.steps,))[0].steps is None:
        return contender
    found = {rate: _badness(_at_rate(contender, rate), tuning) for rate in tuning.rates}
    return _at_rate(contender, min(found, key=lambda rate: found[rate]))


class SupportGuess:
    """Says the same for every query: how frequent each class is in the support set, or its mean."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem

    def adapt(self, meta: Params, support: Batch) -> Fast:
        """Outputs [U, 1, C] of U tasks: log frequencies as weighed, one example added to each class, or the mean."""
        del meta
        present, target = (support.weight > 0).any(1), self.problem.target
        if isinstance(target, Regression):
            middle = (target.low + target.high) / 2
            mean = (support.y * support.weight).sum(1)
            return {"outputs": mean.where(present, middle).view(-1, 1, 1)}
        counts = (F.one_hot(support.y.long(), target.outputs) * mass_of(support).unsqueeze(-1)).sum(1)
        return {"outputs": (counts + 1).log().unsqueeze(1)}

    def predict(self, meta: Params, fast: Fast, x: Tensor) -> Tensor:
        """Outputs [U, N, C] of U tasks for x [U, N, W]."""
        del meta
        return fast["outputs"].expand(-1, x.shape[1], -1)


def _untrained(problem: Problem, examples: Examples, seed: int) -> list[Contender]:
    """Baselines without a network."""
    target = problem.target
    if isinstance(target, Regression):
        return [
            Contender("support mean", SupportGuess, problem, {}, "says the mean of the support set", False)
        ]
    # Nothing is known of a class but its examples, even where it is the same class in every task.
    raw = replace(problem, target=replace(target, exchangeable=True), network=_as_it_is)
    build = partial(PrototypeLearner, width=problem.features.front_end().width)
    theta = with_statistics(build(raw), start(build(raw), seed), torch.from_numpy(examples.x)).params
    return [
        Contender(
            "nearest mean", build, raw, theta, "the class whose mean of raw features is nearest", False
        ),
        Contender(
            "majority class", SupportGuess, problem, {}, "the class most frequent in the support set", False
        ),
    ]


def _as_it_is(inputs: int, outputs: int) -> nn.Module:
    del inputs, outputs  # the same number
    return nn.Identity()


def _counted_in(learner: Learner, state: TrainState, examples: Examples) -> TrainState:
    """Standardise by the examples; episodes number their classes anew, so only labels that are values are counted."""
    y = torch.from_numpy(examples.y) if isinstance(learner.problem.target, Regression) else None
    return with_statistics(learner, state, torch.from_numpy(examples.x), y)


def _beginning(problem: Problem, examples: Examples, seed: int) -> Params:
    learner = GradientLearner(problem)
    return _counted_in(learner, start(learner, seed), examples).params


def _pooled(
    problem: Problem, examples: Examples, source: TaskSource, training: PooledTraining, progress: Progress
) -> Params:
    """Theta of pooled training, with a head of zeros where training knew other classes."""
    if isinstance(problem.target, Classification) and problem.target.exchangeable:
        label, count = class_of(examples)
        whole = replace(problem, target=Classification(tuple(range(count)), floor=0.5 / count))
        drawn = (_minibatch(examples, label, training, step) for step in range(training.batches))
        return _with_new_head(problem, _fitted(whole, _of_classifier, examples, drawn, training, progress))
    drawn = (source.draw(training.tasks, seed=training.seed, step=step) for step in range(training.batches))
    return _fitted(problem, Pooled(), examples, drawn, training, progress)


def class_of(examples: Examples) -> tuple[Int64, int]:
    """Number the classes of all tasks apart: the class of each example [N], and how many there are."""
    both = np.stack([examples.task, examples.y.astype(np.int64)])
    classes, label = np.unique(both, axis=1, return_inverse=True)
    return label.reshape(-1), classes.shape[1]


def _minibatch(examples: Examples, label: Int64, training: PooledTraining, step: int) -> Episodes:
    """Examples of any classes, as the query set of one episode."""
    rng = np.random.default_rng((training.seed, step))
    at, nothing = rng.integers(len(label), size=training.examples), np.empty(0, np.int64)
    query = batch_of(examples, [at], [label[at].astype(np.float32)], most=len(at))
    return Episodes(batch_of(examples, [nothing], [nothing.astype(np.float32)], most=0), query)


def _of_classifier(learner: Learner, meta: Params, episodes: Episodes) -> tuple[Params, Report]:
    """Gradient of the mean loss on the query sets: `Pooled`, without judging adaptation, which it is not for."""
    theta = leaves({name: meta[name] for name in learner.learned})
    outputs = learner.shared({**meta, **theta}, episodes.query.x.flatten(0, 1))
    loss = learner.problem.target.loss(outputs, episodes.query.y.flatten()).mean()
    return gradient_of(loss, theta), Report(np.nan, np.nan)


def _fitted(
    problem: Problem,
    rule: OuterRule,
    examples: Examples,
    episodes: Iterator[Episodes],
    training: PooledTraining,
    progress: Progress,
) -> Params:
    # What adapts has no part in pooled training; the head alone makes its report cheap.
    learner = GradientLearner(replace(problem, adapts="head"))
    state = _counted_in(learner, start(learner, training.seed), examples)
    state = replace(state, params=moved(state.params, training.device))
    counted = _counted(episodes, training, progress)
    return moved(fit(learner, rule, counted, state, training.outer)[0].params, "cpu")


def _counted(
    episodes: Iterator[Episodes], training: PooledTraining, progress: Progress
) -> Iterator[Episodes]:
    for done, drawn in enumerate(episodes, 1):
        yield on_device(drawn, training.device)
        progress("training baselines", done, training.batches)


def _with_new_head(problem: Problem, theta: Params) -> Params:
    """Theta's body, beneath a head of zeros for the classes of the problem."""
    learner = GradientLearner(replace(problem, adapts="head"))
    return theta | {name: torch.zeros(shape) for name, shape in learner.fast_shapes.items()}


def _at_rate(contender: Contender, rate: float) -> Contender:
    problem = contender.problem
    return replace(contender, problem=replace(problem, inner=replace(problem.inner, lr=rate)))


def _badness(contender: Contender, tuning: Tuning) -> float:
    """Mean error, whether a share of wrong answers or a squared error; infinite where it is not finite."""
    (entrant,), target = entered(contender, (tuning.steps,)), contender.problem.target
    found: list[float] = []
    for step in range(-(-tuning.episodes // BLOCK)):
        episodes = tuning.source.draw(BLOCK, seed=tuning.seed, step=step)
        outputs = entrant.outputs(episodes, tuning.device)[entrant.way()]
        found += scored(target, outputs, episodes.query)[0].tolist()
    mean = float(np.mean(found))
    return np.inf if not np.isfinite(mean) else -mean if isinstance(target, Classification) else mean
