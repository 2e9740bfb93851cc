"""`FewShot`: meta-learned on arrays in memory, adapted to a few examples of a new task, judged on held-out ones.

It trains and judges as `reptide meta-train` and `reptide evaluate` do, and its attributes and methods are named as
scikit-learn names them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from engine.batches import even
from engine.episodes.meta_train import Place
from engine.evaluation.episodic.report import EpisodicDict
from engine.evaluation.episodic.scoring import predicted
from engine.learners.base import Learner
from engine.problem import Problem, normalises_by_batch
from engine.targets import Classification, Regression
from engine.traced import unrecorded
from engine.types import Batch, EngineError, Episodes, Float64, Params
from reptide.given import settings_of
from streams.events.wording import unheard
from streams.laboratory import EPISODES
from streams.laboratory.arrays import source_of, stored
from streams.laboratory.assembled import Laboratory, laboratory_of
from streams.laboratory.judging import judge_theta

Array = npt.NDArray[Any]
"""Also a tensor of torch, or what numpy makes an array of."""

IN_MEMORY = "the examples"
"""What messages call them."""


class FewShot:
    """A learner that has met many small tasks, and so learns a new one from a few examples.

    With `ways`, a task tells so many classes apart, whichever they are; without, `target` is what all predict.

    After `fit`: `theta_`, the meta-learned parameters; `history_`, where training stood after each stretch;
    `n_features_in_`, numbers of an example; `laboratory_`, what was trained on, judged by, and held out.
    """

    def __init__(
        self,
        learner: str | Callable[[Problem], Learner] = "prototype",
        *,
        ways: int | None = 5,
        shots: int = 1,
        target: Classification | Regression | None = None,
        network: Callable[[int, int], nn.Module] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        """A model that has seen nothing.

        Args:
            learner: gradient, prototype, matching, memory, snail or transformer; or what makes one of your own.
            ways: classes of an episode; None where classes, or values, mean the same in every task.
            shots: support examples: of each class with `ways`, else in all.
            target: what is predicted where `ways` is None.
            network: builds the torch module behind the encoder, of so many inputs and outputs; else settings name it.
            settings: any of a settings file by their path, such as {"episodes.rounds": 500, "run.device": "cuda"}.

        """
        self.learner, self.ways, self.shots = learner, ways, shots
        self.target, self.network, self.settings = target, network, settings

    def fit(self, X: Any, y: Any = None, *, say: Callable[[str], object] = unheard) -> Self:
        """Meta-train on examples.

        Args:
            X: examples [n, d], or images [n, side, side] or [n, channels, side, side]; or tasks, each a pair (X, y).
            y: labels [n] of any kind; left out where X is tasks.
            say: is told of progress, a line after each stretch; `print` will do.

        Raises:
            ReptideError, EngineError: examples or settings cannot be used; says which, and the way out.

        """
        arrays = _joined(X) if y is None else {"x": _array(X), "y": _array(y)}
        chosen = {"learner": self.learner} if isinstance(self.learner, str) else {}
        episodes = {"episodes.shots": self.shots} | (
            {} if self.ways is None else {"episodes.ways": self.ways}
        )
        given = {"examples.path": IN_MEMORY, **chosen, **episodes, **(self.settings or {})}
        settings = settings_of((), self.target, given)
        self.laboratory_ = laboratory_of(
            settings,
            lambda features: source_of(IN_MEMORY, arrays, features),
            self.network,
            None if isinstance(self.learner, str) else self.learner,
        )
        self.n_features_in_ = self.laboratory_.problem.features.width
        self.history_, rounds = [self.laboratory_.begun()], self.laboratory_.section.rounds
        stretches = self.laboratory_.stretches(self.history_[0], self.laboratory_.taught(), Place())
        for stretch in stretches:
            self.history_.append(stretch)
            say(
                f"round {stretch.state.step:,} of {rounds:,}: loss {stretch.trained_loss:.4f} on training episodes, "
                f"{stretch.held_out_loss:.4f} on validation"
            )
        self.theta_ = self.history_[-1].best
        return self

    def adapt(self, X: Any, y: Any) -> Adapted:
        """A model of one task, from its support set.

        Args:
            X: support examples [n, ...], as in `fit`.
            y: their labels [n].

        Raises:
            EngineError: nothing was fitted, or the examples are not like those of `fit`.

        """
        learner = self._fitted().learner
        x, labels = self._stored(X), _array(y)
        if len(labels) != len(x) or not len(x):
            raise EngineError(f"expected a label for each of {len(x)} support examples, got {len(labels)}")
        classes, numbers = self._numbered(labels)
        weight = torch.from_numpy(even(len(x)))
        support = Batch(x[None], torch.from_numpy(numbers)[None], weight[None])
        return Adapted(self, learner, self.theta_, support, classes)

    def evaluate(self, episodes: int = EPISODES, *, say: Callable[[str], object] = unheard) -> EpisodicDict:
        """Judge on held-out tasks, or classes, beside baselines of the same budget, as `reptide evaluate` does.

        Args:
            episodes: so many, for each number of shots.
            say: is told of progress, a line a step.

        """
        laboratory = self._fitted()

        def show(what: str, done: int, of: int) -> None:
            """Tell one step."""
            say(f"{what}: {done:,} of {of:,}")

        return judge_theta(laboratory, self.history_[-1], 1, episodes, show)

    def _fitted(self) -> Laboratory:
        if not hasattr(self, "theta_"):
            raise EngineError("this FewShot has learned nothing yet; call fit first")
        return self.laboratory_

    def _stored(self, X: Any) -> torch.Tensor:
        """Examples as stored rows [n, W]."""
        x, _ = stored(IN_MEMORY, _array(X))
        if x.shape[1] != self.n_features_in_:
            raise EngineError(f"an example has {x.shape[1]} numbers, those of fit had {self.n_features_in_}")
        return torch.from_numpy(x)

    def _numbered(self, labels: Array) -> tuple[Array | None, npt.NDArray[np.float32]]:
        """The classes of a support set, if it has any, and its labels as numbers."""
        target = self._fitted().problem.target
        if isinstance(target, Regression):
            return None, labels.astype(np.float32)
        if self.ways is None:
            known = {name: n for n, name in enumerate(target.classes)}
            unknown = [label for label in labels.tolist() if label not in known]
            if unknown:
                raise EngineError(f"label {unknown[0]!r} is none of {list(target.classes)}")
            return np.array(target.classes), np.array([known[label] for label in labels.tolist()], np.float32)
        classes, numbers = np.unique(labels, return_inverse=True)
        if len(classes) > self.ways:
            raise EngineError(
                f"the support set has {len(classes)} classes, and ways is {self.ways}; fit with more ways"
            )
        return classes, numbers.astype(np.float32)


@dataclass(frozen=True)
class Adapted:
    """A model of one task."""

    few_shot: FewShot
    learner: Learner
    theta: Params
    support: Batch
    classes_: Array | None
    """In the order of `predict_proba`; None for a regression."""

    def predict_proba(self, X: Any) -> Float64:
        """Probabilities [n, classes] of examples [n, ...].

        Raises:
            EngineError: the target is a number.

        """
        if self.classes_ is None:
            raise EngineError("a regression has no probabilities; call predict")
        said = self._said(X)[:, : len(self.classes_)]
        probabilities: Float64 = said / said.sum(axis=1, keepdims=True)
        return probabilities

    def predict(self, X: Any) -> Array:
        """The likeliest class, or the value, of examples [n, ...]."""
        if self.classes_ is None:
            return self._said(X)[:, 0]
        likeliest: Array = self.classes_[self.predict_proba(X).argmax(axis=1)]
        return likeliest

    def score(self, X: Any, y: Any) -> float:
        """Accuracy on examples [n, ...] with their labels [n]; of a regression the mean squared error, negative."""
        said, truth = self.predict(X), _array(y)
        return float(-np.square(said - truth).mean() if self.classes_ is None else (said == truth).mean())

    def _said(self, X: Any) -> Float64:
        x = self.few_shot._stored(X)[None]  # noqa: SLF001
        nothing = torch.zeros(x.shape[:2])
        episode = Episodes(self.support, Batch(x, nothing, nothing + 1))
        by_batch, target = normalises_by_batch(self.learner.problem), self.learner.problem.target
        outputs = predicted(unrecorded(self.learner), self.theta, episode, by_batch=by_batch)["inductive"][0]
        said: Float64 = target.predict(outputs.double()).numpy()
        return said


def _array(values: Any) -> Array:
    """An array of numpy; of a tensor wherever it lies."""
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)


def _joined(tasks: Sequence[tuple[Any, Any]]) -> dict[str, Array]:
    """Examples of all tasks, and which task each is of."""
    pairs = [(_array(x), _array(y)) for x, y in tasks]
    if not pairs:
        raise EngineError("fit was given no tasks; give pairs (X, y), or examples and their labels")
    return {
        "x": np.concatenate([x for x, _ in pairs]),
        "y": np.concatenate([y for _, y in pairs]),
        "task": np.repeat(np.arange(len(pairs)), [len(y) for _, y in pairs]),
    }
