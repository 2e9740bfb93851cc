"""The whole family: what each learner and outer rule costs in time, memory and bytes a task.

Two settings, with random numbers as examples, since no cost depends on the values: a stream's tabular tasks (32
features, MLP 64-64, 5 classes that are the same in every task, 5 examples of each, 15 queries, 32 tasks a batch), and
few-shot images (28x28, Conv-4, 5-way 1-shot, 5 queries a class, 8 tasks a batch). Five inner steps wherever there
are any. Where learn2learn can be imported it runs beside, in turn with ours; a plain loop over tasks always does.

    python -m benchmarks.family [--json F] [--quick]

Times are of the processor, the median call of one thread. Memory is the most bytes of tensors that were alive at
once of those that one training step made, without the scratch space inside kernels: the same in every run.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from statistics import median
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from benchmarks.family_learn2learn import (
    LEARN2LEARN,
    learn2learned,
    learn2learned_prototypes,
    looped,
    looped_prototypes,
)
from benchmarks.reporting import Figure, arguments, show, write
from engine.batches import BLOCK
from engine.features.columns import Numeric
from engine.features.encoder import Features
from engine.features.pixels import Pixels
from engine.learners.base import Learner, TakesSteps, fast_size
from engine.learners.gradient import GradientLearner
from engine.learners.matching import MatchingLearner
from engine.learners.memory import MemoryLearner
from engine.learners.prototype import PrototypeLearner
from engine.learners.snail import SnailLearner
from engine.learners.transformer import TransformerLearner
from engine.networks.conv4 import conv4
from engine.networks.mlp import mlp
from engine.outer.backprop import Backprop
from engine.outer.base import OuterRule
from engine.outer.implicit import Implicit
from engine.outer.pooled import Pooled
from engine.outer.reptile import Reptile
from engine.problem import InnerLoop, Problem
from engine.stream.layout import layout_of
from engine.stream.predictors import AT_ONCE
from engine.stream.spec import StreamSpec
from engine.targets import Classification
from engine.traced import Recorded
from engine.types import Batch, Episodes, Params

FEATURES, SIDE, WAYS, STEPS = 32, 28, 5, 5
FIRST_ORDER, SECOND_ORDER = Backprop(), Backprop(first_order=False)
INNER = InnerLoop(steps=STEPS, lr=0.01, clip=10)
MEBIBYTE = 2**20


@dataclass(frozen=True)
class Setting:
    """One kind of task."""

    name: str
    features: Features
    network: Callable[..., torch.nn.Module]
    exchangeable: bool
    shots: int
    queries: int
    """Of a task."""
    tasks: int
    """Of a batch."""

    def problem(self, adapts: str, inner: InnerLoop) -> Problem:
        """Describe the tasks."""
        target = Classification(tuple(range(WAYS)), exchangeable=self.exchangeable)
        support = WAYS * self.shots
        return Problem(self.features, target, self.network, adapts=adapts, inner=inner, support=support)

    def episodes(self, tasks: int) -> Episodes:
        """Draw so many tasks of random numbers, with classes in equal parts."""
        generator = torch.Generator().manual_seed(0)

        def side(examples: int) -> Batch:
            x = torch.rand(tasks, examples, self.features.width, generator=generator)
            y = (torch.arange(examples) % WAYS).float().expand(tasks, -1)
            return Batch(x, y, torch.full((tasks, examples), 1 / examples))

        return Episodes(side(WAYS * self.shots), side(self.queries))


NUMBERS = Features(tuple(Numeric(f"x{i}") for i in range(FEATURES)))
SETTINGS = (
    Setting("tabular", NUMBERS, mlp, exchangeable=False, shots=5, queries=15, tasks=32),
    Setting("images", Features((Pixels("x", SIDE),)), conv4, exchangeable=True, shots=1, queries=25, tasks=8),
)


@dataclass(frozen=True)
class Method:
    """One row: a learner under an outer rule."""

    name: str
    learner: Callable[[Problem], Learner] = GradientLearner
    rule: OuterRule = FIRST_ORDER
    adapts: str = "all"
    inner: InnerLoop = INNER


METHODS = (
    Method("MAML", rule=SECOND_ORDER),
    Method("FOMAML"),
    Method("FOMAML, head and norms", adapts="head+norms"),
    Method("ANIL", rule=SECOND_ORDER, adapts="head"),
    Method(
        "Meta-SGD",
        rule=SECOND_ORDER,
        inner=replace(INNER, rates="learned"),
    ),
    Method("Reptile", rule=Reptile(steps=STEPS, minibatches=STEPS)),
    Method("iMAML", rule=Implicit(), inner=replace(INNER, proximal=2.0)),
    Method("pooled + fine-tuning", rule=Pooled()),
    Method("prototype", PrototypeLearner),
    Method("matching", partial(MatchingLearner, full_context=False)),
    Method("matching, full context", MatchingLearner),
    Method("memory", MemoryLearner),
    Method("SNAIL", SnailLearner),
    Method("transformer", TransformerLearner),
)

Step = Callable[[], Params]
"""One training step: a batch of tasks to the gradient of theta."""


@dataclass(frozen=True)
class Effort:
    """How long is measured."""

    seconds: float
    """Of processor time for one of the calls that are compared, at least."""
    calls: int
    """At least."""


def steps_of(method: Method, setting: Setting, tasks: int) -> dict[str, Step]:
    """The training step as ours, and where there is a counterpart, as a loop and by learn2learn."""
    learner, episodes = method.learner(setting.problem(method.adapts, method.inner)), setting.episodes(tasks)
    theta = learner.init(0)
    steps: dict[str, Step] = {"ours": lambda: method.rule(learner, theta, episodes)[0]}
    # Without vmap, gradients of the norms and head of Conv-4 alone end in a segmentation fault of torch 2.13 (CPU).
    if (
        isinstance(learner, TakesSteps)
        and isinstance(method.rule, Backprop)
        and method.adapts != "head+norms"
    ):
        given, order = (learner, learner.problem.model(), theta, episodes), not method.rule.first_order
        steps["loop"] = partial(looped, *given, second_order=order)
        if LEARN2LEARN and method.adapts == "all":
            steps["learn2learn"] = partial(learn2learned, *given, second_order=order)
    # Where theta brings prototypes of its own, there is no counterpart.
    if method.learner is PrototypeLearner and setting.exchangeable:
        network = torch.nn.Sequential(*learner.problem.modules(PrototypeLearner(learner.problem).width))
        steps["loop"] = partial(looped_prototypes, learner, network, theta, episodes)
        if LEARN2LEARN:
            steps["learn2learn"] = partial(learn2learned_prototypes, network, theta, episodes)
    return steps


def spent(steps: Mapping[str, Callable[[], object]], effort: Effort) -> dict[str, float]:
    """Processor seconds of a call of each, the median; called in turn, so that all meet the same machine."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    while any(len(taken) < effort.calls for taken in seconds.values()) or all(
        sum(taken) < effort.seconds for taken in seconds.values()
    ):
        for name, step in steps.items():
            began = time.process_time()
            step()
            seconds[name].append(time.process_time() - began)
    return {name: median(taken) for name, taken in seconds.items()}


