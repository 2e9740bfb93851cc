"""Matching networks: attention and both contexts by a slow loop over one task, and what theta brings of its own."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from engine.features import Features, Numeric
from engine.learners.base import fast_size, losses
from engine.learners.matching import SHARPEST, MatchingLearner
from engine.models.mlp import mlp
from engine.outer.backprop import Backprop
from engine.spec import Classification, Memory, Regression, TaskSpec
from engine.train import FitSettings, fit, start
from engine.types import Batch, EngineError, Episodes

NAMED = TaskSpec(
    Features((Numeric("a"), Numeric("b"))),
    Classification(("x", "y", "z")),
    partial(mlp, hidden=(8,)),
    memory=Memory(support=8),
)
EPISODIC = replace(NAMED, target=Classification(("x", "y", "z"), exchangeable=True))
NUMBER = replace(NAMED, target=Regression(-1.0, 3.0))

matching = partial(MatchingLearner, width=4)
alone = partial(matching, full_context=False)


def support(tasks: int = 2) -> Batch:
    """Class 2 has no example; the third place of five is padding, and holds no number."""
    x = torch.randn(tasks, 5, 2, generator=torch.Generator().manual_seed(0))
    x[:, 2] = torch.nan
    y = torch.tensor([0.0, 1, 2, 1, 0]).expand(tasks, 5)
    return Batch(x, y, torch.tensor([0.1, 0.2, 0, 0.4, 0.3]).expand(tasks, 5))


def queries(tasks: int = 2) -> torch.Tensor:
    return torch.randn(tasks, 3, 2, generator=torch.Generator().manual_seed(1))


def stirred(learner) -> dict[str, torch.Tensor]:
    """Theta away from where it begins, where things are alike, or zero."""
    generator, theta = torch.Generator().manual_seed(2), learner.init(0)
    for name in learner.learned:
        theta[name] += 0.2 * torch.randn(theta[name].shape, generator=generator)
    return theta


def outputs(learner, theta, batch: Batch, x: torch.Tensor) -> torch.Tensor:
    fast = learner.adapt_differentiably(theta, batch, second_order=False)  # not recorded, which takes a while
    return learner.predict(theta, fast, x)


# By hand


def bidirectional(context: nn.Module, width: int) -> nn.LSTM:
    """Torch's own LSTM over a sequence, with the values of two cells."""
    lstm = nn.LSTM(width, width, bidirectional=True)
    for cell, end in ((context.onward, ""), (context.backward, "_reverse")):
        for name, value in cell.named_parameters():
            getattr(lstm, f"{name}_l0{end}").data = value.data
    return lstm


def shares(scores: list[torch.Tensor], mass: list[float]) -> list[torch.Tensor]:
    raised = [m * score.exp() for m, score in zip(mass, scores, strict=True)]
    return [one / sum(raised) for one in raised]


def in_context(cell: nn.LSTMCell, f: torch.Tensor, keys, mass, reads: int) -> torch.Tensor:
    h, c = f, torch.zeros_like(f)
    for _ in range(reads):
        weights = shares([h @ key / len(f) ** 0.5 for key in keys], mass)
        read = sum(weight * key for weight, key in zip(weights, keys, strict=True))
        step, c = cell(torch.cat([f, read]), (h, c))
        h = f + step
    return h


