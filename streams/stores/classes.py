"""Which class is which number: names recorded beside theta, where classes may be appended to a target.

A `target.reserve` leaves room for more classes, so no fingerprint can hold their names. Each is written once, at
its place. A list of classes that puts another name there, or leaves one out, is refused before anything is folded.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from engine.targets import Classification, Regression
from streams.errors import SettingsError, StoreError
from streams.system.files import write_whole


class ClassNames(Protocol):
    """Names by place, each written once."""

    def record(self, names: Sequence[str]) -> list[str]:
        """Write names at the places that have none yet; returns what is recorded."""
        ...


def names_of(target: Classification | Regression) -> list[str]:
    """The classes of a target that has room for more, as they are recorded; none of any other."""
    if not isinstance(target, Classification) or not target.reserve:
        return []
    return [json.dumps(name) for name in target.classes]


def agree(recorder: ClassNames, target: Classification | Regression) -> None:
    """Record the classes of a target that has room for more; any other has them in its fingerprint.

    Raises:
        SettingsError: they do not begin with the classes recorded.

    """
    given = names_of(target)
    if not given:
        return
    recorded = recorder.record(())
    if given[: len(recorded)] == recorded:
        recorded = recorder.record(given)
    if recorded != given:
        raise SettingsError(
            f"target.classes: theta and rows were made for [{', '.join(recorded)}]; keep these as they are, and "
            "append new ones: a class never moves, and none is renamed or left out"
        )


class ClassFile:
    """The names in a file of a state directory, which one process writes."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def record(self, names: Sequence[str]) -> list[str]:
        """Write names at the places that have none yet; returns what is recorded."""
        try:
            recorded: list[str] = json.loads(self.path.read_bytes()) if self.path.exists() else []
        except ValueError as error:
            raise StoreError(f"{self.path} is damaged ({error}); restore it from a backup") from error
        if len(names) > len(recorded):
            recorded = [*recorded, *names[len(recorded) :]]
            write_whole(self.path, json.dumps(recorded).encode())
        return recorded
