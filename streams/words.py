"""Values as a person reads them."""

from __future__ import annotations

from datetime import UTC, datetime


def utc(time_s: float) -> str:
    """A time, to the minute."""
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%d %H:%M")


def unheard(_: str) -> None:
    """Say it to nobody."""
