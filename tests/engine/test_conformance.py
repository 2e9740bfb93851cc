"""Every learner keeps what learners keep, on every kind of target; `benchmarks.conformance` is the whole matrix."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest

from engine.checks.learners import LEARNER_CHECKS, same_bits
from engine.checks.made_up import support_sets
from engine.checks.promises import run
from engine.checks.suite import check_learner
from engine.features.columns import Numeric
from engine.features.encoder import Features
from engine.learners.base import Learner
from engine.learners.embedding import EmbeddingLearner
from engine.learners.gradient import GradientLearner
from engine.learners.matching import MatchingLearner
from engine.learners.memory import MemoryLearner
from engine.learners.prototype import PrototypeLearner
from engine.learners.snail import SnailLearner
from engine.learners.transformer import TransformerLearner
from engine.networks.mlp import mlp
from engine.problem import Problem
from engine.stream.spec import StreamSpec
from engine.targets import Classification, Regression

NAMED = Problem(
    Features((Numeric("a"), Numeric("b"))),
    Classification(("x", "y", "z")),
    partial(mlp, hidden=(8,)),
    support=8,
)
EXCHANGEABLE = replace(NAMED, target=Classification(("x", "y", "z"), exchangeable=True))
NUMBER = replace(NAMED, target=Regression(-1.0, 3.0))

LEARNERS: dict[str, Callable[[Problem], Learner]] = {
    "prototype": partial(PrototypeLearner, width=4),
    "matching": partial(MatchingLearner, width=4),
    "matching, no context": partial(MatchingLearner, width=4, full_context=False),
    "memory": partial(MemoryLearner, width=4, slots=16),
    "snail": partial(SnailLearner, width=4, filters=4),
    "transformer": partial(TransformerLearner, width=4, heads=2),
}


@pytest.mark.parametrize("name", LEARNERS)
def test_in_a_stream_of_classes(name: str) -> None:
    check_learner(LEARNERS[name](NAMED), StreamSpec(NAMED))


@pytest.mark.parametrize("name", LEARNERS)
def test_in_episodes_whose_classes_are_numbered_anew(name: str) -> None:
    run(LEARNER_CHECKS, LEARNERS[name](EXCHANGEABLE), EXCHANGEABLE)


@pytest.mark.parametrize("name", [name for name in LEARNERS if name != "prototype"])
def test_on_a_number(name: str) -> None:
    run(LEARNER_CHECKS, LEARNERS[name](NUMBER), NUMBER)


@pytest.mark.parametrize("name", ["gradient", *LEARNERS])
def test_a_learner_that_records_nothing_adapts_to_the_same_bits(name: str) -> None:
    learner = LEARNERS.get(name, GradientLearner)(NAMED)
    assert isinstance(learner, GradientLearner | EmbeddingLearner)
    theta, support = learner.init(0), support_sets(NAMED, seed=0)
    assert same_bits(learner.adapt(theta, support), learner.unrecorded().adapt(theta, support))
