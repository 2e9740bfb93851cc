"""A settings file beside the old one: its text with its comments, and other values."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomlkit

from streams.system.files import write_whole

PATHS = ("input.path", "examples.path", "run.directory")
"""Settings that are relative to the file they stand in."""


def write_settings(config: Path, out: Path, values: Mapping[str, Any], directory: Path) -> None:
    """Write `config` with other values, and with a state directory of its own, to `out`.

    Rows are of the settings that they were folded under, so the directory of the old settings will not do.
    """
    document = tomlkit.parse(config.read_text(encoding="utf-8"))
    for key in PATHS:
        place, name = _section(document, key, make=False), key.rpartition(".")[2]
        if place is not None and name in place:
            place[name] = _moved(Path(str(place[name])), config.parent, out.parent)
    own = directory.with_name(f"{directory.name}-tuned")
    for key, value in {**values, "run.directory": _moved(own.absolute(), config.parent, out.parent)}.items():
        place = _section(document, key, make=True)
        place[key.rpartition(".")[2]] = value
    write_whole(out, tomlkit.dumps(document).encode())


def _section(document: Any, key: str, *, make: bool) -> Any:
    """The table that a setting stands in; None where there is none and none is to be made."""
    place = document
    for name in key.split(".")[:-1]:
        if name not in place:
            if not make:
                return None
            place[name] = tomlkit.table()
        place = place[name]
    return place


def _moved(path: Path, before: Path, after: Path) -> str:
    """A path as another folder's file names it; an absolute one outside of both stays as it is."""
    absolute = before.absolute() / path
    if path.is_absolute() and not path.is_relative_to(before.absolute()):
        return str(path)
    return os.path.relpath(absolute, after.absolute())
