"""A function that the settings name as `module:function`: a network of one's own, or what signs tokens."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any


class NotAFunction(Exception):
    """The name is not `module:function`."""


def named_function(name: str) -> Callable[..., Any]:
    """Import it.

    Raises:
        ImportError: there is no such module; `AttributeError`, `ValueError`: no such function in it.
        NotAFunction: it is something else.

    """
    module, colon, attribute = name.partition(":")
    found: Any = getattr(importlib.import_module(module), attribute)
    if not colon or not callable(found):
        raise NotAFunction
    return found  # type: ignore[no-any-return]


def name_of(thing: object) -> str | None:
    """The name that `named_function` finds it by; None where there is none."""
    name = f"{getattr(thing, '__module__', '')}:{getattr(thing, '__qualname__', '')}"
    try:
        return name if named_function(name) is thing else None
    except (ImportError, AttributeError, ValueError, NotAFunction):
        return None
