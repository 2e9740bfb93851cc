"""What the settings name by import string: imported, made with its options, and refused if it is something else."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from typing import Any, cast

from engine.features.columns import Column
from engine.learners.base import Learner
from engine.problem import Problem
from engine.types import EngineError
from streams.errors import SettingsError
from streams.system.named_function import NotAFunction, name_of, named_function


def imported(name: str, setting: str) -> Callable[..., Any]:
    """The function or class behind `module:name`.

    Raises:
        SettingsError: there is none; names the setting.

    """
    try:
        return named_function(name)
    except NotAFunction:
        raise SettingsError(f"{setting}: {name!r} must be `module:name`, a function or a class") from None
    except Exception as error:  # whatever a module of the user's raises as it is run
        raise SettingsError(f"{setting}: cannot import {name!r}: {error}") from error


def learner(name: str, problem: Problem) -> Learner:
    """A learner of the user's, made for the tasks of a problem.

    Raises:
        SettingsError: it cannot be imported, refuses the problem, or is no learner.

    """
    made = built("learner", name, "", (problem,), {})
    return cast(Learner, with_members(made, Learner, "learner", name))


def column(name: str, options: Mapping[str, Any]) -> Column:
    """A column of the user's, made with the other keys of its `[[features]]`.

    Raises:
        SettingsError: it cannot be imported, does not take these options, or is no dataclass that is a column.

    """
    setting = f"features: field {options['name']!r}"
    made = with_members(built(setting, name, "the options", (), dict(options)), Column, setting, name)
    try:
        json.dumps(asdict(made))  # type: ignore[call-overload]
    except TypeError:
        raise SettingsError(
            f"{setting}: {name!r} must be a dataclass whose fields are texts, numbers or lists: they are its "
            "options, and part of what gives theta its meaning"
        ) from None
    return cast(Column, made)


def import_string_of(column: Column) -> str:
    """The import string of a column's class.

    Raises:
        SettingsError: it has none.

    """
    kind = type(column)
    name = name_of(kind)
    if name is None or not is_dataclass(kind):
        raise SettingsError(
            f"features: field {column.name!r}: no encoder is a {kind.__name__}; for a column of your own, define a "
            "dataclass at the top level of a module"
        )
    return name


def built(setting: str, name: str, options_in: str, given: Sequence[Any], options: dict[str, Any]) -> object:
    """What a class or function of the user's makes."""
    make = imported(name, setting)
    try:
        return make(*given, **options)
    except EngineError as error:
        raise SettingsError(f"{setting}: {name!r} refuses: {error}") from error
    except Exception as error:  # whatever code of the user's raises
        what = f"does not take {options_in} = {options}" if options else "cannot be made"
        raise SettingsError(f"{setting}: {name!r} {what}: {error}") from error


def with_members(made: object, kind: type, setting: str, name: str) -> object:
    """The same thing, if it has the members of a protocol; a property of the user's is not run to find it."""
    members = [member for member in vars(kind) if not member.startswith("_")]
    lacking = [member for member in members if not (hasattr(type(made), member) or hasattr(made, member))]
    if lacking:
        raise SettingsError(
            f"{setting}: {name!r} makes a {type(made).__name__} without {', '.join(lacking)}; "
            f"it needs {', '.join(members)}: see docs/your-model.md"
        )
    return made