def peak_bytes(step: Step) -> int:
    """The most bytes of tensors that were alive at once of those that a step made, its result among them."""
    with Alive() as alive:
        step()
    return int(alive.most)


class Alive(TorchDispatchMode):
    """Counts the bytes of the storages that operations make while it is active, for as long as they are alive."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.most = 0
        self._known = WeakIdKeyDictionary()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation; what it is given is not of its making."""
        for storage in _storages((args, kwargs)):
            self._known[storage] = True
        made = func(*args, **(kwargs or {}))
        for storage in _storages(made):
            if storage not in self._known:
                self._known[storage] = True
                self._count(storage.nbytes())
                weakref.finalize(storage, self._count, -storage.nbytes())
        return made

    def _count(self, size: int) -> None:
        self.now += size
        self.most = max(self.most, self.now)


def _storages(values: Any) -> list[torch.UntypedStorage]:
    return [leaf.untyped_storage() for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor)]


def difference(a: Params, b: Params) -> float:
    """How far two gradients are apart, as a part of their length."""
    names = [name for name in b if name in a]
    one, other = (torch.cat([side[name].flatten() for name in names]) for side in (a, b))
    return float((one - other).norm() / other.norm())


@cache
def served(method: Method, setting: Setting, effort: Effort, block: int, predicted: int) -> dict[str, float]:
    """Adaptations of a block of tasks, and predictions for one of each task of a block, as the stream calls them."""
    learner = method.learner(setting.problem(method.adapts, method.inner))
    theta, support = learner.init(0), setting.episodes(block).support
    predict = Recorded(learner.predict)
    adapted = learner.adapt(theta, setting.episodes(1).support)
    fast = {name: value.expand(predicted, *value.shape[1:]).contiguous() for name, value in adapted.items()}
    x = setting.episodes(predicted).query.x[:, :1]
    calls: dict[str, Callable[[], object]] = {
        "adapted": lambda: learner.adapt(theta, support),
        "predictions": lambda: predict(theta, fast, x),
    }
    for call in calls.values():
        call()
    seconds = {name: spent({name: call}, effort)[name] for name, call in calls.items()}
    return {
        "adapted_per_s": block / seconds["adapted"],
        "predictions_per_s": predicted / seconds["predictions"],
    }


