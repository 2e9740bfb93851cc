"""Stream specs that differ from one in a few fields."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from engine.stream.spec import StreamSpec


def varied(spec: StreamSpec, **changes: Any) -> StreamSpec:
    """A stream spec with other fields: its own, or its problem's."""
    own = {field.name for field in fields(StreamSpec)}
    of_problem = {name: changes.pop(name) for name in set(changes) - own}
    return replace(spec, problem=replace(spec.problem, **of_problem), **changes)
