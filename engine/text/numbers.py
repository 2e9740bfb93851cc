"""Numbers as JSON has them, to the byte as orjson writes them: a point or an exponent, and null for what is none."""

from __future__ import annotations

from typing import Any

import numpy as np

from engine.compiled import compiled, compiled_as, read_vector
from engine.text.digits import EIGHT_DIGITS, HUNDRED, ONE, TEN, TENS, bit_length, count_of, eight, shortest
from engine.text.words import store
from engine.types import Int64, UInt8, UInt64

WHOLE, SINGLE, DOUBLE = range(3)
"""What 64 bits are: a whole number with its sign, or a number in single or in double precision."""

LONGEST = 28
"""Bytes of a number, and of what comes between it and the next."""

BEYOND = 32
"""Bytes behind the last number that are written to before it is known how long that is."""

ZERO, POINT, MINUS, PLUS, COMMA, OPEN, CLOSE, EXPONENT = np.frombuffer(b"0.-+,[]e", np.uint8)

ZEROS, POINTED, NOTHING, NULL = np.frombuffer(b"000000000.0000000.0     null    ", np.uint64)

NO_DIGITS = np.uint64(0)

PAIRS: UInt8 = np.frombuffer(b"".join(b"%02d" % n for n in range(100)), np.uint8).copy()


@compiled
def write_whole(number: Any, into: UInt8, at: int) -> Any:
    """A number without a sign; returns where it ends, as what follows does."""
    rest, end = number, at + count_of(number)
    place = end
    while rest >= HUNDRED:
        upper = rest // HUNDRED
        pair = np.int64(rest - upper * HUNDRED) << 1
        place -= 2
        into[place], into[place + 1] = PAIRS[pair], PAIRS[pair + 1]
        rest = upper
    if rest >= TEN:
        pair = np.int64(rest) << 1
        into[place - 2], into[place - 1] = PAIRS[pair], PAIRS[pair + 1]
    else:
        into[place - 1] = ZERO + np.uint8(rest)
    return end


@compiled
def write_pointed(first: Any, middle: Any, last: Any, ahead: int, into: UInt8, at: int) -> None:
    """Seventeen digits, a point after the first and so many more."""
    into[at] = ZERO + np.uint8(first)
    store(into, at + 1, middle)
    if ahead < 8:
        store(into, at + ahead + 2, middle >> np.uint64(ahead << 3))
        store(into, at + 10, last)
    else:
        store(into, at + 9, last)
        store(into, at + ahead + 2, last >> np.uint64(ahead - 8 << 3))
    into[at + ahead + 1] = POINT


@compiled
def write_decimal(digits: Any, k: int, is_single: bool, into: UInt8, at: int) -> Any:
    """Digits of which the last stands for 10^k."""
    least, most = (-6, 13) if is_single else (-5, 16)
    count = count_of(digits)
    point = count + k
    upper, last = digits * TENS[9 - count] if is_single else digits, NO_DIGITS
    if not is_single:
        aligned = digits * TENS[17 - count]
        upper = aligned // EIGHT_DIGITS
        last = eight(aligned - upper * EIGHT_DIGITS)
    first = upper // EIGHT_DIGITS
    middle = eight(upper - first * EIGHT_DIGITS)
    count = 1 + (bit_length(middle) + 7 >> 3) if last == 0 else 9 + (bit_length(last) + 7 >> 3)
    middle, last = middle | ZEROS, last | ZEROS
    if least < point <= 0:
        store(into, at, POINTED)
        at += 2 - point
        into[at] = ZERO + np.uint8(first)
        store(into, at + 1, middle)
        store(into, at + 9, last)
        return at + count
    if 0 < point <= most:
        write_pointed(first, middle, last, point - 1, into, at)
        return at + max(count, point + 1) + 1
    write_pointed(first, middle, last, 0, into, at)
    at += count + (count > 1)
    into[at], into[at + 1] = EXPONENT, MINUS if point < 1 else PLUS
    return write_whole(np.uint64(abs(point - 1)), into, at + 2)


@compiled
def write_real(bits: Any, is_single: bool, into: UInt8, at: int) -> Any:
    """A number of which these are the bits, single precision in the lower half."""
    width, bias, limit = (23, 150, 256) if is_single else (52, 1075, 2048)
    hidden = ONE << np.uint64(width)
    fraction: Any = bits & (hidden - ONE)
    exponent: Any = np.int64(bits >> np.uint64(width))
    is_negative = exponent >= limit
    exponent -= limit * is_negative
    if exponent == limit - 1:
        store(into, at, NULL)
        return at + 4
    into[at] = MINUS
    at += is_negative
    if exponent == 0 and fraction == 0:
        store(into, at, NOTHING)
        return at + 3
    c = fraction | hidden if exponent > 0 else fraction
    q: Any = max(exponent, 1) - bias
    whole = c >> np.uint64(min(max(-q, 0), 63))
    if -width <= q <= 0 and whole << np.uint64(-q) == c:
        at = write_whole(whole, into, at)
        into[at], into[at + 1] = POINT, ZERO
        return at + 2
    digits, k = shortest(c, q, fraction == 0 and exponent > 1, is_single)
    return write_decimal(digits, k, is_single, into, at)


@compiled
def write_number(bits: Any, kind: int, into: UInt8, at: int) -> Any:
    """A number of a kind; returns where it ends."""
    if kind != WHOLE:
        return write_real(bits, kind == SINGLE, into, at)
    if np.int64(bits) < 0:
        into[at] = MINUS
        return write_whole(~bits + ONE, into, at + 1)
    return write_whole(bits, into, at)


@compiled
def write_texts(bits: UInt64, kind: int, bounds: Int64, width: int, into: UInt8, ends: Int64) -> None:
    """Numbers of one kind, a constant where this is called, so that what is the other kinds' is left out."""
    at = 0
    for t in range(len(ends)):
        column = 0
        for n in range(bounds[t], bounds[t + 1]):
            if column == width:
                into[at], into[at + 1], into[at + 2] = CLOSE, COMMA, OPEN
                at += 3
                column = 0
            elif n > bounds[t]:
                into[at] = COMMA
                at += 1
            column += 1
            at = write_number(bits[n], kind, into, at)
        ends[t] = at


@compiled_as(read_vector("uint64"), "int64", read_vector("int64"), "int64", "uint8[]", "int64[]")
def write_numbers(bits: UInt64, kind: int, bounds: Int64, width: int, into: UInt8, ends: Int64) -> None:
    """Write T texts, each of the numbers `bounds[t]` to `bounds[t + 1]`, and where each ends.

    Between two numbers is a comma, and after each row of `width` of them "],[". There has to be room for `LONGEST`
    bytes a number, and `BEYOND`.
    """
    if kind == SINGLE:
        write_texts(bits, SINGLE, bounds, width, into, ends)
    elif kind == DOUBLE:
        write_texts(bits, DOUBLE, bounds, width, into, ends)
    else:
        write_texts(bits, WHOLE, bounds, width, into, ends)
