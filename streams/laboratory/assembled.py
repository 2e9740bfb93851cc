"""Settings and examples to what meta-training and evaluation share: a problem, its learner, and episodes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from hashlib import blake2b
from pathlib import Path

import torch
from torch import nn

from engine.checks.models import MODEL_CHECKS, OFFLINE_CHECKS
from engine.checks.promises import run
from engine.episodes.meta_train import MetaTraining, Place, Stretch, begun, meta_train
from engine.episodes.task_source import Examples as TaskExamples
from engine.episodes.task_source import TaskSource
from engine.evaluation.episodic.baselines import class_of
from engine.evaluation.episodic.evaluate import BLOCK, tasks_of
from engine.features.encoder import Features
from engine.learners.base import Learner
from engine.learners.gradient import GradientLearner
from engine.outer.base import OuterRule, leaves
from engine.outer.descent import FitSettings
from engine.outer.fit import start, with_statistics
from engine.problem import Problem
from engine.targets import Classification
from engine.types import Batch, EngineError, Params
from streams.assembly import learners
from streams.errors import InputError, SettingsError
from streams.laboratory import EPISODES
from streams.laboratory.arrays import read_arrays
from streams.laboratory.augmentation import augmented
from streams.laboratory.source import Labelled, Source, labelled, sound
from streams.laboratory.splits import Parts, source, split
from streams.laboratory.tables import read_table
from streams.settings.examples import Episodes, Examples
from streams.settings.learning import Target
from streams.settings.tree import Settings, required

CHANGEABLE = {"rounds", "patience", "judged_shots", "steps"}
"""Of [episodes]: what may be another when training goes on, or when theta is evaluated."""


@dataclass(frozen=True)
class Laboratory:
    """Everything made of one settings file."""

    settings: Settings
    section: Episodes
    problem: Problem
    builds: Callable[[Problem], Learner]
    """Makes the learner of a problem, such as one of other inner steps."""
    learner: Learner
    labelled: Labelled
    parts: Parts

    @property
    def serves(self) -> bool:
        """Whether `run` could begin with theta: there is a stream of its features and target."""
        return _streamed(self.settings, self.section)

    @property
    def said(self) -> str:
        """What was read, and how it was split."""
        refused = self.labelled.refused
        left_out = f"; {len(refused):,} refused, the first: {refused[0].detail}" if refused else ""
        parts = zip(("training", "validation", "held out"), self.parts, strict=True)
        sizes = [f"{name} {self._size(part)}" for name, part in parts if part is not None]
        return f"{self.labelled.said}{left_out}: {', '.join(sizes)}"

    def _size(self, part: TaskExamples) -> str:
        if self.section.ways is None:
            return f"{len(part.y):,}"
        return f"{len(part.y):,} of {class_of(part)[1]:,} classes"

    @property
    def rule(self) -> OuterRule:
        """The outer rule."""
        return learners.RULES[self.settings.outer.rule]()

    @property
    def fit(self) -> FitSettings:
        """How pseudo-gradients become steps; a rate that falls is 0 at the end of training, if not told otherwise."""
        outer = self.settings.outer
        if outer.schedule != "constant" and not outer.steps:
            outer = outer.model_copy(update={"steps": self.section.rounds})
        return replace(learners.fit_settings(outer), accumulate=self.section.accumulate)

    @property
    def training(self) -> MetaTraining:
        """How long training takes."""
        e = self.section
        return MetaTraining(e.rounds, e.tasks, e.every, e.judged, e.patience, self.settings.run.seed)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the examples and of everything that decides which of them theta has met, and how."""
        tree = self.settings.model_dump(mode="json", include={"learner", "model", "inner", "outer"})
        tree["episodes"] = self.section.model_dump(mode="json", exclude=CHANGEABLE)
        tree["seed"], tree["features"] = self.settings.run.seed, self.problem.features.schema()
        tree["outer"]["steps"] = self.fit.steps
        digest = blake2b(json.dumps(tree, sort_keys=True).encode(), digest_size=16)
        for column in self.labelled.examples:
            digest.update(column.tobytes())
        return digest.hexdigest()

    @property
    def judged_shots(self) -> tuple[int, ...]:
        """Support examples that an evaluation judges with."""
        return self.section.judged_shots or (self.section.shots,)

    def begun(self) -> Stretch:
        """Nothing trained yet, but the statistics of what is trained on."""
        first = start(self.learner, self.settings.run.seed)
        return begun(with_statistics(self.learner, first, torch.from_numpy(self.parts.training.x)))

    def stretches(self, now: Stretch, source: TaskSource, place: Place) -> Iterator[Stretch]:
        """Go on training from a stretch, on episodes of a source."""
        return meta_train(
            self.learner, self.rule, source, self.judges(), self.training, self.fit, now, place
        )  # fmt: skip

    def check(self) -> None:
        """Refuse now what the first episode, or the evaluation after the last, would refuse."""
        self.taught()
        self.judges()
        GradientLearner(replace(self.problem, adapts="head"))  # a baseline
        _ = self.fit
        if self.serves:
            learners.fit_settings(self.settings.outer)
        theta = self.learner.init(0)
        theta |= leaves({name: theta[name] for name in self.learner.learned})
        for shots in dict.fromkeys((self.section.shots, *self.judged_shots)):
            self._try("training", self.plain(shots), shots, theta)
        for shots in self.judged_shots:
            self._try("held-out", self.held_out(shots), shots, theta)

    def _try(self, part: str, episodes: TaskSource, shots: int, theta: Params) -> None:
        """Draw a block of episodes, and adapt to one of the most support examples."""
        seed = self.settings.run.seed
        try:
            tasks_of(episodes, EPISODES, seed)
            support = episodes.draw(BLOCK, seed=seed, step=0).support
            largest = (support.weight > 0).sum(1).argmax()
            support = Batch(*(column[largest].unsqueeze(0) for column in support))
            self.learner.adapt_differentiably(theta, support, second_order=True)
        except EngineError as error:
            raise SettingsError(
                f"[episodes]: in the {part} part of the examples, with {shots} shots: {error}"
            ) from error

    def taught(self) -> TaskSource:
        """Episodes to train on, augmented."""
        return augmented(self.plain(self.section.shots), self.section, self.problem, self.parts.training)

    def plain(self, shots: int) -> TaskSource:
        """Episodes of training tasks as they are."""
        return source(self.parts.training, self.section, shots, "training")

    def judges(self) -> TaskSource | None:
        """Episodes that judge theta while it is trained; None without a validation part."""
        if self.parts.validation is None:
            return None
        return source(self.parts.validation, self.section, self.section.shots, "validation")

    def held_out(self, shots: int) -> TaskSource:
        """Episodes to evaluate on."""
        return source(self.parts.held_out, self.section, shots, "held-out")


