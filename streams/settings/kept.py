"""The settings that a state was made under: what hangs on them is refused under others, before anything is touched.

Rows, theta and outputs are a function of the log and of these settings. Where one was changed midway they would be a
function of neither, and rows made anew from the log would be other rows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from streams.errors import SettingsError, StoreError
from streams.settings.tree import Settings
from streams.settings.values import as_json
from streams.system.files import write_whole

Flat = Mapping[str, Any]
"""Values by the path of their setting."""

FREE = {
    "title", "stream", "examples", "episodes", "kafka", "redis", "service",
    "run.directory", "run.batch", "run.max_gib", "run.durable", "run.device", "input.path", "outer.keep_gib",
}  # fmt: skip
"""What may be changed at any time: where things lie, how a log is cut into batches, how safely it is written."""

OF_ROWS = (
    "inner", "memory", "policy", "drift", "hedge", "outer.every",
    "kafka.keys", "kafka.dataschema", "kafka.clock_skew_s", "kafka.tombstones",
)  # fmt: skip
"""What the rows of a deployment hang on and no fingerprint holds: how events are folded, and which of the log are.

Its trainer's own settings may change.
"""

BEFORE = {"memory.precision": "single", "memory.exact": []}
"""What settings were that rows hang on, before there were such settings."""

SHOWN, SHOWN_CHARACTERS = 3, 100
OWN_DIRECTORY = "a directory of its own (run.directory)"
OWN_STREAM = "a stream of its own (`stream`)"


class SettingsRecord(Protocol):
    """Settings kept beside what was made under them."""

    def read(self) -> Flat | None:
        """What was kept; None where nothing was."""
        ...

    def add(self, settings: Flat) -> None:
        """Keep those of them that were not kept yet."""
        ...


def of_run(settings: Settings) -> Flat:
    """What a state directory hangs on: all but `FREE`, and but classes with room for more, which theta keeps."""
    free = FREE | ({"target.classes"} if settings.target.reserve else set())
    flat = _flat(settings)
    return {path: value for path, value in flat.items() if path not in free and _top(path) not in free}


def of_rows(settings: Settings) -> Flat:
    """What the rows of a deployment hang on."""
    return {path: v for path, v in _flat(settings).items() if path in OF_ROWS or _top(path) in OF_ROWS}


def agree(record: SettingsRecord, now: Flat, place: str, way_out: str) -> None:
    """Keep the settings where none are kept; settings of later versions join those that are.

    Raises:
        SettingsError: one is another now.

    """
    before = record.read() or {}
    refuse_changed(before, now, place, way_out)
    if now.keys() - before.keys():
        record.add(now)
        refuse_changed(record.read() or {}, now, place, way_out)  # another process may have been first


def refuse_changed(before: Flat, now: Flat, place: str, way_out: str) -> None:
    """Refuse settings other than those that were kept.

    Raises:
        SettingsError: names each of them, what it was and what it is.

    """
    known = {**BEFORE, **before} if before else before
    changed = [
        f"{path} is {as_json(now[path], SHOWN_CHARACTERS)} and was {as_json(known[path], SHOWN_CHARACTERS)}"
        for path in _differing(known, now)
    ]
    if changed:
        more = f", and {len(changed) - SHOWN} more" if len(changed) > SHOWN else ""
        raise SettingsError(
            f"{'; '.join(changed[:SHOWN])}{more}: {place} were made under the settings of before; set them "
            f"back, or give the new ones {way_out}, which begins at the start"
        )


class SettingsFile:
    """Settings in a file of a state directory."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> Flat | None:
        """What was kept; None where nothing was."""
        try:
            kept: Flat = json.loads(self._path.read_bytes())
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise StoreError(f"{self._path} is damaged ({error}); restore it from a backup") from error
        return kept

    def add(self, settings: Flat) -> None:
        """Keep those of them that were not kept yet."""
        self.write({**settings, **(self.read() or {})})

    def write(self, settings: Flat) -> None:
        """Put them in the place of what was there."""
        write_whole(self._path, json.dumps(settings, indent=1).encode())


def _differing(before: Flat, now: Flat) -> Iterator[str]:
    for path, value in now.items():
        if path in before and before[path] != value:
            yield path


def _flat(settings: Settings) -> dict[str, Any]:
    """Plain values by path; lists, such as the features, are one value."""
    tree = json.loads(settings.model_dump_json(exclude={"kafka": {"security"}, "redis": True}))
    flat: dict[str, Any] = {}
    for section, value in tree.items():
        if isinstance(value, dict):
            flat |= {f"{section}.{name}": inner for name, inner in value.items()}
        else:
            flat[section] = value
    return flat


def _top(path: str) -> str:
    return path.partition(".")[0]
