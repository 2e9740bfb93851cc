"""Measure how fast tasks adapt, beside a loop over tasks with torch's own optimizer, and beside learn2learn.

Five clipped steps on 16 examples of 32 numbers. What adapts is the heads of the stream's default (a linear model
beside an MLP of 64-64), head and norms of that MLP, all of it, or all of a small transformer, which stands for a
module of one's own, with its steps recorded and, where there is a C++ compiler, compiled (`inner.compile`); 32 tasks
in one call, and one task, which fills a block alone. The loop copies the module, and takes steps by
`torch.optim.SGD` and `clip_grad_norm_`. Beside it the recorded tensors that other networks adapt by, and the share of
the rate at which torch multiplies large matrices, counting what products are needed.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from time import perf_counter, thread_time

import torch
from torch import Tensor, nn

from benchmarks.reporting import Figure, arguments, show, write
from engine.features.columns import Numeric
from engine.features.encoder import Features
from engine.inductor import has_compiler
from engine.kernels.kernel import gradient_learner
from engine.learners.base import without_kernel
from engine.learners.gradient import GradientLearner
from engine.networks.mlp import mlp
from engine.networks.transformer import transformer
from engine.problem import InnerLoop, Problem
from engine.targets import Classification
from engine.types import Batch, Params

try:
    import learn2learn
except ImportError:
    learn2learn = None

FEATURES, EXAMPLES, TASKS, LOOPED = 32, 16, 32, 16
HIDDEN = (64, 64)

PROBLEM = Problem(Features(tuple(Numeric(f"f{n}") for n in range(FEATURES))), Classification((0, 1)))

BODY = FEATURES * HIDDEN[0] + HIDDEN[0] * HIDDEN[1]


@dataclass(frozen=True)
class Variant:
    """What adapts of what, and how many products and sums that takes for an example."""

    problem: Problem
    once: int = 0
    """Of an example, before the first step."""
    step: int = 0
    """Of an example, in each step."""


def variants(device: str = "cpu") -> dict[str, Variant]:
    """By the name of their figures; compiled where that is possible."""
    head = 2 * HIDDEN[1]
    between = HIDDEN[0] * HIDDEN[1]
    module = partial(transformer, width=16, depth=1, heads=2)
    found = {
        "head": Variant(_with(adapts="head", wide=True), BODY, 2 * (head + 2 * FEATURES)),
        "head_norms": Variant(_with(adapts="head+norms"), FEATURES * HIDDEN[0], 2 * between + 3 * head),
        "full": Variant(_with(adapts="all"), 0, 2 * BODY + between + 3 * head),
        "module": Variant(_with(adapts="all", network=module)),
    }
    if device == "cpu" and has_compiler():
        compiled = _with(adapts="all", network=module, inner=InnerLoop(compile=True))
        found["module_compiled"] = Variant(compiled)
    return found


def _with(**changes: object) -> Problem:
    return Problem(PROBLEM.features, PROBLEM.target, network=changes.pop("network", mlp), **changes)  # type: ignore[arg-type]


def examples(tasks: int, count: int, device: str) -> Batch:
    """Support sets of tasks that differ."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(tasks, count, FEATURES, generator=generator)
    taste = torch.randn(tasks, FEATURES, 1, generator=generator)
    y = ((x @ taste).squeeze(2) > 0).float()
    return Batch(*(column.to(device) for column in (x, y, torch.full((tasks, count), 1 / count))))


def loop(problem: Problem, theta: Params, batch: Batch) -> None:
    """Each task: a copy of the module, and steps by torch's optimizer."""
    learner = GradientLearner(problem)
    model = problem.model().to(batch.x.device)
    model.load_state_dict(theta)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in learner.fast_shapes)
    for x, y, weight in zip(*batch, strict=True):
        mine = copy.deepcopy(model)
        adapting = [mine.get_parameter(name) for name in learner.fast_shapes]
        optimizer = torch.optim.SGD(adapting, lr=problem.inner.start)
        for _ in range(problem.inner.steps):
            optimizer.zero_grad()
            (problem.target.loss(mine(x), y) * weight).sum().backward()
            nn.utils.clip_grad_norm_(adapting, problem.inner.clip)
            optimizer.step()


