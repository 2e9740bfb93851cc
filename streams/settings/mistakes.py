"""Wrong settings in words: where each stands, what was found there, and what is taken."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence

from pydantic_core import ErrorDetails

from streams.settings.base import Section
from streams.settings.overrides import PREFIX, Override
from streams.settings.values import Setting, as_json, setting_at, taken, written

WITHOUT_VALUE = {"missing": "needed, and not given", "extra_forbidden": "there is no such setting"}


def described(
    mistakes: Sequence[ErrorDetails], root: type[Section], where: str, overrides: Sequence[Override]
) -> str:
    """Every mistake in one line, those of the file `where` first; of several about one setting the first."""
    lines: dict[str, dict[str, str]] = {where: {}}
    for mistake in mistakes:
        setting = setting_at(root, mistake["loc"])
        override = _source(mistake["loc"], setting, overrides)
        name = _name(mistake, setting)
        of_source = lines.setdefault(where if override is None else override.source, {})
        of_source.setdefault(name, f"{name}: {_in_words(mistake, setting, override, root)}")
    return "; ".join(f"{source}: {'; '.join(said.values())}" for source, said in lines.items() if said)


def _name(mistake: ErrorDetails, setting: Setting | None) -> str:
    return ".".join(map(str, mistake["loc"]) if setting is None else setting.path) or "settings"


def _source(
    place: Sequence[int | str], setting: Setting | None, overrides: Sequence[Override]
) -> Override | None:
    """What set it, but the file: the last that names this setting, a part of it, or a section that it is in."""
    path = tuple(map(str, place)) if setting is None else tuple(".".join(setting.path).split("."))
    found: Override | None = None
    for override in overrides:
        shared = min(len(path), len(override.keys))
        if shared and path[:shared] == override.keys[:shared]:
            found = override
    return found


def _in_words(
    mistake: ErrorDetails, setting: Setting | None, override: Override | None, root: type[Section]
) -> str:
    kind = mistake["type"]
    if kind == "extra_forbidden" and override is not None:
        return WITHOUT_VALUE[kind] + _two_underscores(override, root)
    if kind in WITHOUT_VALUE:
        return WITHOUT_VALUE[kind]
    if kind == "value_error":
        return str(mistake["ctx"]["error"])
    if kind.startswith("union_tag"):
        return _of_encoder(mistake)
    if setting is None:
        return "it cannot be understood"
    found = "" if _hides(setting) else f", got {as_json(mistake['input'])}"
    return f"takes {taken(setting.field)}{found}{_how_to_write(setting, override)}"


def _of_encoder(mistake: ErrorDetails) -> str:
    """Of one of [[features]]."""
    known = mistake.get("ctx", {}).get("expected_tags", "")
    tag = mistake.get("ctx", {}).get("tag")
    if mistake["type"] == "union_tag_not_found":
        return "name its encoder: one of 'numeric', 'category', 'cyclic', 'text', 'module:class'"
    return f"there is no encoder {tag!r}; there are {known}"


def _how_to_write(setting: Setting, override: Override | None) -> str:
    """The form that is taken in the environment or a flag, where the text can be understood."""
    if override is None or override.keys != setting.path or _hides(setting):
        return ""
    form = written(setting.field, override.text)
    if form is None or json.loads(form) == override.value:
        return ""
    return f"; write it as {override.source}={shlex.quote(form)}"


def _two_underscores(override: Override, root: type[Section]) -> str:
    """What was probably meant by a variable such as REPTIDE_SERVICE_PORT."""
    first, *more = override.keys
    if more or not override.source.startswith(PREFIX):
        return ""
    for section in sorted(root.model_fields, key=len, reverse=True):
        name = first.removeprefix(f"{section}_")
        if name != first and setting_at(root, (section, name)) is not None:
            return f"; {PREFIX}{section.upper()}__{name.upper()} sets {section}.{name}"
    return ""


def _hides(setting: Setting) -> bool:
    """Whether what was found may be, or hold, a secret."""
    return "SecretStr" in str(setting.field.annotation) or taken(setting.field).startswith("a section")
