"""Settings to a problem, its learner and its outer rule: what theta is trained by, in a stream or not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import partial
from typing import Any

import torch
from torch import nn

from engine.errors import EngineError
from engine.features.columns import Category, Column, Cyclic, Numeric, Text
from engine.features.encoder import Features
from engine.features.history import History
from engine.learners.base import Learner, TakesSteps
from engine.learners.gradient import GradientLearner
from engine.learners.matching import MatchingLearner
from engine.learners.memory import MemoryLearner
from engine.learners.prototype import PrototypeLearner
from engine.learners.snail import SnailLearner
from engine.learners.transformer import TransformerLearner
from engine.networks.mlp import mlp
from engine.networks.tabular import tabular
from engine.networks.transformer import transformer
from engine.outer.backprop import Backprop
from engine.outer.base import OuterRule
from engine.outer.descent import FitSettings
from engine.outer.implicit import Implicit
from engine.outer.pooled import Pooled
from engine.outer.reptile import Reptile
from engine.problem import START, InnerLoop, Problem
from engine.targets import Classification, Regression
from streams.assembly import plug_ins
from streams.errors import SettingsError
from streams.settings import learning
from streams.settings.base import is_import_string
from streams.settings.tree import Settings

ENCODERS: dict[str, Callable[..., Column]] = {
    "numeric": Numeric,
    "category": Category,
    "cyclic": Cyclic,
    "text": Text,
}


NETWORKS: dict[str, Callable[..., nn.Module]] = {"mlp": mlp, "tabular": tabular, "transformer": transformer}


LEARNERS: dict[str, Callable[..., Learner]] = {
    "gradient": GradientLearner,
    "prototype": PrototypeLearner,
    "matching": MatchingLearner,
    "memory": MemoryLearner,
    "snail": SnailLearner,
    "transformer": TransformerLearner,
}


RULES: dict[str, Callable[[], OuterRule]] = {
    "fomaml": Backprop,
    "maml": partial(Backprop, first_order=False),
    "reptile": Reptile,
    "implicit": Implicit,
    "pooled": Pooled,
}


MOST_BY, MOST_NUMBERS = 4, 16
"""Categories and numbers that the history holds where the settings name none."""


STEPPING = ("reptile", "implicit")
"""Rules that are made of a learner's inner steps."""


def encoder_of(column: Column) -> str:
    """The name of a column's encoder in the settings: one of ours, or an import string.

    Raises:
        SettingsError: it is none of ours, and cannot be imported.

    """
    for name, made in ENCODERS.items():
        if type(column) is made:
            return name
    return plug_ins.import_string_of(column)


def column(encoder: str, options: Mapping[str, Any]) -> Column:
    """A column by the name of its encoder, or by import string.

    Raises:
        SettingsError: one of the user's cannot be made.

    """
    if is_import_string(encoder):
        return plug_ins.column(encoder, options)
    return ENCODERS[encoder](**options)


def problem_of(settings: Settings) -> Problem:
    """What the tasks share, and how one adapts, as the settings describe it."""
    offline = settings.episodes is not None  # theta of examples, which have no past
    inner = settings.inner.model_dump()
    if offline and inner["lr"] == "auto":
        inner["lr"] = START
    return Problem(
        features=Features(
            tuple(column(f.encoder, f.model_dump(exclude={"encoder"})) for f in settings.features)
        ),
        target=target(settings.target),
        network=network(settings.model),
        adapts=settings.model.adapts,
        inner=InnerLoop(**inner),
        support=settings.memory.support,
        history=None if offline else history(settings),
        wide=settings.model.wide and settings.learner == "gradient" and not offline,
    )


def history(settings: Settings) -> History | None:
    """Which of a task's past is among its features."""
    section, task = settings.history, settings.input.task if settings.input else ()
    if not section.enabled:
        return None
    of = {
        kind: [f.name for f in settings.features if f.encoder == kind and f.name not in task]
        for kind in ("category", "numeric")
    }
    by = of["category"][:MOST_BY] if section.by is None else section.by
    numbers = of["numeric"][:MOST_NUMBERS] if section.numbers is None else section.numbers
    return History(tuple(dict.fromkeys(by)), tuple(dict.fromkeys(numbers)), section.slots)


def target(section: learning.Target) -> Classification | Regression:
    """Classes, or a range."""
    if section.classes is not None and section.low is None and section.high is None:
        return Classification(section.classes, reserve=section.reserve)
    if section.reserve:
        raise SettingsError("target.reserve: makes room for classes; it goes with `classes` alone")
    if section.classes is None and section.low is not None and section.high is not None:
        return Regression(section.low, section.high)
    raise SettingsError("target: give either `classes`, or `low` and `high`")


def learner(settings: Settings, problem: Problem) -> Learner:
    """The learner that the settings name, for a problem.

    Raises:
        SettingsError: it does not go with the target, the network or the outer rule, or is no learner.

    """
    made = _learner(settings, problem)
    _check_rule(settings, made)
    return made


def _learner(settings: Settings, problem: Problem) -> Learner:
    name = settings.learner
    if is_import_string(name):
        return plug_ins.learner(name, problem)
    try:
        return (
            GradientLearner(problem) if name == "gradient" else LEARNERS[name](problem, settings.model.width)
        )
    except EngineError as error:
        raise SettingsError(f"learner = {name!r} does not go with [target] or [model]: {error}") from error


def _check_rule(settings: Settings, made: Learner) -> None:
    """Refuse now an outer rule that its first round would refuse."""
    rule, inner = settings.outer.rule, settings.inner
    if rule in STEPPING and not isinstance(made, TakesSteps):
        raise SettingsError(
            f"outer.rule: {rule!r} moves theta by inner gradient steps, and learner = {settings.learner!r} takes "
            'none; leave outer.rule out, or set learner = "gradient"'
        )
    if rule == "implicit" and not inner.proximal:
        raise SettingsError("outer.rule: 'implicit' needs an inner loop held near theta; set inner.proximal")
    if rule == "reptile" and inner.rates == "learned":
        raise SettingsError("outer.rule: 'reptile' learns no step sizes; set inner.rates = \"fixed\"")


def network(section: learning.Model) -> Callable[[int, int], nn.Module]:
    """The builder behind an import string `module:function`, or one of ours."""
    if section.network is None:
        return partial(mlp, hidden=section.hidden) if section.kind == "mlp" else NETWORKS[section.kind]
    if section.kind != "mlp":
        raise SettingsError(f"model: give either kind = {section.kind!r}, or network = {section.network!r}")
    return plug_ins.imported(section.network, "model.network")


def usable(device: str) -> str:
    """The name of a device that tensors can be put on.

    Raises:
        SettingsError: there is none of that name here.

    """
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        first, *_ = str(error).splitlines()
        raise SettingsError(f"run.device: {device!r} cannot be used here: {first}") from error
    return device


def fit_settings(section: learning.Outer) -> FitSettings:
    """The optimizer's part of the outer loop's settings."""
    known = {field.name for field in fields(FitSettings)}
    return FitSettings(**{name: value for name, value in section if name in known})
