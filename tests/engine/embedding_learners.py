"""What the tests of several embedding learners share: problems, support sets, and promises that each keeps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from engine.features.columns import Numeric
from engine.features.encoder import Features
from engine.learners.base import LABEL_MEAN, LABEL_STD, losses
from engine.learners.embedding import EmbeddingLearner
from engine.learners.matching import SHARPEST
from engine.networks.mlp import mlp
from engine.outer.backprop import Backprop
from engine.outer.descent import FitSettings
from engine.outer.fit import fit, start
from engine.problem import Problem
from engine.targets import Classification, Regression
from engine.types import Batch, Episodes, Fast, Params

NAMED = Problem(
    Features((Numeric("a"), Numeric("b"))),
    Classification(("x", "y", "z")),
    partial(mlp, hidden=(8,)),
    support=8,
)
EPISODIC = replace(NAMED, target=Classification(("x", "y", "z"), exchangeable=True))
NUMBER = replace(NAMED, target=Regression(-1.0, 3.0))
PROBLEMS = pytest.mark.parametrize("problem", [NAMED, EPISODIC, NUMBER], ids=["named", "episodic", "number"])

COLUMNS = 8
WIDE = replace(
    EPISODIC,
    features=Features(tuple(Numeric(f"x{i}") for i in range(COLUMNS))),
    network=partial(mlp, hidden=(32,)),
    support=6,
)


def gapped(tasks: int = 2) -> Batch:
    """Class 2 has no example; the third place of five is padding, and holds no number."""
    x = torch.randn(tasks, 5, 2, generator=torch.Generator().manual_seed(0))
    x[:, 2] = torch.nan
    y = torch.tensor([0.0, 1, 2, 1, 0]).expand(tasks, 5)
    return Batch(x, y, torch.tensor([0.1, 0.2, 0, 0.4, 0.3]).expand(tasks, 5))


def queries(tasks: int = 2) -> Tensor:
    return torch.randn(tasks, 3, 2, generator=torch.Generator().manual_seed(1))


def wide(tasks: int = 3, examples: int = 6, seed: int = 0) -> Batch:
    """Support sets for `WIDE`, of examples that weigh the same."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(tasks, examples, COLUMNS, generator=g)
    y = torch.randint(3, (tasks, examples), generator=g).float()
    return Batch(x, y, torch.full((tasks, examples), 1 / max(examples, 1)))


def first(batch: Batch, count: int) -> Batch:
    """The same tensors with only so many examples present; what fills the rest is not a number."""
    present = torch.arange(batch.y.shape[1]) < count
    weight = present.float().expand_as(batch.y) / count
    return Batch(batch.x.where(present[:, None], torch.nan), batch.y.where(present, torch.nan), weight)


def stirred(learner: EmbeddingLearner) -> Params:
    """Theta away from where it begins, where things are alike, or zero."""
    generator, theta = torch.Generator().manual_seed(2), learner.init(0)
    for name in learner.learned:
        theta[name] += 0.3 * torch.randn(theta[name].shape, generator=generator)
    if isinstance(learner.problem.target, Regression):
        theta[LABEL_MEAN], theta[LABEL_STD] = torch.tensor(0.7), torch.tensor(1.3)
    return theta


def adapted(learner: EmbeddingLearner, theta: Params, batch: Batch) -> Fast:
    """What `adapt` returns, without recording it first: that takes longer than these tests."""
    return learner.adapt_differentiably(theta, batch, second_order=False)


def outputs(learner: EmbeddingLearner, theta: Params, batch: Batch, x: Tensor) -> Tensor:
    return learner.predict(theta, adapted(learner, theta, batch), x)


def assert_close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


# One query by hand


def of_one_task(
    learner: EmbeddingLearner, theta: Params, batch: Batch, task: int, x: Tensor
) -> tuple[Any, Tensor, Tensor, list[float], Tensor]:
    """The learner's own modules; keys, standard labels and masses of a task's examples; the embedded query."""
    model = learner._built(0)
    model.load_state_dict(theta)
    own, embed = model[2], model[:2]
    rows = (batch.weight[task] > 0).nonzero().squeeze(1)
    mass = (batch.weight[task, rows] * len(rows)).tolist()
    y = batch.y[task, rows]
    if isinstance(learner.problem.target, Regression):
        y = (y - theta[LABEL_MEAN]) / theta[LABEL_STD]
    return own, embed(batch.x[task, rows]), y, mass, embed(x[None])[0]


