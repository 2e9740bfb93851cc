"""Numbers as files and messages write them: digits, a point, an exponent, and nothing else that Python would take."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

# Built once: a union in a call costs as much as the check.
REAL = int | float | np.integer | np.floating

_is_number = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?").fullmatch


def number_of(value: Any) -> float | None:
    """Read a number, or text that is one; None for anything else. A bool is none.

    Python's `float` also takes 1_000, " 1", digits of any script, "inf" and "nan"; no file means a number by them.

    >>> number_of("-1.5e3"), number_of("1_000"), number_of(" 1"), number_of("inf")
    (-1500.0, None, None, None)
    """
    if type(value) is float:
        return value
    if isinstance(value, str):
        return float(value) if _is_number(value) else None
    if isinstance(value, bool) or not isinstance(value, REAL):
        return None
    try:
        return float(value)
    except OverflowError:
        return None
