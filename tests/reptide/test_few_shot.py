"""`reptide.FewShot`: trained on arrays, adapted to a task, and judged, under scikit-learn's names."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from engine.learners.prototype import PrototypeLearner
from reptide import Classification, EngineError, FewShot, Regression, ReptideError

SHORT = {"episodes.rounds": 20, "episodes.every": 10, "episodes.judged": 10, "episodes.tasks": 4}


def clusters(classes: int = 50, each: int = 12) -> tuple[Any, Any]:
    """Examples about a centre a class; labels are texts."""
    drawn = np.random.default_rng(3)
    y = np.repeat(np.arange(classes), each)
    x = drawn.normal(size=(classes, 6))[y] + 0.2 * drawn.normal(size=(len(y), 6))
    return x.astype(np.float32), np.array([f"kind {n}" for n in y])


@pytest.fixture(scope="module")
def fitted() -> FewShot:
    return FewShot("prototype", ways=4, shots=2, settings=SHORT).fit(*clusters())


def test_a_task_of_new_classes_is_told_apart_after_two_examples_each(fitted: FewShot) -> None:
    x, y = clusters()
    kinds = np.unique(fitted.laboratory_.parts.held_out.y)[:3]
    names = [fitted.laboratory_.labelled.examples.y == kind for kind in kinds]
    support = np.concatenate([np.flatnonzero(which)[:2] for which in names])
    query = np.concatenate([np.flatnonzero(which)[2:] for which in names])
    model = fitted.adapt(x[support], y[support])
    assert model.classes_ is not None
    assert model.classes_.tolist() == sorted(set(y[support]))
    probabilities = model.predict_proba(x[query])
    assert probabilities.shape == (len(query), 3)
    assert probabilities.sum(axis=1) == pytest.approx(np.ones(len(query)))
    assert (model.predict(x[query]) == model.classes_[probabilities.argmax(axis=1)]).all()
    assert model.score(x[query], y[query]) > 0.9


def test_tensors_are_taken_as_arrays_are(fitted: FewShot) -> None:
    x, y = clusters()
    arrays = fitted.adapt(x[:24], y[:24]).predict_proba(x)
    tensors = fitted.adapt(torch.from_numpy(x[:24]), y[:24]).predict_proba(torch.from_numpy(x))
    assert (arrays == tensors).all()


def test_the_same_examples_and_seed_give_the_same_theta(fitted: FewShot) -> None:
    again = FewShot("prototype", ways=4, shots=2, settings=SHORT).fit(*clusters())
    assert all(torch.equal(fitted.theta_[name], value) for name, value in again.theta_.items())
    assert [stretch.state.step for stretch in again.history_] == [0, 10, 20]


def test_it_is_judged_beside_baselines_on_held_out_classes(fitted: FewShot) -> None:
    said: list[str] = []
    found = fitted.evaluate(25, say=said.append)
    assert next(iter(found["contenders"])) == "prototype"
    assert "fine-tuning" in found["contenders"]
    assert said[-1].startswith("judging: ")


@pytest.mark.parametrize("learner", ["gradient", PrototypeLearner])
def test_tasks_whose_classes_mean_the_same_are_pairs(learner: str | type[PrototypeLearner]) -> None:
    drawn, tasks = np.random.default_rng(1), []
    for task in range(12):
        x = drawn.normal(size=(30, 3)).astype(np.float32)
        tasks.append((x, np.where(x[:, 0] * (1 if task % 2 else -1) > 0, "yes", "no")))
    model = FewShot(
        learner, ways=None, shots=10, target=Classification(("no", "yes")), settings=SHORT, network=network
    )
    adapted = model.fit(tasks).adapt(*tasks[0])
    assert adapted.classes_ is not None
    assert adapted.classes_.tolist() == ["no", "yes"]
    assert set(adapted.predict(tasks[0][0])) <= {"no", "yes"}
    with pytest.raises(EngineError, match="label 'perhaps' is none of"):
        model.adapt(tasks[0][0][:1], ["perhaps"])


def network(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, 8), nn.Tanh(), nn.Linear(8, outputs))


def test_a_number_is_predicted_where_the_target_is_one() -> None:
    drawn = np.random.default_rng(1)
    x = drawn.uniform(-1, 1, size=(12, 20, 1)).astype(np.float32)
    slope = drawn.uniform(-2, 2, size=(12, 1))
    model = FewShot("gradient", ways=None, shots=5, target=Regression(-5.0, 5.0), settings=SHORT)
    adapted = model.fit([(a, s * a[:, 0]) for a, s in zip(x, slope, strict=True)]).adapt(
        x[0], slope[0] * x[0, :, 0]
    )
    assert adapted.predict(x[0]).shape == (20,)
    assert adapted.score(x[0], slope[0] * x[0, :, 0]) <= 0
    with pytest.raises(EngineError, match="a regression has no probabilities"):
        adapted.predict_proba(x[0])


def test_images_are_taken_as_they_are() -> None:
    drawn = np.random.default_rng(0)
    images, kinds = drawn.integers(0, 256, (160, 8, 8), np.uint8), np.repeat(np.arange(40), 4)
    model = FewShot(ways=3, shots=1, settings={**SHORT, "episodes.queries": 2}).fit(images, kinds)
    assert model.n_features_in_ == 64
    assert model.adapt(images[:8], kinds[:8]).predict(images).shape == (160,)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda f: FewShot().adapt([[1.0]], [1]), "call fit first"),
        (lambda f: f.adapt([[1.0] * 5], [1]), "an example has 5 numbers, those of fit had 6"),
        (lambda f: f.adapt([[1.0] * 6] * 2, [1]), "a label for each of 2 support examples, got 1"),
        (lambda f: f.adapt([[1.0] * 6] * 5, range(5)), "5 classes, and ways is 4; fit with more ways"),
        (lambda f: f.adapt([[np.nan] * 6], [1]), "not finite"),
        (lambda f: FewShot().fit([]), "no tasks"),
        (lambda f: FewShot(settings=SHORT).fit([[1.0]] * 9, [0] * 9), "classes"),
        (lambda f: FewShot("cleverest").fit(*clusters()), "learner"),
    ],
)
def test_what_cannot_be_used_is_said(fitted: FewShot, call: Any, said: str) -> None:
    with pytest.raises((EngineError, ReptideError), match=said):
        call(fitted)
