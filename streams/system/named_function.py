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
