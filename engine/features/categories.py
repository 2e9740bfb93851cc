"""One text for a category's value, whatever wrote it: a file of text, a column of numbers or of booleans, JSON.

    1, 1.0, "1", "1.0", Decimal("1")     "1"          "01" stays "01": a postal code is no number
    0.5, "0.5", Decimal("0.50")          "0.5"        "0.50" stays "0.50"
    True, "true", "True", "TRUE"         "true"       no number: 1 is another category
    None, NaN, ""                        missing      the text "None" is a text like any other

Theta that was trained on a CSV file meets the same buckets in the Parquet or JSON of the same table. A text that is
not how a number or a boolean is written stands for itself.
"""

from __future__ import annotations

from decimal import Decimal
from hashlib import blake2b

import numpy as np

CategoryValue = str | int | float | Decimal | np.integer | np.floating | np.bool_ | None
"""What may be a category."""

MISSING = b"\xff"
"""What a missing value is hashed as: no text has this byte in UTF-8."""

LONGEST_FLOAT = 24
"""Characters that Python writes a float in, at most."""

MOST_BITS = 4096
"""A longer whole number is written in hexadecimal: Python refuses to write very long ones in decimal."""

FAR = 400
"""A decimal number of more digits than this, before its point or behind it, is not written out."""


def category_text(value: CategoryValue) -> str | None:
    """The text that stands for a value; None where it is missing.

    >>> [category_text(value) for value in (1, 1.0, "1.0", "01", True, "True", 0.5, None, "None")]
    ['1', '1', '1', '01', 'true', 'true', '0.5', None, 'None']
    """
    if isinstance(value, str):
        return _of_text(value) or None
    if value is None:
        return None
    if isinstance(value, bool | np.bool_):
        return str(bool(value)).lower()
    if isinstance(value, int | np.integer):
        return number_text(int(value))
    return _of_decimal(value) if isinstance(value, Decimal) else _of_float(float(value))


def number_text(value: int) -> str:
    """A whole number as text."""
    return hex(value) if value.bit_length() > MOST_BITS else str(value)


def bucket_of_text(text: str | None, buckets: int) -> int:
    """Which of `buckets` a text, or what is missing, is hashed into; the same in every process."""
    written = MISSING if text is None else text.encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(written, digest_size=8).digest(), "little") % buckets


def _of_text(text: str) -> str:
    if len(text) > LONGEST_FLOAT:
        return text
    if text.lower() in ("true", "false"):
        return text.lower()
    if not text.endswith(".0") and "e+" not in text:
        return text
    try:
        number = float(text)
    except ValueError:
        return text
    return str(int(number)) if repr(number) == text and number.is_integer() else text


def _of_float(value: float) -> str | None:
    if value != value:
        return None
    return str(int(value)) if value.is_integer() else repr(value)


def _of_decimal(value: Decimal) -> str | None:
    if value.is_nan():
        return None
    if not value.is_finite() or abs(value.adjusted()) > FAR:
        return str(value)
    if value == value.to_integral_value():
        return str(int(value))
    return format(value, "f").rstrip("0") if Decimal(repr(float(value))) != value else repr(float(value))
