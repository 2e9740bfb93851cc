"""Measure how fast one process streams, and how much of that is batching across tasks.

The embedded program, whole: file log, LMDB with every batch on disk, hedge, detector, outputs, and the trainer
publishing ever more rarely. 1,000 tasks, 32 features and the task's own past, a linear model beside an MLP
of 64-64-2 of which the heads adapt, 5 steps every 16 labels; half of the labels come 16 observations of their task
later. Beside it, in the same run, the same program with the tensor work done in a loop over tasks: `deepcopy` and
`torch.optim.SGD` for each adaptation, one forward pass for each prediction. (Everything else, the compiled scan,
encoding, rows and outputs, is batched in both: the comparison favours the loop.)
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn

from benchmarks.reporting import arguments, show, write
from engine.learners.gradient import LR, GradientLearner
from engine.outer.fit import start
from engine.stream.fold import Engine
from engine.types import SERVED, THETA, Batch, Fast, Params
from streams.assembly.embedded import embedded
from streams.program.embedded import Embedded, steps
from streams.settings.tree import Settings, validated

TASKS, FEATURES, BATCH = 1_000, 32, 8_192
EVENTS = 400_000
LATER = 16
"""Observations of the task between a delayed label and its own."""

TRAFFIC = ("even", "zipf")


class LoopLearner(GradientLearner):
    """The learner with its tensor work done one task, and one prediction, at a time."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine.spec.problem)
        self.theta, self.model = self.problem.model(), self.problem.model()
        self.names = list(self.fast_shapes)
        self.loaded: Params = {}

    def adapt(self, meta: Params, support: Batch) -> Fast:
        """Each task: copy theta, take the steps with SGD."""
        self._load(meta)
        fast = [self._adapt_one(*one) for one in _unpadded(*support)]
        fast += [fast[0]] * (len(support.x) - len(fast))
        return {name: torch.stack([one[name] for one in fast]) for name in self.names}

    def predict(self, meta: Params, fast: Fast, x: Tensor) -> Tensor:
        """Each event: its task's parameters into the model, one forward pass."""
        self._load(meta)
        outputs = []
        with torch.no_grad():
            for i in range(_distinct(x)):
                for name, values in fast.items():
                    self.model.get_parameter(name).data = values[i]
                outputs.append(self.model(x[i]))
        return torch.stack(outputs + [outputs[0]] * (len(x) - len(outputs)))

    def shared(self, meta: Params, x: Tensor) -> Tensor:
        """Each event: one forward pass of theta."""
        self._load(meta)
        with torch.no_grad():
            outputs = [self.theta(x[i : i + 1]) for i in range(_distinct(x))]
        return torch.cat(outputs + [outputs[0]] * (len(x) - len(outputs)))

    def _load(self, meta: Params) -> None:
        """A new version of theta, once."""
        if meta is not self.loaded:
            of_model = {name: value for name, value in meta.items() if name != LR}
            self.theta.load_state_dict(of_model)
            self.model.load_state_dict(of_model)
            self.loaded = meta

    def _adapt_one(self, x: Tensor, y: Tensor, weight: Tensor) -> Params:
        model = copy.deepcopy(self.theta)
        inner, present = self.problem.inner, weight > 0
        adapting = [model.get_parameter(name) for name in self.names]
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in self.fast_shapes)
        optimizer = torch.optim.SGD(adapting, lr=float(self.loaded[LR]))
        x, y, weight = x[present], y[present], weight[present]
        for _ in range(inner.steps if len(x) else 0):
            optimizer.zero_grad()
            (self.problem.target.loss(model(x), y) * weight).sum().backward()
            nn.utils.clip_grad_norm_(adapting, inner.clip)
            optimizer.step()
        return {name: parameter.detach() for name, parameter in zip(self.names, adapting, strict=True)}


class LoopEngine(Engine):
    """The engine over that learner, nothing recorded."""

    def __init__(self, engine: Engine) -> None:
        learner = LoopLearner(engine)
        super().__init__(engine.spec, learner)
        self.predict_adapted = learner.predict  # type: ignore[assignment]
        self.predict_shared = learner.shared  # type: ignore[assignment]


def _distinct(x: Tensor) -> int:
    """How many rows of a block are not padding, which repeats the first."""
    repeats = (x == x[:1]).flatten(1).all(1).tolist()
    return 1 + max((i for i, repeat in enumerate(repeats) if not repeat), default=0)