def laboratory(settings: Settings) -> Laboratory:
    """Read the examples that the settings name, and split them.

    Raises:
        SettingsError: settings do not go together, or with the examples.
        InputError: the examples cannot be read.

    """
    return laboratory_of(settings, lambda features: _source(settings, features))


def laboratory_of(
    settings: Settings,
    opened: Callable[[Features], Source],
    network: Callable[[int, int], nn.Module] | None = None,
    builds: Callable[[Problem], Learner] | None = None,
) -> Laboratory:
    """Split the examples of a source, which is opened with the features that the settings name.

    `network` and `builds` take the places of the network and the learner that the settings name.

    Raises:
        SettingsError: settings do not go together, or with the examples.
        InputError: the examples cannot be read.

    """
    section = required(settings.episodes, "episodes")
    learners.usable(settings.run.device)
    _check(settings, section)
    problem = _problem(settings, section)
    problem = problem if network is None else replace(problem, network=network)
    builds = builds or partial(learners.learner, settings)
    found = _read(settings, section, opened(problem.features), problem)
    problem = replace(problem, features=found.features)
    run(MODEL_CHECKS if _streamed(settings, section) else OFFLINE_CHECKS, problem)
    parts = split(found.examples, section, settings.run.seed)
    made = Laboratory(settings, section, problem, builds, builds(problem), found, parts)
    made.check()
    return made