def after_those_of_theta(
    match: Any, target: Classification | Regression, keys: Tensor, y: Tensor, mass: list[float]
) -> tuple[list[Tensor], list[Any], list[float]]:
    """Lists of keys, labels and masses: first those that theta brings, if any."""
    if "keys" not in dict(match.named_parameters()):
        return list(keys), y.tolist(), mass
    labels: list[Any] = ["head"] if isinstance(target, Regression) else [0.0, 1.0, 2.0]
    return [*match.keys, *keys], labels + y.tolist(), match.log_weight.exp().tolist() + mass


def shares(scores: list[Tensor], mass: list[float]) -> list[Tensor]:
    raised = [m * score.exp() for m, score in zip(mass, scores, strict=True)]
    return [one / sum(raised) for one in raised]


def matched(
    match: Any,
    target: Classification | Regression,
    query: Tensor,
    keys: list[Tensor],
    y: list[Any],
    mass: list[float],
) -> Tensor:
    """Outputs of one query, by the labels of the keys that it is like."""
    scale = SHARPEST * match.sharpness.sigmoid()
    weights = shares([scale * torch.cosine_similarity(query, key, dim=0) for key in keys], mass)
    if isinstance(target, Regression):
        values = [match.head(query)[0] if value == "head" else value for value in y]
        return torch.stack([w * value for w, value in zip(weights, values, strict=True)]).sum().reshape(1)
    of_class = [sum(w for w, k in zip(weights, y, strict=True) if k == c) for c in range(target.outputs)]
    return torch.as_tensor(of_class).clamp(min=torch.finfo(torch.float32).tiny).log()


def in_unit_of_labels(learner: EmbeddingLearner, theta: Params, outputs: Tensor) -> Tensor:
    if isinstance(learner.problem.target, Classification):
        return outputs
    return outputs * theta[LABEL_STD] + theta[LABEL_MEAN]


# Promises


def assert_predicts_as(slowly: Callable[..., Tensor], learner: EmbeddingLearner) -> None:
    """`slowly` takes learner, theta, support, the index of a task, and one query of it."""
    theta, batch, x = stirred(learner), gapped(), queries()
    found = outputs(learner, theta, batch, x)
    for task in range(2):
        for n in range(3):
            said = slowly(learner, theta, batch, task, x[task, n])
            expected = in_unit_of_labels(learner, theta, said)
            torch.testing.assert_close(found[task, n], expected, atol=1e-4, rtol=1e-4)


def assert_classes_renamed_are_outputs_renamed(learner: EmbeddingLearner) -> None:
    theta, batch, x, name = stirred(learner), gapped(), queries(), torch.tensor([2, 0, 1])
    renamed = batch._replace(y=name[batch.y.long()].float())
    assert torch.equal(outputs(learner, theta, renamed, x)[..., name], outputs(learner, theta, batch, x))


def assert_gradient_is_that_of_finite_differences(learner: EmbeddingLearner) -> None:
    theta = {name: value.double() for name, value in stirred(learner).items()}
    batch = Batch(*(part.double() for part in gapped()))
    batch.weight[1] = 0  # a task without examples
    query = Batch(queries().double(), torch.tensor([[0.0, 1, 0]] * 2), torch.full((2, 3), 1 / 3))

    def loss(*values: Tensor) -> Tensor:
        meta = {**theta, **dict(zip(learner.learned, values, strict=True))}
        return losses(learner, meta, adapted(learner, meta, batch), query).sum()

    values = [theta[name].requires_grad_() for name in learner.learned]
    assert torch.autograd.gradcheck(loss, values, fast_mode=True)


def assert_filling_up_changes_nothing(
    learner: EmbeddingLearner, theta: Params, batch: Batch, count: int, places: int
) -> None:
    """With only the first `count` examples present, neither that there is no more nor `places` more matter."""
    longer = Batch(*(torch.cat([value, torch.zeros_like(value[:, :places])], 1) for value in batch))
    shorter = Batch(*(value[:, :count] for value in batch))
    fast, filled, alone = (adapted(learner, theta, one) for one in (batch, longer, shorter))
    for name, value in fast.items():
        assert_close(value, alone[name])
        assert_close(value, filled[name])