@torch.no_grad()
def slowly(learner: MatchingLearner, theta, batch: Batch, task: int, x: torch.Tensor) -> torch.Tensor:
    """Outputs of one query of one task."""
    model, target = learner._built(0), learner.spec.target
    model.load_state_dict(theta)
    own, embed = model[2], model[:2]
    rows = (batch.weight[task] > 0).nonzero().squeeze(1)
    keys, f = embed(batch.x[task, rows]), embed(x[None])[0]
    if learner.full_context:
        both, _ = bidirectional(own.support, learner.width)(keys)
        keys = keys + both[:, : learner.width] + both[:, learner.width :]
    keys, y = list(keys), batch.y[task, rows].tolist()
    mass = (batch.weight[task, rows] * len(rows)).tolist()
    if "keys" in dict(own.match.named_parameters()):
        keys = [*own.match.keys, *keys]
        mass = own.match.log_weight.exp().tolist() + mass
        y = (["head"] if isinstance(target, Regression) else [0.0, 1.0, 2.0]) + y
    if learner.full_context:
        f = in_context(own.query.cell, f, keys, mass, learner.reads)
    scale = SHARPEST * own.match.sharpness.sigmoid()
    weights = shares([scale * torch.cosine_similarity(f, key, dim=0) for key in keys], mass)
    if isinstance(target, Regression):
        values = [1.0 + 2.0 * own.match.head(f)[0] if value == "head" else value for value in y]
        return sum(weight * value for weight, value in zip(weights, values, strict=True)).reshape(1)
    of_class = [sum(w for w, k in zip(weights, y, strict=True) if k == c) for c in range(target.outputs)]
    return torch.as_tensor(of_class).clamp(min=torch.finfo(torch.float32).tiny).log()


@pytest.mark.parametrize("spec", [NAMED, EPISODIC, NUMBER], ids=["named", "episodic", "number"])
@pytest.mark.parametrize("full_context", [True, False])
def test_a_query_takes_labels_by_attention(spec, full_context):
    learner = matching(spec, full_context=full_context)
    theta, batch, x = stirred(learner), support(), queries()
    found = outputs(learner, theta, batch, x)
    for task in range(2):
        for n in range(3):
            expected = slowly(learner, theta, batch, task, x[task, n])
            torch.testing.assert_close(found[task, n], expected, atol=1e-4, rtol=1e-4)


# The support set


def test_places_without_an_example_are_stepped_over_wherever_they_are():
    learner, x = matching(NAMED), queries()
    theta, batch = stirred(learner), support()
    without = Batch(*(torch.cat([part[:, :2], part[:, 3:]], 1) for part in batch))
    torch.testing.assert_close(outputs(learner, theta, batch, x), outputs(learner, theta, without, x))


def test_without_context_the_order_of_the_examples_does_not_matter():
    batch, x = support(), queries()
    turned = Batch(*(part[:, [4, 3, 2, 1, 0]] for part in batch))
    for learner, alike in ((alone(NAMED), True), (matching(NAMED), False)):
        theta = stirred(learner)
        pair = (outputs(learner, theta, one, x) for one in (batch, turned))
        assert torch.allclose(*pair, atol=1e-5) is alike


def test_an_example_of_twice_the_weight_counts_twice():
    learner, x, y = alone(EPISODIC), torch.randn(1, 3, 2), torch.tensor([[0.0, 1, 2]])
    theta, twice = stirred(learner), [0, 0, 1, 2]
    weighed = Batch(x, y, torch.tensor([[0.5, 0.25, 0.25]]))
    repeated = Batch(x[:, twice], y[:, twice], torch.full((1, 4), 0.25))
    torch.testing.assert_close(
        outputs(learner, theta, weighed, queries(1)), outputs(learner, theta, repeated, queries(1))
    )


def test_classes_renamed_are_outputs_renamed():
    learner, batch, x = matching(EPISODIC), support(), queries()
    theta, name = stirred(learner), torch.tensor([2, 0, 1])
    renamed = batch._replace(y=name[batch.y.long()].float())
    assert torch.equal(outputs(learner, theta, renamed, x)[..., name], outputs(learner, theta, batch, x))


def test_a_class_without_an_example_is_unlikely_and_still_costs_a_finite_loss():
    learner, batch = matching(EPISODIC), support()
    theta = learner.init(0)
    query = Batch(queries(), torch.tensor([[0.0, 1, 2]] * 2), torch.full((2, 3), 1 / 3))
    found = outputs(learner, theta, batch, query.x)
    assert bool((found[..., 2] < found[..., :2].amin(-1) - 10).all())
    moves, report = Backprop()(learner, theta, Episodes(batch, query))
    assert report.query_loss_after > 20
    assert all(bool(value.isfinite().all()) for value in moves.values())