def _streamed(settings: Settings, section: Episodes) -> bool:
    """Whether there is a stream of the same features and target."""
    return settings.input is not None and section.ways is None


def _check(settings: Settings, section: Episodes) -> None:
    if section.ways is not None and settings.target != Target():
        raise SettingsError(
            "episodes.ways: an episode draws its classes from those in the examples; leave [target] out, or ways"
        )
    if section.ways is not None and settings.outer.rule == "pooled":
        raise SettingsError(
            "outer.rule: 'pooled' trains one classifier for all tasks, and with episodes.ways classes are numbered "
            "anew in each; leave outer.rule out: `reptide evaluate` trains a pooled classifier beside"
        )
    if section.balanced and section.ways is None and settings.target.classes is None:
        raise SettingsError("episodes.balanced: a number has no classes to balance; leave it out")
    if section.ways is not None and (section.temporal or section.balanced):
        raise SettingsError(
            "episodes.ways: such episodes are balanced already, and not cut in time; leave these out"
        )


def _problem(settings: Settings, section: Episodes) -> Problem:
    """The problem, but for features that the examples bring."""
    if section.ways is None:
        return learners.problem_of(settings)
    classes = tuple(range(section.ways))
    problem = learners.problem_of(settings.model_copy(update={"target": Target(classes=classes)}))
    room = section.ways * max(section.shots, *section.judged_shots, 1)
    return replace(problem, target=Classification(classes, exchangeable=True), support=room)


def _read(settings: Settings, section: Episodes, found: Source, problem: Problem) -> Labelled:
    """All labelled examples; of an event log, without the events that a stream would refuse."""
    if section.temporal and not found.timed:
        raise SettingsError(
            f"episodes.temporal: the examples in {found.path} have no times; name their column in examples.time, or "
            "add an array `time`"
        )
    read = labelled(found, problem.target if section.ways is None else None)
    return sound(found, read) if settings.input is None or settings.examples is not None else read


def _source(settings: Settings, features: Features) -> Source:
    where = settings.examples
    if where is None:
        log = required(settings.input, "input")
        return _table(log.path, log.task, log.label, log.time, features, "input")
    if not where.path.exists():
        raise InputError(f"examples.path: there is no file or folder {where.path}")
    array = where.path.suffix.lower() == ".npz"
    if not array and not where.path.is_dir():
        return _table(where.path, where.task, where.label, where.time, features, "examples")
    if where.task or where.label or where.time:
        raise SettingsError(
            f"examples.task, label, time: they name columns of a table, and {where.path} is none; leave them out"
        )
    return read_arrays(where.path, features) if array else _images(where, features)


def _table(
    path: Path, task: tuple[str, ...], label: str | None, time: str | None, features: Features, name: str
) -> Source:
    if label is None or not features.columns:
        missing = f"{name}.label" if label is None else "features"
        raise SettingsError(
            f"{missing}: the examples are in a table, {path}; say which of its columns to read"
        )
    return read_table(path, task, label, time, features)


def _images(where: Examples, features: Features) -> Source:
    if features.columns:
        raise SettingsError("features: images of a folder are read as they are; leave [[features]] out")
    try:
        from streams.laboratory.images import read_images
    except ModuleNotFoundError as error:
        if error.name != "PIL":
            raise
        raise InputError(f"{where.path}: images need Pillow: pip install '.[images]'") from error
    return read_images(where.path, where.side, where.channels)
