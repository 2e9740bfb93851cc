"""What makes two tasks, or two events, the same: an id is its text, however a file or a message types it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import numpy as np

EXACT = 2**53
"""From here on a float may have lost the last digits of a whole number."""

LONG = 2**64
"""Python takes its time over whole numbers that are much longer, and refuses to write very long ones."""

PART = re.compile(r"(?:\\[|\\]|[^|])+")
ESCAPE = re.compile(r"\\([|\\])")

# Built once: a union in a call costs as much as the check.
WHOLE = int | np.integer
FRACTIONAL = float | np.floating | Decimal


def identity_of(value: Any) -> str | None:
    """Write an id, text or a whole number, as text; None for what is neither.

    1, "1", 1.0 and Decimal("1.00") are one id. A bool is none, and neither is a float too large to be exact.

    >>> [identity_of(value) for value in ("ann", 12, 12.0, Decimal("12.00"), 12.5, True, None)]
    ['ann', '12', '12', '12', None, None, None]
    """
    if isinstance(value, str):
        return value
    if isinstance(value, FRACTIONAL):
        return _whole(value)
    if isinstance(value, bool) or not isinstance(value, WHOLE):
        return None
    try:
        return str(int(value))
    except ValueError:  # more than 4300 digits
        return None


def _whole(value: Any) -> str | None:
    exact = value.is_finite() if isinstance(value, Decimal) else abs(value) <= EXACT
    return str(int(value)) if exact and value == int(value) else None


def identities_of(values: Sequence[Any]) -> Sequence[str | None]:
    """Write many ids as text, each as `identity_of` does."""
    kinds = set(map(type, values))
    if kinds <= {str, type(None)}:
        return values
    if kinds == {int} and max(map(abs, values)) < LONG:
        return [*map(str, values)]
    return [*map(identity_of, values)]


def joined_task(parts: Sequence[Any]) -> Any:
    r"""Join the task of several columns by "|", or give back a part that is no id, to be refused as it is.

    A bar or backslash within a part is escaped by a backslash, so that no two lists of parts make one task.

    >>> joined_task(["a", 7]), joined_task(["a|b", "c"]) == joined_task(["a", "b|c"]), joined_task(["a", None])
    ('a|7', False, None)
    """
    if len(parts) == 1:
        return parts[0]
    texts = list(map(identity_of, parts))
    odd = [part for part, text in zip(parts, texts, strict=True) if not text]
    return odd[0] if odd else "|".join(_escaped(text) for text in texts if text)


def parts_of(task: str) -> list[str]:
    r"""Take apart what `joined_task` joined; any other task is one part, or as many as it has bars.

    >>> parts_of(r"a\|b|c\\"), parts_of("ann")
    (['a|b', 'c\\'], ['ann'])
    """
    return [ESCAPE.sub(r"\1", part) for part in PART.findall(task)]


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("|", r"\|") if "|" in text or "\\" in text else text
