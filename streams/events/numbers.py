"""Numbers as files and messages write them: digits, a point, an exponent, and nothing else that Python would take."""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import nan
from typing import Any

import numpy as np

from engine.types import Float64

# Built once: a union in a call costs as much as the check.
REAL = int | float | np.integer | np.floating

WRITTEN_IN = b"0123456789.+-eE"
"""Of these characters, `float` takes what is a number here, and nothing else."""

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


def numbers_of(texts: Sequence[str]) -> Float64 | None:
    """Read texts that are numbers, each as `number_of` does, an empty one as NaN; None where one is no number.

    >>> numbers_of(["1", "", ".5"]), numbers_of(["1", "1_0"])
    (array([1. , nan, 0.5]), None)
    """
    if "".join(texts).encode(errors="replace").translate(None, WRITTEN_IN):
        return None
    try:
        return np.array([float(text) if text else nan for text in texts], np.float64)
    except ValueError:
        return None
