"""fit: the one outer loop, offline over many rounds and online a few at a time.

An outer rule says where theta should move; a torch optimizer says how far. Everything that the next round
needs is in one value, `TrainState`, made of tensors and one integer: stopped anywhere and resumed from it,
training continues bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from engine.features.columns import Numeric
from engine.learners.base import Learner
from engine.outer.base import OuterRule, Report, averaged
from engine.outer.descent import FitSettings, descend, global_norm, resumed, state_of
from engine.outer.pooled import Pooled
from engine.outer.unpadded import Unpadded
from engine.problem import Problem, normalises_by_batch
from engine.targets import Classification, Regression
from engine.types import EngineError, Episodes, Float64, Params, is_index

T = TypeVar("T")


FAR, ENOUGH = 10.0, 64
"""Numbers are counted up to this many deviations from the mean of so many before them, or as many quartile ranges."""


MEASURED = 2**22
"""Numbers that quartiles are taken of, evenly spaced: torch sorts no more than 16 million at once."""


RARE = 1e-6
"""The rate of a class that has no name yet."""


@dataclass(frozen=True)
class Statistics:
    """Count, mean and sum of squared deviations of each number that is standardised, then of the labels; [D] float64.

    Labels are the last columns: of a regression the value, of classes an indicator each.
    """

    count: Tensor
    mean: Tensor
    m2: Tensor


@dataclass(frozen=True)
class TrainState:
    """A checkpoint of training, without the position of its input."""

    params: Params
    """Theta: every parameter and buffer of the model."""
    optimizer: Params
    """The optimizer's tensors, by "optimizer:parameter:field"; empty before the first round."""
    step: int
    """Rounds seen, those skipped among them."""
    statistics: Statistics
    """What the standardisation buffers in `params` are derived from."""
    sums: Params = field(default_factory=dict)
    """What `engine.outer.online` keeps beside the optimizer: Adagrad's sums of squares, and losses by step size."""


@dataclass(frozen=True)
class Round:
    """One round of the outer loop."""

    step: int
    report: Report
    norm: float
    """Global norm of the pseudo-gradient, before clipping."""
    applied: bool
    """Whether theta moved: false where the pseudo-gradient was not finite."""


def start(learner: Learner, seed: int) -> TrainState:
    """Begin: theta from the seed, nothing counted, no optimizer state."""
    columns = len(_numeric(learner.problem)) + learner.problem.target.outputs
    nothing = torch.zeros(3, columns, dtype=torch.float64)
    return TrainState(learner.init(seed), {}, 0, Statistics(*(part.clone() for part in nothing)))


