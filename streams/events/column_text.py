"""Columns as JSON text: one call writes a column, where a call a value costs more than the digits do.

The text of each value is what `orjson.dumps` of that value alone would be.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import repeat
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson


def numbers_text(column: npt.NDArray[Any]) -> list[bytes]:
    """Write each number of a column [N]; or the numbers of each row [N, K], with commas and without brackets.

    >>> numbers_text(np.array([[0.5, np.nan], [1e-9, 2.0]])), numbers_text(np.array([True, False]))
    ([b'0.5,null', b'1e-9,2.0'], [b'true', b'false'])
    """
    if not len(column):
        return []
    text = orjson.dumps(np.ascontiguousarray(column), option=orjson.OPT_SERIALIZE_NUMPY)
    return text[1:-1].split(b",") if column.ndim == 1 else text[2:-2].split(b"],[")


def values_text(values: Sequence[Any]) -> list[bytes]:
    """Write each of N texts or numbers.

    >>> values_text(["a, b", 5])
    [b'"a, b"', b'5']
    """
    if not values:
        return []
    try:
        # Indented, each lies on a line of its own, and no text holds the end of a line as it is.
        return orjson.dumps(values, option=orjson.OPT_INDENT_2)[4:-2].split(b",\n  ")
    except TypeError:
        return [orjson.dumps(writable(value), default=str) for value in values]


def writable(value: Any) -> Any:
    """A value as it is, or as text where it holds a whole number of more than 64 bits, of which orjson writes none.

    >>> writable(2**64 - 1), writable(2**64)
    (18446744073709551615, '18446744073709551616')
    """
    try:
        orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS)
    except TypeError:
        return str(value)
    return value


def filled(template: bytes, *columns: Iterable[bytes]) -> list[bytes]:
    """Fill a template in once for each row of columns.

    >>> filled(b"%b is %b", [b"1", b"2"], [b"one", b"two"])
    [b'1 is one', b'2 is two']
    """
    first, *others = template.split(b"%b")
    parts: list[Iterable[bytes]] = [repeat(first)]
    for column, text in zip(columns, others, strict=True):
        parts += [column, repeat(text)] if text else [column]
    return list(map(b"".join, zip(*parts, strict=False)))  # in half the time that % takes
