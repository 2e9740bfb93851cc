"""SNAIL against the whole sequence run once for each query, position by position; that nothing looks ahead."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from torch import Tensor

from engine.learners.snail import ATTENTIONS, SnailLearner
from engine.types import Batch, EngineError, Fast, Params
from tests.engine import embedding_learners as common
from tests.engine.embedding_learners import WIDE, adapted, assert_close, first, outputs, stirred, wide


def learner() -> SnailLearner:
    return SnailLearner(WIDE, width=8, filters=3)


class WrittenOut:
    """One task and one query, each position computed by itself from the list of those before it."""

    def __init__(self, theta: Params, sequence: list[Tensor], dilations: list[int]) -> None:
        self.theta, self.h = theta, sequence
        for block in range(ATTENTIONS):
            self.weights = self.attend(f"attention.{block}")
            for i, dilation in enumerate(dilations if block < ATTENTIONS - 1 else ()):
                self.convolve(f"convolution.{block}.{i}", dilation)

    def linear(self, name: str, h: Tensor) -> Tensor:
        return self.theta[f"2.{name}.weight"] @ h + self.theta.get(f"2.{name}.bias", torch.zeros(()))

    def attend(self, name: str) -> Tensor:
        query, key, value = (
            [self.linear(f"{name}.{part}", h) for h in self.h] for part in ("query", "key", "value")
        )
        read = []
        for t in range(len(self.h)):
            scores = torch.stack([query[t] @ key[i] for i in range(t + 1)]) / len(key[0]) ** 0.5
            weights = torch.softmax(scores, 0)
            read.append(sum(w * v for w, v in zip(weights, value[: t + 1], strict=True)))
        self.h = [torch.cat(both) for both in zip(self.h, read, strict=True)]
        return weights

    def convolve(self, name: str, dilation: int) -> None:
        new = []
        for t, h in enumerate(self.h):
            both = self.linear(f"{name}.now", h)
            if t >= dilation:
                both = both + self.linear(f"{name}.past", self.h[t - dilation])
            f, g = both.chunk(2)
            new.append(torch.tanh(f) * torch.sigmoid(g))
        self.h = [torch.cat(both) for both in zip(self.h, new, strict=True)]

    def answer(self, labels: Tensor) -> Tensor:
        shares = self.weights[:-1] / self.weights[:-1].sum()
        found = (shares.unsqueeze(1) * labels).sum(0)
        return self.linear("output", self.h[-1]) + (found + self.theta["2.log_floor"].exp()).log()


@pytest.mark.parametrize("count", [1, 3, 6, 11])  # of 8 places
@torch.no_grad()
def test_each_query_is_answered_as_the_last_of_a_sequence_of_its_own(count: int) -> None:
    subject = learner()
    batch, queries = wide(examples=11 if count > 8 else 6), wide(examples=2, seed=1).x
    theta = stirred(subject)
    keys, asked = (subject.embed(theta, x) for x in (batch.x, queries))
    found = outputs(subject, theta, first(batch, count), queries)
    for task in range(3):
        labels = torch.eye(3)[batch.y[task, :count].long()]
        codes = torch.cat([labels, torch.ones(count, 1)], 1)
        examples = [torch.cat(pair) for pair in zip(normed(keys[task, :count]), codes, strict=True)]
        for query, output in zip(normed(asked[task]), found[task], strict=True):
            sequence = [*examples, torch.cat([query, torch.zeros(4)])]
            assert_close(output, WrittenOut(theta, sequence, [1, 2, 4, 8]).answer(labels))


def normed(keys: Tensor) -> Tensor:
    lengths: Tensor = keys.norm(dim=-1, keepdim=True)
    return keys * math.sqrt(keys.shape[-1]) / lengths


def along(fast: Fast, positions: slice) -> list[Tensor]:
    """Keys and values at some of the places of the support set, of every attention."""
    return [value[:, positions] for name, value in fast.items() if name.startswith("attention")]


@pytest.mark.parametrize("changed", [2, 5])
def test_an_example_changes_nothing_before_itself_and_everything_from_there_on(changed: int) -> None:
    subject = learner()
    theta, batch = stirred(subject), wide()
    other = batch._replace(x=batch.x.clone(), y=batch.y.clone())
    other.x[:, changed], other.y[:, changed] = 1.0, 2 - batch.y[:, changed]
    was, now = adapted(subject, theta, batch), adapted(subject, theta, other)
    place = subject.length - 6 + changed
    for a, b in zip(along(was, slice(place)), along(now, slice(place)), strict=True):
        assert torch.equal(a, b)
    last = subject.length
    for a, b in zip(along(was, slice(place, last))[-2:], along(now, slice(place, last))[-2:], strict=True):
        assert bool((a != b).any(-1).all())


@pytest.mark.parametrize("count", [0, 1, 5])
def test_what_fills_a_support_set_up_changes_nothing(count: int) -> None:
    subject = learner()
    theta, batch = stirred(subject), first(wide(), max(count, 1))
    batch = batch._replace(weight=batch.weight * (count > 0))
    common.assert_filling_up_changes_nothing(subject, theta, batch, count, places=2)


def test_ragged_support_sets_adapt_as_each_would_alone() -> None:
    subject = learner()
    theta, batch = stirred(subject), wide()
    counts = [6, 2, 4]
    weight = torch.stack([(torch.arange(6) < n) / n for n in counts])
    fast = adapted(subject, theta, batch._replace(weight=weight))
    for task, n in enumerate(counts):
        alone = adapted(subject, theta, first(Batch(*(value[task : task + 1] for value in batch)), n))
        for name, value in fast.items():
            assert_close(value[task], alone[name][0])


def test_queries_do_not_see_each_other_and_leave_what_was_kept_as_it_is() -> None:
    common.assert_queries_are_apart_and_leave_no_trace(learner())


def test_before_any_training_an_example_met_again_is_given_its_label() -> None:
    common.assert_an_example_met_again_is_given_its_label(partial(SnailLearner, width=8, filters=3))


def test_a_task_without_examples_has_finite_gradients() -> None:
    common.assert_gradients_are_finite_without_examples(learner())


def test_layers_without_channels_are_refused() -> None:
    with pytest.raises(EngineError, match="filters, the channels that a layer appends"):
        SnailLearner(WIDE, filters=0)


def test_it_learns_what_to_compare_from_episodes_of_classes_it_never_meets_again() -> None:
    before, after = common.accuracies_before_and_after_training(SnailLearner(WIDE, width=16, filters=4))
    assert before < 0.6
    assert after > 0.9
