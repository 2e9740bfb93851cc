"""What is given in Python as the settings that a file would hold: the same defaults, checks and sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from engine.features.columns import Column
from engine.targets import Classification, Regression
from streams.assembly.learners import encoder_of
from streams.settings.tree import Settings, validated


def settings_of(
    features: Sequence[Column], target: Classification | Regression | None, given: Mapping[str, Any]
) -> Settings:
    """Columns, a target, and any of the settings by their path.

    Raises:
        SettingsError: one is unknown, or cannot be what it is.

    """
    tree: dict[str, Any] = {}
    if features:
        tree["features"] = [{"encoder": encoder_of(column), **asdict(column)} for column in features]  # type: ignore[call-overload]
    if isinstance(target, Classification):
        tree["target"] = {"classes": target.classes, "reserve": target.reserve}
    elif target is not None:
        tree["target"] = {"low": target.low, "high": target.high}
    for path, value in given.items():
        *sections, name = path.split(".")
        part = tree
        for section in sections:
            part = part.setdefault(section, {})
        part[name] = value
    return validated(tree, "settings")
