"""What each setting takes, in words, read from its type: for messages about wrong values, and for the reference."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from streams.settings.base import Section

BOUNDS = {"ge": "{} or more", "gt": "above {}", "le": "{} or less", "lt": "below {}"}
PLAIN: Mapping[Any, tuple[str, str]] = {
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    bool: ("true or false", "true or false"),
    str: ("text", "texts"),
    Path: ("a path", "paths"),
    SecretStr: ("text", "texts"),
}
"""Of a type: one value, and several."""

LENGTHS = ("min_length", "max_length")
SHOWN_CHARACTERS = 60


class Setting(NamedTuple):
    """One setting of the tree."""

    path: tuple[str, ...]
    field: FieldInfo


def setting_at(root: type[Section], place: Sequence[int | str]) -> Setting | None:
    """The setting in which a place lies, as pydantic names it; None for a name that is no setting.

    In a list of sections of several kinds, the number of one is followed by its kind.
    """
    if not place or place[0] not in root.model_fields:
        return None
    name, more = str(place[0]), place[1:]
    field = root.model_fields[name]
    sections = [kind for kind in _items(field.annotation) if _is_section(kind)]
    if len(sections) > 1:
        number, more = more[:2], more[2:]
        ours = [kind for kind in sections if taken(kind.model_fields["encoder"]) in map(json.dumps, number)]
        sections = ours or [kind for kind in sections if _takes_any_key(kind)]
        name = ".".join([name, *map(str, number)])
    if not sections or not more:
        return Setting((name,), field)
    inner = setting_at(sections[0], more)
    return None if inner is None else Setting((name, *inner.path), inner.field)


def taken(field: FieldInfo) -> str:
    """What a setting takes, in words."""
    return _words(field.annotation, field.metadata)


def written(field: FieldInfo, text: str) -> str | None:
    """A value that was meant by a text, in the form that is taken; None where nobody can tell."""
    for kind in _alternatives(field.annotation):
        if get_origin(kind) is tuple:
            item, *more = get_args(kind)
            parts = [part.strip().strip("'\"") for part in text.strip("[]() ").split(",") if part.strip()]
            items = [_item(item, part) for part in parts]
            is_right = bool(items) and None not in items and (more == [...] or len(items) == len(more) + 1)
            return json.dumps(items) if is_right else None
        if kind is str:
            return json.dumps(text)
    return None


def as_json(value: Any, most: int = SHOWN_CHARACTERS) -> str:
    """A value as a message shows it, cut short."""
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= most else f"{text[:most]}..."


def _item(kind: Any, text: str) -> Any:
    """One item of a list; None where the text is none."""
    wanted = [get_args(k)[0] if get_origin(k) is Annotated else k for k in _alternatives(kind)]
    if str in wanted:
        return text
    try:
        number = float(text)
    except ValueError:
        return None
    return int(number) if int in wanted and number.is_integer() else number if float in wanted else None


def _words(kind: Any, metadata: Sequence[Any] = (), *, several: bool = False) -> str:
    parts = [_one(part, metadata, several=several) for part in _alternatives(kind)]
    return " or ".join(dict.fromkeys(parts))


def _one(kind: Any, metadata: Sequence[Any], *, several: bool) -> str:
    if get_origin(kind) is Annotated:
        kind, *metadata = get_args(kind)
    if get_origin(kind) is Literal:
        return " or ".join(json.dumps(value) for value in get_args(kind))
    if get_origin(kind) is tuple:
        return _list(kind, metadata)
    if get_origin(kind) is dict:
        return "a table of names and values"
    if _is_section(kind):
        return "a section"
    name = PLAIN.get(kind, ("a value", "values"))[several]
    return name + _bounds(metadata)


def _list(kind: Any, metadata: Sequence[Any]) -> str:
    item, *more = get_args(kind)
    if _is_section(next(iter(_alternatives(item)))):
        return "sections"
    fewest, most = (next((getattr(m, name) for m in metadata if hasattr(m, name)), 0) for name in LENGTHS)
    size = f"{len(more) + 1} " if more and more[0] is not Ellipsis else f"{fewest} to {most} " if most else ""
    return f"a list of {size}{_words(item, several=True)}{', not empty' if fewest and not most else ''}"


def _bounds(metadata: Sequence[Any]) -> str:
    """The limits of a number, and the pattern of a text; of `Field(...)` in a union they lie one deeper."""
    deeper = [inner for m in metadata for inner in (m.metadata if isinstance(m, FieldInfo) else [m])]
    limits = [
        words.format(f"{getattr(m, name):.10g}")
        for m in deeper
        for name, words in BOUNDS.items()
        if hasattr(m, name)
    ]
    patterns = [f" that matches {m.pattern}" for m in deeper if getattr(m, "pattern", None)]
    return "".join([f", {' and '.join(limits)}" if limits else "", *patterns])


def _alternatives(kind: Any) -> Iterator[Any]:
    """The members of a union but None, or the type itself; of a tagged section the section."""
    if get_origin(kind) is Annotated:
        inner = get_args(kind)[0]
        kind = inner if get_origin(inner) in (Union, UnionType) or _is_section(inner) else kind
    if get_origin(kind) in (Union, UnionType):
        for member in get_args(kind):
            if member is not NoneType:
                yield from _alternatives(member)
    else:
        yield kind


def _items(kind: Any) -> Iterator[Any]:
    """The members of a union, and those of a list."""
    for member in _alternatives(kind):
        if get_origin(member) is tuple:
            yield from _alternatives(get_args(member)[0])
        else:
            yield member


def _takes_any_key(kind: type[Section]) -> bool:
    return kind.model_config.get("extra") == "allow"


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Section)
