"""The transformer over a support set: attention by a slow loop over one task, and what may not matter to it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch.nn import functional as F

from engine.features import Features, Numeric
from engine.learners.base import fast_size, losses
from engine.learners.matching import SHARPEST, MatchingLearner
from engine.learners.transformer import TransformerLearner
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
SPECS = pytest.mark.parametrize("spec", [NAMED, EPISODIC, NUMBER], ids=["named", "episodic", "number"])

transformer = partial(TransformerLearner, width=4, heads=2)


def support(tasks: int = 2) -> Batch:
    """Class 2 has no example; the third place of five is padding, and holds no number."""
    x = torch.randn(tasks, 5, 2, generator=torch.Generator().manual_seed(0))
    x[:, 2] = torch.nan
    y = torch.tensor([0.0, 1, 2, 1, 0]).expand(tasks, 5)
    return Batch(x, y, torch.tensor([0.1, 0.2, 0, 0.4, 0.3]).expand(tasks, 5))


def queries(tasks: int = 2) -> torch.Tensor:
    return torch.randn(tasks, 3, 2, generator=torch.Generator().manual_seed(1))


def stirred(learner) -> dict[str, torch.Tensor]:
    """Theta away from where it begins, where the residual branches are zero."""
    generator, theta = torch.Generator().manual_seed(2), learner.init(0)
    for name in learner.learned:
        theta[name] += 0.3 * torch.randn(theta[name].shape, generator=generator)
    return theta


def outputs(learner, theta, batch: Batch, x: torch.Tensor) -> torch.Tensor:
    fast = learner.adapt_differentiably(theta, batch, second_order=False)  # not recorded, which takes a while
    return learner.predict(theta, fast, x)


# By hand


def shares(scores: list[torch.Tensor], mass: list[float]) -> list[torch.Tensor]:
    raised = [m * score.exp() for m, score in zip(mass, scores, strict=True)]
    return [one / sum(raised) for one in raised]


def moved(block, x: torch.Tensor, tokens, mass, bias: list[torch.Tensor]) -> torch.Tensor:
    """One vector x [D] by M tokens, head by head; bias: of each token, by head."""
    width, size = len(x), len(x) // block.heads
    query, normed = block.query(block.norm(x)), [block.norm_tokens(token) for token in tokens]
    read = []
    for head in range(block.heads):
        part = slice(head * size, (head + 1) * size)
        keys = [F.linear(token, block.key_value.weight[:width])[part] for token in normed]
        values = [F.linear(token, block.key_value.weight[width:])[part] for token in normed]
        scores = [query[part] @ key / size**0.5 + b[head] for key, b in zip(keys, bias, strict=True)]
        read.append(sum(w * value for w, value in zip(shares(scores, mass), values, strict=True)))
    x = x + block.joined(torch.cat(read))
    return x + block.network(x)


@torch.no_grad()
def slowly(learner: TransformerLearner, theta, batch: Batch, task: int, x: torch.Tensor) -> torch.Tensor:
    """Outputs of one query of one task."""
    model, target = learner._built(0), learner.spec.target
    model.load_state_dict(theta)
    own, embed = model[2], model[:2]
    rows = (batch.weight[task] > 0).nonzero().squeeze(1)
    y, mass = batch.y[task, rows], (batch.weight[task, rows] * len(rows)).tolist()
    tokens, q = embed(batch.x[task, rows]), embed(x[None])[0]
    nothing = torch.zeros(learner.heads)
    if isinstance(target, Regression):
        tokens = tokens + own.examples.label((y[:, None] - 1) / 2)
    elif not target.exchangeable:
        tokens = tokens + own.examples.label.weight[y.long()]
    for depth, block in enumerate(own.examples.blocks):
        alike = nothing if isinstance(target, Regression) else own.examples.alike[depth].flatten()
        biases = [[alike if a == b else nothing for b in y] for a in y]
        tokens = torch.stack([moved(block, t, tokens, mass, b) for t, b in zip(tokens, biases, strict=True)])
    tokens, y = list(tokens), y.tolist()
    if "keys" in dict(own.match.named_parameters()):
        tokens = [*own.match.keys, *tokens]
        mass = own.match.log_weight.exp().tolist() + mass
        y = (["head"] if isinstance(target, Regression) else [0.0, 1.0, 2.0]) + y
    for block in own.queries.blocks:
        q = moved(block, q, tokens, mass, [nothing] * len(tokens))
    scale = SHARPEST * own.match.sharpness.sigmoid()
    weights = shares([scale * torch.cosine_similarity(q, token, dim=0) for token in tokens], mass)
    if isinstance(target, Regression):
        values = [1.0 + 2.0 * own.match.head(q)[0] if value == "head" else value for value in y]
        return sum(weight * value for weight, value in zip(weights, values, strict=True)).reshape(1)
    of_class = [sum(w for w, k in zip(weights, y, strict=True) if k == c) for c in range(target.outputs)]
    return torch.as_tensor(of_class).clamp(min=torch.finfo(torch.float32).tiny).log()


@SPECS
def test_examples_attend_to_each_other_and_queries_to_examples(spec):
    learner = transformer(spec)
    theta, batch, x = stirred(learner), support(), queries()
    found = outputs(learner, theta, batch, x)
    for task in range(2):
        for n in range(3):
            expected = slowly(learner, theta, batch, task, x[task, n])
            torch.testing.assert_close(found[task, n], expected, atol=1e-4, rtol=1e-4)


def test_it_begins_as_a_matching_network_without_context():
    learner, plain = transformer(EPISODIC), MatchingLearner(EPISODIC, width=4, full_context=False)
    theta, batch, x = learner.init(0), support(), queries()
    same = {name: theta[name] for name in plain.init(0)}
    assert torch.equal(outputs(learner, theta, batch, x), outputs(plain, same, batch, x))


# What may not matter


@SPECS
def test_neither_the_order_of_the_examples_matters_nor_where_padding_is(spec):
    learner, batch, x = transformer(spec), support(), queries()
    theta = stirred(learner)
    turned = Batch(*(part[:, [4, 3, 1, 0]] for part in batch))
    torch.testing.assert_close(outputs(learner, theta, batch, x), outputs(learner, theta, turned, x))


def test_classes_renamed_are_outputs_renamed():
    learner, batch, x = transformer(EPISODIC), support(), queries()
    theta, name = stirred(learner), torch.tensor([2, 0, 1])
    renamed = batch._replace(y=name[batch.y.long()].float())
    assert torch.equal(outputs(learner, theta, renamed, x)[..., name], outputs(learner, theta, batch, x))


def test_which_examples_are_of_one_class_matters_to_all_of_them():
    learner, batch = transformer(EPISODIC), support()
    theta = stirred(learner)
    regrouped = batch._replace(y=torch.tensor([0.0, 0, 2, 1, 1]).expand(2, 5))
    one, other = (
        learner.adapt_differentiably(theta, part, second_order=False)["keys"] for part in (batch, regrouped)
    )
    assert bool((one - other).abs().amax(-1)[:, [0, 1, 3, 4]].gt(1e-4).all())


# What theta knows, and what a row holds


def test_of_exchangeable_classes_without_examples_nothing_is_known():
    learner = transformer(EPISODIC)
    known = learner.shared(stirred(learner), queries(1)[0])
    torch.testing.assert_close(torch.softmax(known, 1), torch.full((3, 3), 1 / 3))


def test_without_examples_each_query_is_predicted_from_what_theta_brings():
    for spec in (NAMED, NUMBER):
        learner = transformer(spec)
        known = learner.shared(stirred(learner), queries(1)[0])
        assert bool((known[0] != known[1]).all())


def test_more_examples_than_a_row_has_places_for_are_refused():
    with pytest.raises(EngineError, match=r"set memory\.support to at least 9"):
        transformer(NAMED).adapt({}, Batch(torch.zeros(1, 9, 2), *torch.zeros(2, 1, 9)))


@pytest.mark.parametrize("sizes", [{"depth": 0}, {"heads": 0}, {"heads": 3}])
def test_sizes_that_make_no_transformer_are_refused(sizes):
    with pytest.raises(EngineError, match="heads divide width"):
        TransformerLearner(NAMED, **{"width": 4, **sizes})


def test_a_task_keeps_a_token_a_label_and_a_mass_for_each_place_however_deep():
    spec = replace(NAMED, memory=Memory(support=25))
    assert fast_size(transformer(spec, depth=3)) == 32 * (4 + 2)


# Conformance and training


@SPECS
def test_the_gradient_is_that_of_finite_differences(spec):
    learner = transformer(spec)
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


def test_training_learns_what_makes_examples_alike():
    """Three-way two-shot: blobs in the first column, beside noise that is louder."""
    learner, generator = TransformerLearner(EPISODIC, width=16, depth=1), torch.Generator().manual_seed(0)

    def blobs(centres: torch.Tensor, count: int) -> Batch:
        near = centres.repeat_interleave(count, 1)
        near = near + 0.1 * torch.randn(near.shape, generator=generator)
        x = torch.cat([near, 4 * torch.randn(near.shape, generator=generator)], -1)
        y = torch.arange(3.0).repeat_interleave(count).expand(16, -1)
        return Batch(x, y, torch.full(y.shape, 1 / y.shape[1]))

    centres = 2 * torch.randn(60, 16, 3, 1, generator=generator)
    episodes = [Episodes(blobs(one, 2), blobs(one, 5)) for one in centres]
    _, rounds = fit(learner, Backprop(), episodes, start(learner, 0), FitSettings(lr=0.01))
    early, late = (sum(r.report.query_loss_after for r in part) / 5 for part in (rounds[:5], rounds[-5:]))
    assert late < 0.5 < 0.9 < early, (early, late)


def test_training_learns_a_family_of_lines():
    """A task is a line of its own slope through the middle, told by four points; the mean of them tells nothing."""
    learner, generator = TransformerLearner(NUMBER, width=16, depth=1), torch.Generator().manual_seed(0)

    def line(slopes: torch.Tensor, count: int) -> Batch:
        x = torch.rand(16, count, 2, generator=generator) * 2 - 1
        return Batch(x, 1 + slopes * x[..., 0], torch.full((16, count), 1 / count))

    slopes = torch.rand(100, 16, 1, generator=generator) * 4 - 2
    episodes = [Episodes(line(one, 4), line(one, 8)) for one in slopes]
    _, rounds = fit(learner, Backprop(), episodes, start(learner, 0), FitSettings(lr=0.01))
    late = sum(r.report.query_loss_after for r in rounds[-5:]) / 5
    assert late < 0.2, late