def _unpadded(x: Tensor, y: Tensor, weight: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    return zip(*(part[: _distinct(x)] for part in (x, y, weight)), strict=True)


def traffic_of(traffic: str, events: int) -> tuple[Any, Any, Any]:
    """The task [R], features [R, F] and label [R] of half as many observations as events."""
    rng = np.random.default_rng(7)
    rows = events // 2
    share = 1 / np.arange(1, TASKS + 1) if traffic == "zipf" else np.ones(TASKS)
    task = rng.choice(TASKS, rows, p=share / share.sum())
    x = rng.normal(size=(rows, FEATURES)).astype(np.float32)
    taste = rng.normal(size=(TASKS, FEATURES)) / 2
    y = (np.einsum("nf,nf->n", x, taste[task]) + x[:, 0] + rng.normal(size=rows) > 0).astype(np.int64)
    return task, x, y


def when_known(task: Any) -> Any:
    """When each label comes [R]: at once, or LATER observations of its task later; NaN where there are too few."""
    time = np.arange(len(task), dtype=np.float64)
    return np.where(np.random.default_rng(8).random(len(task)) < 0.5, time, _later(task, time))


def make_stream(path: Path, traffic: str, events: int) -> None:
    """Write a table of about that many events, half observations and half labels."""
    task, x, y = traffic_of(traffic, events)
    columns = {f"f{i}": x[:, i] for i in range(FEATURES)}
    time = np.arange(len(task), dtype=np.float64)
    table = pl.DataFrame(
        {"task": [f"user-{u}" for u in task], "time": time, "known": when_known(task), "label": y, **columns}
    )
    table.with_columns(known=pl.col("known").fill_nan(None)).write_parquet(path)


def _later(task: Any, time: Any) -> Any:
    """When each task has had LATER more observations; NaN where it never has."""
    later = np.full(len(task), np.nan)
    for u in range(TASKS):
        mine = np.flatnonzero(task == u)
        later[mine[:-LATER]] = time[mine[LATER:]] + 0.5
    return later


def settings_of(path: Path, directory: Path) -> Settings:
    """The benchmark's settings."""
    features = [{"encoder": "numeric", "name": f"f{i}"} for i in range(FEATURES)]
    tree = {
        "input": {"path": path, "task": ["task"], "time": "time", "label": "label", "label_time": "known"},
        "features": features,
        "target": {"classes": [0, 1]},
        "memory": {"support": 16, "pending": 2 * LATER, "ttl_s": 1e9},
        "outer": {"every": 20 * BATCH, "batch": 128, "support_rate": 0.1},
        "run": {"directory": directory, "batch": BATCH},
    }
    return validated(tree, "benchmarks.stream")


def measure(folder: Path, traffic: str, events: int, loop: bool) -> dict[str, float]:
    """Events per second from the second batch on: the first records the tensor operations."""
    name = f"{traffic}-{'loop' if loop else 'batched'}"
    make_stream(folder / f"{name}.parquet", traffic, events)
    program = embedded(settings_of(folder / f"{name}.parquet", folder / name))
    begin = start(program.trainer.learner, seed=0)
    program.trainer.publish(1, begin, {"position": 0, "through": 0, "window": [0, 0]})
    if loop:
        program = replace(program, worker=replace(program.worker, engine=LoopEngine(program.engine)))
    figures = timed(program)
    program.close()
    return figures


def timed(program: Embedded) -> dict[str, float]:
    """Run to the end of the log."""
    total = adaptations = 0
    began = 0.0
    served = theta = scored = 0.0
    for number, step in enumerate(steps(program)):
        if number == 0:
            began = perf_counter()
            continue
        total += step.events
        adaptations += step.adaptations
        theta, served, scored = (
            theta + step.loss_sums[THETA],
            served + step.loss_sums[SERVED],
            scored + step.scored,
        )
    seconds = perf_counter() - began
    return {
        "events_per_s": total / seconds,
        "adaptations_per_s": adaptations / seconds,
        "lift": (theta - served) / max(scored, 1),
    }


def main() -> None:
    """Measure both traffics, batched and looped."""
    options = arguments(__doc__.splitlines()[0])
    torch.set_num_threads(1)
    divisor = 10 if options.quick else 1
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for traffic in TRAFFIC:
            found[traffic] = measure(Path(folder), traffic, EVENTS // divisor, loop=False)
            found[f"{traffic} loop"] = measure(Path(folder), traffic, EVENTS // divisor, loop=True)
    slower = min(TRAFFIC, key=lambda traffic: found[traffic]["events_per_s"])
    show(
        "one process, whole program",
        ["traffic", "events/s", "x loop", "adaptations/s", "lift (nats)"],
        [
            [name, f["events_per_s"], f["events_per_s"] / found[name.split()[0] + " loop"]["events_per_s"],
             f["adaptations_per_s"], f["lift"]]
            for name, f in found.items()
        ],
    )  # fmt: skip
    figures = {
        f"{name.replace(' ', '_')}.{key}": value for name, f in found.items() for key, value in f.items()
    }
    figures |= {
        "events_per_s": found[slower]["events_per_s"],
        "loop_events_per_s": found[f"{slower} loop"]["events_per_s"],
        "x_loop": min(found[t]["events_per_s"] / found[f"{t} loop"]["events_per_s"] for t in TRAFFIC),
    }
    write(options.json, figures)


if __name__ == "__main__":
    main()
