"""Values as a person reads them."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import numpy as np

SHOWN_CHARACTERS = 40

PLAIN = str | bytes | int | float | Decimal | np.generic | datetime | None


def utc(time_s: float) -> str:
    """A time, to the minute."""
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%d %H:%M")


def unheard(_: str) -> None:
    """Say it to nobody."""


def shown(value: Any) -> str:
    """Show a value in a message, cut short; of a list or the like, whose text could be anything, the type alone.

    >>> shown("N/A"), shown(12), shown([1, 2])
    ("'N/A'", '12', 'list')
    """
    if isinstance(value, str | bytes):
        return repr(value[:SHOWN_CHARACTERS]) + ("..." if len(value) > SHOWN_CHARACTERS else "")
    if not isinstance(value, PLAIN):
        return type(value).__name__
    if isinstance(value, int) and value.bit_length() > 256:
        return f"a number of {value.bit_length()} bits"
    text = str(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."
