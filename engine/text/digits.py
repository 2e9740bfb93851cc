"""The fewest decimal digits that read back as the same number.

Found as by Giulietti, "The Schubfach way to render doubles" (2021), in the form that Abolz gave it; names are theirs
where they have some. Digits are then worked out eight at a time, each in a byte of one word of 64 bits.
"""

# ruff: noqa: ARG001 - numba calls what makes an operation with these arguments, used or not
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types

from engine.compiled import IS_PYTHON, compiled, operation
from engine.types import UInt64

LEAST_POWER, MOST_POWER = -292, 324
"""Of ten: what numbers in double precision are multiplied by."""

WORD = ir.IntType(64)

ONE, TWO, FOUR, TEN, FORTY, HUNDRED = (np.uint64(n) for n in (1, 2, 4, 10, 40, 100))

FOUR_DIGITS, EIGHT_DIGITS = np.uint64(10**4), np.uint64(10**8)

TENS: UInt64 = np.array([10**n for n in range(20)], np.uint64)


def _power(k: int) -> Any:
    """10^k to 128 bits, rounded up."""
    if k < 0:
        return -((-1 << 127 + (10**-k).bit_length()) // 10**-k)
    shift = 128 - (10**k).bit_length()
    return 10**k << shift if shift >= 0 else -(-(10**k) >> -shift)


POWERS: UInt64 = np.array([divmod(_power(k), 1 << 64) for k in range(LEAST_POWER, MOST_POWER + 1)], np.uint64)
"""[617, 2] the upper and the lower half of each."""


@operation
def _upper_half(typing: Any, a: Any, b: Any) -> Any:

    def made(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        wide = ir.IntType(128)
        product = builder.mul(*(builder.zext(one, wide) for one in arguments))
        return builder.trunc(builder.lshr(product, ir.Constant(wide, 64)), WORD)

    return types.uint64(types.uint64, types.uint64), made


@operation
def _bit_length(typing: Any, number: Any) -> Any:

    def made(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        zeros = builder.ctlz(arguments[0], ir.Constant(ir.IntType(1), 0))
        return builder.sub(ir.Constant(WORD, 64), zeros)

    return types.int64(types.uint64), made


upper_half: Callable[[Any, Any], Any] = (
    (lambda a, b: np.uint64(int(a) * int(b) >> 64)) if IS_PYTHON else _upper_half
)
"""The upper 64 bits of a product."""

bit_length: Callable[[Any], Any] = (lambda number: int(number).bit_length()) if IS_PYTHON else _bit_length
"""How many bits a number takes; of 0 none."""


@compiled
def scaled(power: int, number: Any, is_single: bool) -> Any:
    """A number times a power of ten, the last bit set where anything was cut off."""
    upper, lower = POWERS[power - LEAST_POWER, 0], POWERS[power - LEAST_POWER, 1]
    if is_single:  # 64 bits of the power are enough of it
        upper += np.uint64(lower > 0)
        return upper_half(upper, number) | np.uint64(upper * number >> np.uint64(32) > ONE)
    low = upper * number
    added = low + upper_half(lower, number)
    high = upper_half(upper, number) + np.uint64(added < low)
    return high | np.uint64(added > ONE)


@compiled
def shortest(c: Any, q: int, is_power: Any, is_single: bool) -> tuple[Any, int]:
    """The fewest digits of c 2^q, zeros at their end perhaps, and the power of ten of the last.

    `is_power`: the number below is half as far away as the one above, as it is of a power of two.
    """
    k = (q * 1262611 - (524031 if is_power else 0)) >> 22
    shift = np.uint64(q + ((-k * 1741647) >> 19) + 1)
    odd, middle = c & ONE, c * FOUR
    least = scaled(-k, middle - (ONE if is_power else TWO) << shift, is_single) + odd
    value = scaled(-k, middle << shift, is_single)
    most = scaled(-k, middle + TWO << shift, is_single) - odd
    s, half = value >> TWO, (value & ~(ONE | TWO)) + TWO
    tens = s // TEN
    below, above = least <= FORTY * tens, FORTY * tens + FORTY <= most
    is_shorter = (below != above) & (s >= TEN)
    below_s, above_s = least <= FOUR * s, FOUR * s + FOUR <= most
    nearer_above = (value > half) | ((value == half) & (s & ONE == ONE))
    up = above_s if below_s != above_s else nearer_above
    return (tens + np.uint64(above), k + 1) if is_shorter else (s + np.uint64(up), k)


@compiled
def count_of(digits: Any) -> Any:
    """How many digits a number has; 0 has one."""
    count = bit_length(digits | ONE) * 1233 >> 12
    return count + (digits >= TENS[count]) + (digits == 0)


@compiled
def eight(digits: Any) -> Any:
    """Eight digits, each a byte from 0 to 9, the first in the lowest."""
    upper = digits // FOUR_DIGITS
    fours = upper | digits - upper * FOUR_DIGITS << np.uint64(32)
    high = fours * np.uint64(10486) >> np.uint64(20) & np.uint64(0x7F_0000_007F)
    twos = (fours - HUNDRED * high << np.uint64(16)) + high
    tens = twos * np.uint64(103) >> TEN & np.uint64(0xF_000F_000F_000F)
    return (twos - TEN * tens << np.uint64(8)) + tens