def sizes(method: Method, setting: Setting) -> dict[str, int]:
    """Parameters of theta, and bytes of one task."""
    problem = setting.problem(method.adapts, method.inner)
    learner = method.learner(problem)
    theta = learner.init(0)
    return {
        "theta": sum(theta[name].numel() for name in learner.learned),
        "fast_bytes": 4 * fast_size(learner),
        "row_bytes": layout_of(StreamSpec(problem), learner).bytes_per_task,
    }


def measured(method: Method, setting: Setting, effort: Effort, quick: bool) -> dict[str, float]:
    """All figures of one row."""
    tasks, block, predicted = (2, 2, 2) if quick else (setting.tasks, BLOCK, AT_ONCE)
    steps = steps_of(method, setting, tasks)
    figures: dict[str, float] = dict(sizes(method, setting))
    gradients = {name: step() for name, step in steps.items()}  # the first call of each, which records
    for name, seconds in spent(steps, effort).items():
        figures[f"{name}.tasks_per_s"] = tasks / seconds
        figures[f"{name}.peak_bytes"] = peak_bytes(steps[name])
        figures[f"{name}.difference"] = difference(gradients["ours"], gradients[name])
    # A learner serves alike whichever rule trained it.
    untrained = replace(method, name="", rule=FIRST_ORDER)
    return figures | served(untrained, setting, effort, block, predicted)


def rate(per_s: float) -> str:
    """Three digits or more."""
    return f"{per_s:,.0f}" if per_s >= 100 else f"{per_s:.1f}"


def costs(name: str, found: Mapping[str, float]) -> list[Figure]:
    """A row of the table of costs."""
    return [
        name,
        rate(found["ours.tasks_per_s"]),
        f"{found['ours.peak_bytes'] / MEBIBYTE:.1f}",
        rate(found["adapted_per_s"]),
        rate(found["predictions_per_s"]),
        f"{found['theta']:,}",
        f"{found['fast_bytes']:,}",
        f"{found['row_bytes']:,}",
    ]


def compared(name: str, found: Mapping[str, float]) -> list[list[Figure]]:
    """Rows of the comparison: each other way to take the step, as a ratio to ours."""
    return [
        [
            f"{name}: {other}",
            rate(found[f"{other}.tasks_per_s"]),
            f"{found['ours.tasks_per_s'] / found[f'{other}.tasks_per_s']:.2f}",
            f"{found[f'{other}.peak_bytes'] / MEBIBYTE:.1f}",
            f"{found['ours.peak_bytes'] / found[f'{other}.peak_bytes']:.1f}",
            f"{found[f'{other}.difference']:.0e}",
        ]
        for other in ("loop", "learn2learn")
        if f"{other}.tasks_per_s" in found
    ]


COSTS = (
    "",
    "trained tasks/s",
    "peak MiB",
    "adapted tasks/s",
    "predictions/s",
    "theta",
    "fast bytes",
    "row bytes",
)
COMPARED = ("one task at a time", "tasks/s", "ours/its", "peak MiB", "ours/its", "gradient differs by")


def main() -> None:
    """Measure every method on both kinds of task."""
    asked = arguments(__doc__ or "")
    torch.set_num_threads(1)
    effort = Effort(0.0, 1) if asked.quick else Effort(0.3, 3)
    if not LEARN2LEARN:
        print("learn2learn cannot be imported: only the plain loop stands beside.")
    figures: dict[str, Figure] = {}
    for setting in SETTINGS:
        rows: list[list[Figure]] = []
        others: list[list[Figure]] = []
        for method in METHODS:
            found = measured(method, setting, effort, asked.quick)
            rows.append(costs(method.name, found))
            print(setting.name, *rows[-1], sep=" | ", flush=True)
            others += compared(method.name, found)
            figures |= {f"family.{setting.name}.{method.name}.{key}": value for key, value in found.items()}
        show(f"{setting.name}, {setting.tasks} tasks a batch", COSTS, rows)
        show(f"{setting.name}, the same step one task at a time", COMPARED, others)
    write(asked.json, figures)


if __name__ == "__main__":
    main()