def test_of_exchangeable_classes_without_examples_nothing_is_known():
    learner = matching(EPISODIC)
    known = learner.shared(learner.init(0), queries(1)[0])
    torch.testing.assert_close(torch.softmax(known, 1), torch.full((3, 3), 1 / 3))


def test_a_regression_without_examples_is_what_the_head_says():
    learner = alone(NUMBER)
    theta, x = stirred(learner), queries(1)[0]
    embedded = learner.embed(theta, x[None])[0]
    said = embedded @ theta["2.match.head.weight"].T + theta["2.match.head.bias"]
    torch.testing.assert_close(learner.shared(theta, x), 1.0 + 2.0 * said)


def test_more_examples_than_a_row_has_places_for_are_refused():
    with pytest.raises(EngineError, match=r"9 examples.*8 places.*set memory.support to at least 9"):
        matching(NAMED).adapt({}, Batch(torch.zeros(1, 9, 2), *torch.zeros(2, 1, 9)))


def test_a_query_that_never_reads_is_refused():
    with pytest.raises(EngineError, match="reads"):
        matching(NAMED, reads=0)


def test_a_task_keeps_a_key_a_label_and_a_mass_for_each_place():
    assert fast_size(matching(replace(NAMED, memory=Memory(support=25)))) == 32 * (4 + 2)


# Conformance and training


@pytest.mark.parametrize("spec", [NAMED, EPISODIC, NUMBER], ids=["named", "episodic", "number"])
def test_the_gradient_is_that_of_finite_differences(spec):
    learner = matching(spec)
    theta = {name: value.double() for name, value in stirred(learner).items()}
    batch = Batch(*(part.double() for part in support()))
    batch.weight[1] = 0  # a task without examples
    query = Batch(queries().double(), torch.tensor([[0.0, 1, 0]] * 2), torch.full((2, 3), 1 / 3))

    def loss(*values: torch.Tensor) -> torch.Tensor:
        meta = {**theta, **dict(zip(learner.learned, values, strict=True))}
        fast = learner.adapt_differentiably(meta, batch, second_order=False)
        return losses(learner, meta, fast, query).sum()

    values = [theta[name].requires_grad_() for name in learner.learned]
    assert torch.autograd.gradcheck(loss, values, fast_mode=True)


def episodes(rounds: int):
    """Three-way two-shot: blobs in the first column, beside noise that is louder."""
    generator = torch.Generator().manual_seed(0)
    centre = 2 * torch.randn(rounds, 16, 3, 1, generator=generator)
    for centres in centre:
        yield Episodes(*(blobs(centres, count, generator) for count in (2, 5)))


def blobs(centres: torch.Tensor, count: int, generator: torch.Generator) -> Batch:
    near = centres.repeat_interleave(count, 1)
    near = near + 0.1 * torch.randn(near.shape, generator=generator)
    x = torch.cat([near, 4 * torch.randn(near.shape, generator=generator)], -1)
    y = torch.arange(3.0).repeat_interleave(count).expand(16, -1)
    return Batch(x, y, torch.full(y.shape, 1 / y.shape[1]))


@pytest.mark.parametrize("full_context", [True, False])
def test_training_learns_what_makes_examples_alike(full_context):
    learner = MatchingLearner(EPISODIC, width=16, full_context=full_context)
    _, rounds = fit(learner, Backprop(), episodes(60), start(learner, 0), FitSettings(lr=0.01))
    early, late = (sum(r.report.query_loss_after for r in part) / 5 for part in (rounds[:5], rounds[-5:]))
    assert late < 0.5 < 0.9 < early
