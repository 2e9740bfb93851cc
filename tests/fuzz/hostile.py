"""Bytes and values as somebody hostile, or a bad disk, would make them: sound ones cut, doubled, flipped, patched.

`FUZZ_INPUTS` says how many inputs all tests together are given. Unless it is set they are 1,000, the same every time;
`make fuzz` draws a million, others each time, and what failed is drawn again first.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from decimal import Decimal
from types import FrameType
from typing import Any, TypeVar

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

T = TypeVar("T", bound=Callable[..., None])

INPUTS = int(os.environ.get("FUZZ_INPUTS", "1000"))
TARGETS = 10
"""Tests that share them."""
LONGEST_S = 60
"""What a single input may take: a thousand times what one does."""

PATCHES = (
    b"", b"\x00", b"\xff", b"\n", b"\r\n", b",", b'"', b'""', b"{", b"}", b"[", b"]", b"[[", b"null", b"true", b"NaN",
    b"Infinity", b"-1", b"0", b"-0.0", b"1e400", b"1e39", b"9223372036854775808", b"18446744073709551616", b"\\ud800",
    b"\xef\xbb\xbf", b"2096-01-01", b"4000000000", b"1700000000000", b"[]", b"{}", b'"x"', b"a" * 300, b"'", b"=",
    b"#", b"|",
)  # fmt: skip

wild = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([0, -1, 2**31, 2**63, 2**64, 10**400, 4_000_000_000, 1_700_000_000_000])
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(
        ["", "x", "1", "01", "1_000", "\u0661", "nan", "inf", "N/A", "a|b", "\ud800", "\x00", "y" * 70_000]
    )
    | st.binary(max_size=20)
    | st.datetimes()
    | st.sampled_from(
        [datetime(2096, 1, 1, tzinfo=UTC), date(2024, 1, 1), Decimal(1), Decimal("NaN"), Decimal("1e999")]
    )
    | st.sampled_from([np.int64(1), np.float32("nan"), np.float64(1), np.bool_(True), np.str_("x")]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
"""Values that a record's members may hold, as JSON, Parquet and Python give them."""


class Content(bytes):
    """Bytes that are shown in few words; how they were made is shown beside them."""

    def __repr__(self) -> str:
        return f"<{len(self)} bytes, {self[:80]!r}>"


def damaged(*sound: bytes) -> st.SearchStrategy[bytes]:
    """One of some sound inputs after up to eight edits; now and then bytes that never were one."""
    return st.one_of(
        st.builds(
            lambda which, edits: Content(_edited(sound[which], edits)),
            st.integers(0, len(sound) - 1),
            st.lists(_edits, min_size=1, max_size=8),
        ),
        st.binary(max_size=200),
    )


_edits = st.tuples(
    st.sampled_from(["flip", "cut", "end", "double", "patch", "put"]),
    st.floats(0, 1, exclude_max=True),
    st.integers(1, 40),
    st.sampled_from(PATCHES),
)


def _edited(content: bytes, edits: Sequence[tuple[str, float, int, bytes]]) -> bytes:
    for what, share, length, patch in edits:
        at = int(share * len(content))
        before, piece, after = content[:at], content[at : at + length], content[at + length :]
        content = {
            "flip": before + bytes(b ^ (1 << length % 8) for b in piece[:1]) + piece[1:] + after,
            "cut": before + after,
            "end": before,
            "double": before + piece + piece + after,
            "patch": before + patch + after,
            "put": before + patch + piece + after,
        }[what]
    return content


def hostile(each: int = 1, **inputs: st.SearchStrategy[Any]) -> Callable[[T], T]:
    """Give a test its share of all inputs, `each` of them at a time; none may take for ever."""

    def decorated(test: T) -> T:
        def bounded(**drawn: Any) -> None:
            with _in_time():
                test(**drawn)

        bounded.__name__, bounded.__doc__ = test.__name__, test.__doc__
        count = max(1, INPUTS // TARGETS // each)
        drawn_anew = "FUZZ_INPUTS" in os.environ
        return settings(max_examples=count, derandomize=not drawn_anew)(given(**inputs)(bounded))  # type: ignore[return-value]

    return decorated


@contextmanager
def _in_time() -> Iterator[None]:
    def hung(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"an input took more than {LONGEST_S} s")

    before = signal.signal(signal.SIGALRM, hung)
    signal.alarm(LONGEST_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