def assert_queries_are_apart_and_leave_no_trace(learner: EmbeddingLearner) -> None:
    theta, x = stirred(learner), wide(seed=1).x
    fast = adapted(learner, theta, wide())
    before = {name: value.clone() for name, value in fast.items()}
    together = learner.predict(theta, fast, x)
    for n in range(x.shape[1]):
        assert_close(learner.predict(theta, fast, x[:, n : n + 1])[:, 0], together[:, n])
    assert all(torch.equal(value, before[name]) for name, value in fast.items())


def assert_an_example_met_again_is_given_its_label(of: Callable[[Problem], EmbeddingLearner]) -> None:
    for target in (NAMED.target, EPISODIC.target, NUMBER.target):
        learner, batch = of(replace(WIDE, target=target)), first(wide(), 1)
        found = outputs(learner, learner.init(0), batch, batch.x[:, :1])[:, 0]
        said = found[:, 0] if isinstance(target, Regression) else found.argmax(-1).float()
        assert_close(said, batch.y[:, 0])


def assert_gradients_are_finite_without_examples(learner: EmbeddingLearner) -> None:
    batch = wide()
    batch.weight[0] = 0
    gradient, _ = Backprop()(learner, learner.init(0), Episodes(batch, wide(seed=1)))
    assert all(bool(value.isfinite().all()) for value in gradient.values())


# Training


def losses_early_and_late(learner: EmbeddingLearner, episodes: Iterable[Episodes]) -> tuple[float, float]:
    """Query losses of the first and of the last five rounds, one for each of the episodes."""
    _, rounds = fit(learner, Backprop(), episodes, start(learner, 0), FitSettings(lr=0.01))
    early, late = (sum(r.report.query_loss_after for r in part) / 5 for part in (rounds[:5], rounds[-5:]))
    return early, late


def one_column_tells(rounds: int = 60) -> Iterator[Episodes]:
    """Three-way two-shot: blobs in the first column, beside noise that is louder."""
    generator = torch.Generator().manual_seed(0)
    for centres in 2 * torch.randn(rounds, 16, 3, 1, generator=generator):
        yield Episodes(*(_blobs(centres, count, generator) for count in (2, 5)))


def _blobs(centres: Tensor, count: int, generator: torch.Generator) -> Batch:
    near = centres.repeat_interleave(count, 1)
    near = near + 0.1 * torch.randn(near.shape, generator=generator)
    x = torch.cat([near, 4 * torch.randn(near.shape, generator=generator)], -1)
    y = torch.arange(3.0).repeat_interleave(count).expand(16, -1)
    return Batch(x, y, torch.full(y.shape, 1 / y.shape[1]))


def accuracies_before_and_after_training(learner: EmbeddingLearner) -> tuple[float, float]:
    """Accuracy on classes that training never meets."""
    begun = start(learner, 0)
    ended, _ = fit(learner, Backprop(), map(two_columns_tell, range(150)), begun, FitSettings(lr=5e-3))
    support, query = two_columns_tell(10_000, tasks=64)
    before, after = (
        float((outputs(learner, theta, support, query.x).argmax(-1) == query.y).float().mean())
        for theta in (begun.params, ended.params)
    )
    return before, after


def two_columns_tell(seed: int, tasks: int = 16) -> Episodes:
    """3-way 2-shot: two columns tell the classes of a task apart, the other six are noise as loud."""
    g = torch.Generator().manual_seed(seed)
    y = torch.arange(3).repeat(5).expand(tasks, -1)
    centres = 2 * torch.randn(tasks, 3, 2, generator=g)
    told = centres[torch.arange(tasks)[:, None], y] + 0.2 * torch.randn(tasks, 15, 2, generator=g)
    x = torch.cat([told, 2 * torch.randn(tasks, 15, COLUMNS - 2, generator=g)], -1)
    sets = (
        Batch(x[:, a:b], y[:, a:b].float(), torch.full((tasks, b - a), 1 / (b - a)))
        for a, b in ((0, 6), (6, 15))
    )
    return Episodes(*sets)