def by_learn2learn(problem: Problem, theta: Params, batch: Batch) -> None:
    """Each task: learn2learn's clone and steps, first order, of the whole module."""
    model = problem.model().to(batch.x.device)
    model.load_state_dict(theta)
    maml = learn2learn.algorithms.MAML(model, lr=problem.inner.start, first_order=True)
    for x, y, _ in zip(*batch, strict=True):
        clone = maml.clone()
        for _ in range(problem.inner.steps):
            clone.adapt(nn.functional.cross_entropy(clone(x), y.long()))


def best(call: Callable[[], object], repeats: int, device: str) -> float:
    """The least seconds of some calls, after one that is not counted: of the processor's time, if they run there."""
    found, clock = float("inf"), perf_counter if device == "cuda" else thread_time
    call()
    for _ in range(repeats):
        began = clock()
        call()
        if device == "cuda":
            torch.cuda.synchronize()
        found = min(found, clock() - began)
    return found


def roof(device: str, repeats: int) -> float:
    """Products and sums a second of large matrices, in billions."""
    a: Tensor = torch.randn(1024, 1024, device=device)
    return 2 * 1024**3 / best(lambda: a @ a, repeats, device) / 1e9


def measured(variant: Variant, device: str, quick: bool) -> dict[str, float]:
    """Microseconds a task: ours at many tasks, at one, and the loops."""
    problem, repeats = variant.problem, 1 if quick else 20
    learner = gradient_learner(problem)
    recorded = without_kernel(learner)
    theta = {name: value.to(device) for name, value in learner.init(0).items()}
    many, one = examples(LOOPED if quick else TASKS, EXAMPLES, device), examples(1, EXAMPLES, device)
    few = Batch(*(column[: 2 if quick else LOOPED] for column in many))
    found = {
        "us": best(lambda: learner.adapt(theta, many), repeats, device) / len(many.x),
        "recorded_us": best(lambda: recorded.adapt(theta, many), repeats, device) / len(many.x),
        "one_us": best(lambda: learner.adapt(theta, one), repeats, device),
        "loop_us": best(lambda: loop(problem, theta, few), min(repeats, 5), device) / len(few.x),
    }
    if learn2learn is not None and problem.adapts == "all":
        found["learn2learn_us"] = best(
            lambda: by_learn2learn(problem, theta, few), min(repeats, 5), device
        ) / len(few.x)
    return {name: seconds * 1e6 for name, seconds in found.items()}


def main() -> None:
    """Measure every variant."""
    options = arguments(__doc__.splitlines()[0], device=("cpu", "cuda"))
    torch.set_num_threads(1)
    device = options.chosen["device"]
    peak = roof(device, 3 if options.quick else 20)
    figures: dict[str, Figure] = {"roof_gflops": peak}
    rows: list[list[Figure]] = []
    measured_variants = variants(device)
    for name, variant in measured_variants.items():
        found = measured(variant, device, options.quick)
        needed = 2 * EXAMPLES * (variant.once + variant.problem.inner.steps * variant.step) / 1e9
        share = needed / found["us"] * 1e6 / peak
        figures |= {f"{name}_{key}": value for key, value in found.items()}
        figures[f"{name}_x_loop"] = found["loop_us"] / found["us"]
        figures[f"{name}_one_x_loop"] = found["loop_us"] / found["one_us"]
        figures[f"{name}_of_roof"] = share
        loops = found["loop_us"], found.get("learn2learn_us", "not measured")
        ratios = found["loop_us"] / found["us"], found["loop_us"] / found["one_us"]
        rows.append(
            [
                name,
                found["us"],
                found["recorded_us"],
                found["one_us"],
                *loops,
                *ratios,
                share or "not counted",
            ]
        )
    columns = [
        "adapts",
        "us a task",
        "recorded",
        "one task",
        "loop",
        "learn2learn",
        "x loop",
        "x at one",
        "of roof",
    ]
    show(f"five steps on {EXAMPLES} examples; large matrices {peak:.0f} GF/s", columns, rows)
    figures["one_task_x_loop"] = min(float(figures[f"{name}_one_x_loop"]) for name in measured_variants)
    write(options.json, figures)


if __name__ == "__main__":
    main()