def fit(
    learner: Learner,
    rule: OuterRule,
    episodes: Iterable[Episodes],
    state: TrainState,
    settings: FitSettings,
    combine: Callable[[Params], Params] = dict,
) -> tuple[TrainState, list[Round]]:
    """Run a round for each `accumulate` batches of episodes; a pseudo-gradient that is not finite is never applied.

    `combine` averages a pseudo-gradient over the processes that train side by side, where there are several.
    """
    params = {name: value.clone() for name, value in state.params.items()}
    theta = {name: params[name] for name in learner.learned}
    optimizer = resumed(settings, theta, state.optimizer)
    if normalises_by_batch(learner.problem) and not isinstance(
        rule, Pooled
    ):  # which leaves padding out itself
        rule = Unpadded(rule)
    rounds: list[Round] = []
    for step, batches in enumerate(batched(episodes, settings.accumulate), state.step):
        found = [rule(learner, params, batch) for batch in batches]
        gradient = combine(_mean([moves for moves, _ in found]))
        norm = global_norm(gradient)
        if math.isfinite(norm):
            descend(
                optimizer, theta, gradient, settings.rate(step), min(1.0, settings.clip / max(norm, 1e-12))
            )
        rounds.append(Round(step, averaged([report for _, report in found]), norm, math.isfinite(norm)))
    kept = state_of(optimizer, settings, theta)
    return replace(state, params=params, optimizer=kept, step=state.step + len(rounds)), rounds


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Cut into lists of `size`, the last perhaps shorter."""
    rest = iter(items)
    while taken := list(islice(rest, size)):
        yield taken


def _mean(gradients: Sequence[Params]) -> Params:
    if len(gradients) == 1:
        return gradients[0]
    return {name: sum(one[name] for one in gradients) / len(gradients) for name in gradients[0]}  # type: ignore[misc]


@np.errstate(invalid="ignore", over="ignore")  # as torch does
def with_statistics(learner: Learner, state: TrainState, x: Tensor, y: Tensor | None = None) -> TrainState:
    """Count stored rows x [N, W], and their labels y [N] if given, into the statistics; standardise by them.

    What is far from everything else is counted as if it were as far as statistics can tell: no value owns them.
    """
    problem = learner.problem
    numeric = torch.tensor(_numeric(problem), dtype=torch.int64, device=x.device)
    numbers = _bounded(x.index_select(1, numeric), state.statistics)
    labels = x.new_full((len(x), problem.target.outputs), math.nan) if y is None else _indicators(problem, y)
    statistics = merged(state.statistics, measured(torch.cat([numbers, labels], 1)))
    return replace(
        state, params={**state.params, **_standardisation(problem, statistics)}, statistics=statistics
    )


def _indicators(problem: Problem, y: Tensor) -> Tensor:
    """Labels as columns [N, C]."""
    if isinstance(problem.target, Regression):
        return y.unsqueeze(1)
    labels, outputs = y.numpy(), problem.target.outputs
    sound = is_index(labels, outputs)
    if not sound.all():
        n = int(np.flatnonzero(~sound)[0])
        raise EngineError(
            f"label {n} is {labels[n]:g}, expected {problem.target.expected}; leave such labels out"
        )
    found = np.zeros((len(labels), outputs), labels.dtype)
    found[np.arange(len(labels)), labels.astype(np.int64)] = 1
    return torch.from_numpy(found)


def _bounded(numbers: Tensor, before: Statistics) -> Tensor:
    """Numbers [N, D], none more than `FAR` deviations from the mean; or quartile ranges, where little was counted."""
    if not numbers.numel():
        return numbers
    low, high = map(torch.from_numpy, _bounds(numbers, before))
    return numbers.double().clamp(low, high).to(numbers.dtype)


def _bounds(numbers: Tensor, before: Statistics) -> tuple[Float64, Float64]:
    """The least and the most [D] that numbers [N, D] are counted as."""
    count, mean, m2 = _arrays(before, numbers.shape[1])
    std = np.sqrt(m2 / np.maximum(count, 1))
    known = (count >= ENOUGH) & (std > 0)
    quartiles = np.zeros((2, len(known)))
    if len(unknown := np.flatnonzero(~known)):
        some = numbers[:: 1 + numbers.numel() // MEASURED].index_select(1, torch.from_numpy(unknown)).double()
        quartiles[:, unknown] = torch.nanquantile(some, some.new_tensor([0.25, 0.75]), dim=0).numpy()
    between = quartiles[1] - quartiles[0]
    middle, reach = np.where(known, mean, quartiles), FAR * np.where(known, std, between)
    is_bounded = known | (between > 0)
    low = np.where(is_bounded, middle[0] - reach, -np.inf)
    return low, np.where(is_bounded, middle[1] + reach, np.inf)


def measured(numbers: Tensor) -> Statistics:
    """Measure the columns of numbers [N, D]; NaN is a number that is missing, and not counted."""
    numbers = numbers.double()
    count = (~numbers.isnan()).sum(0).double()
    mean = numbers.nansum(0) / count.clamp(min=1)
    return Statistics(count, mean, (numbers - mean).square().nansum(0))


def merged(a: Statistics, b: Statistics) -> Statistics:
    """Combine the statistics of two samples (Chan, Golub, LeVeque 1983, equations 2.1)."""
    (count_a, mean_a, m2_a), (count_b, mean_b, m2_b) = _arrays(a), _arrays(b)
    count = count_a + count_b
    share = count_b / np.maximum(count, 1)
    delta = mean_b - mean_a
    found = count, mean_a + delta * share, m2_a + m2_b + delta * delta * count_a * share
    return Statistics(*map(torch.from_numpy, found))


def _arrays(statistics: Statistics, columns: int | None = None) -> tuple[Float64, Float64, Float64]:
    """The first `columns`, or all: numpy takes a third of torch's time for vectors as short as these."""
    count, mean, m2 = (getattr(statistics, part)[:columns].numpy() for part in ("count", "mean", "m2"))
    return count, mean, m2


def _standardisation(problem: Problem, statistics: Statistics) -> Params:
    """Theta's buffers: mean and std of the numbers; of labels the rate of each class, or mean and std."""
    count, mean, m2 = _arrays(statistics)
    std = np.sqrt(m2 / np.maximum(count, 1))
    resolved = np.finfo(np.float32)
    std = np.where(std > resolved.eps * np.abs(mean) + resolved.tiny, std, 1.0)
    numbers = len(mean) - problem.target.outputs
    kept = _as_buffers({"0.mean": mean[:numbers], "0.std": std[:numbers]})
    if not isinstance(problem.target, Classification):
        return kept | _as_buffers({"0.label_mean": mean[-1], "0.label_std": std[-1]})
    named, count, rate = len(problem.target.classes), count[numbers:], mean[numbers:]
    smoothed = (count * rate + 0.5) / (count + 0.5 * named)
    return kept | _as_buffers({"0.label_rate": np.where(np.arange(len(rate)) < named, smoothed, RARE)})


def _as_buffers(values: Mapping[str, Any]) -> Params:
    return {name: torch.as_tensor(value.astype(np.float32)) for name, value in values.items()}


def _numeric(problem: Problem) -> list[int]:
    """List where in a stored row the standardised numbers are, in the order of the front end's buffers."""
    return [*problem.features.places(Numeric), *(problem.history_columns.plain if problem.history else ())]
