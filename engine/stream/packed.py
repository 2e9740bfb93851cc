"""Rows as they lie in a store where room counts: zeros are left out, so a young task takes little.

A row has room for every example and every observation that its task may remember, and most tasks have few; a count
takes a word or two of its four, and a number with few digits one of its two. Packed, a row is its head, a bit for
each group of words behind it that are not all zero, and of each such group a bit for each word and the words that are
not zero. A row that would be no shorter is left as it is, so the length tells which of the two it is. What is free in
a row has to be zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from engine.compiled import compiled, compiled_as, copy, fill, read_rows, vectors
from engine.stream.layout import HEAD_BYTES
from engine.types import Bool, Int64

WORD = 2
"""Bytes of a word: half a number of a feature, or a quarter of a count."""

WORD_BITS = 8 * WORD

HEAD_WORDS = HEAD_BYTES // WORD

BITS = 32
"""Words of a group."""

MASK_WORDS = BITS // WORD_BITS

ALL = np.uint32(0xFFFF_FFFF)

BEYOND = bytes((MASK_WORDS + BITS) * WORD)
"""Behind the last row: what is read of a group that is none, as its mask says anything."""

Words = npt.NDArray[np.uint16]
Buffer = bytes | memoryview


def packed(rows: npt.NDArray[np.void]) -> list[memoryview]:
    """Rows [U] as bytes, each no longer than the row."""
    words = _words(rows)
    beside = words.shape[1] // 8 + 2 * MASK_WORDS  # until it is seen that a row would be no shorter
    buffer, ends = np.empty(words.size + beside, np.uint16), np.empty(len(words), np.int64)
    _pack(words, buffer, ends)
    content, bounds = buffer.view(np.uint8).data, [0, *(ends * WORD).tolist()]
    return [content[start:end] for start, end in pairwise(bounds)]


def unpack(stored: Sequence[Buffer], rows: npt.NDArray[np.void]) -> Bool:
    """Write what was packed into `rows` [U], whose bytes are zero; returns which [U] were whole.

    Of those that were not, the row may hold anything.
    """
    lengths = np.array([len(row) for row in stored], np.int64)
    whole: Bool = (lengths % WORD == 0) & (lengths <= rows.dtype.itemsize)
    parts = [row if fits else b"" for row, fits in zip(stored, whole.tolist(), strict=True)]
    content = bytearray().join([*parts, BEYOND])
    _unpack(np.frombuffer(content, np.uint16), np.cumsum(lengths * whole // WORD), _words(rows), whole)
    return whole


def plain(stored: Sequence[Buffer], dtype: np.dtype[np.void]) -> list[bytes]:
    """What was packed, as rows of that type; what is neither stays as it is."""
    rows = np.zeros(len(stored), dtype)
    whole = unpack(stored, rows)
    return [
        row.tobytes() if is_whole else bytes(given)
        for row, is_whole, given in zip(rows, whole, stored, strict=True)
    ]


def _words(rows: npt.NDArray[np.void]) -> Words:
    return rows.view(np.uint16).reshape(len(rows), rows.dtype.itemsize // WORD)


@compiled
def _masks(length: int) -> tuple[int, int]:
    """How many groups a row has, and how many words the bits of these take."""
    groups = (length - HEAD_WORDS + BITS - 1) // BITS
    return groups, (groups + BITS - 1) // BITS * MASK_WORDS


@compiled
def _pack_group(words: Words, buffer: Words, place: int) -> int:
    """Write which words of a group are not zero, and these; nothing of one of zeros. Returns where they end."""
    mask = np.uint32(0)
    for bit in range(len(words)):
        mask |= np.uint32(words[bit] != 0) << np.uint32(bit)
    if mask == 0:
        return place
    buffer[place] = mask & np.uint32(0xFFFF)
    buffer[place + 1] = mask >> np.uint32(WORD_BITS)
    place += MASK_WORDS
    if mask == ALL:
        copy(words, buffer[place : place + BITS])
        return place + BITS
    for bit in range(len(words)):
        buffer[place] = words[bit]
        place += words[bit] != 0
    return place


@compiled_as(read_rows("uint16"), "uint16[]", *vectors(1))
def _pack(words: Words, buffer: Words, ends: Int64) -> None:
    """Pack rows [U, n] one after the other; `ends` [U] is where each ends."""
    end, length = 0, words.shape[1]
    groups, masks = _masks(length)
    for u in range(words.shape[0]):
        begin, bits = end, end + HEAD_WORDS
        end = bits + masks
        copy(words[u, :HEAD_WORDS], buffer[begin:bits])
        fill(buffer[bits:end], 0)
        for group in range(groups):
            first, place = HEAD_WORDS + group * BITS, end
            # Where the number of words is a constant, loops over them are a few instructions.
            if first + BITS <= length:
                end = _pack_group(words[u, first : first + BITS], buffer, place)
            else:
                end = _pack_group(words[u, first:], buffer, place)
            if end > place:
                buffer[bits + group // WORD_BITS] |= np.uint16(1) << np.uint16(group % WORD_BITS)
        if end - begin >= length:
            end = begin + length
            copy(words[u], buffer[begin:end])
        ends[u] = end


@compiled
def _unpack_group(content: Words, place: int, words: Words) -> int:
    """The other way round, into a group of zeros; returns where it ends, which is nowhere if it has no such words."""
    mask = np.uint32(content[place]) | np.uint32(content[place + 1]) << np.uint32(WORD_BITS)
    place += MASK_WORDS
    if mask == ALL:
        copy(content[place : place + BITS], words)
        return place + BITS
    for bit in range(len(words)):
        kept = bool(mask >> np.uint32(bit) & np.uint32(1))
        words[bit] = content[place] * kept
        place += kept
    return place if np.uint64(mask) >> np.uint64(len(words)) == 0 else len(content)


@compiled_as("uint16[]", *vectors(1), "uint16[,]", "boolean[]")
def _unpack(content: Words, ends: Int64, words: Words, whole: Bool) -> None:
    """The other way round, into rows of zeros; `whole` [U], those that may be, becomes those that are."""
    length, begin = words.shape[1], 0
    groups, masks = _masks(length)
    for u in range(words.shape[0]):
        end, bits = ends[u], begin + HEAD_WORDS
        place = bits + masks
        if end - begin == length:
            copy(content[begin:end], words[u])
        elif whole[u] and place <= end:
            copy(content[begin:bits], words[u, :HEAD_WORDS])
            for group in range(masks * WORD_BITS):
                if content[bits + group // WORD_BITS] >> np.uint16(group % WORD_BITS) & np.uint16(1) == 0:
                    continue
                if place >= end or group >= groups:
                    place = len(content)
                    break
                first = HEAD_WORDS + group * BITS
                if first + BITS <= length:
                    place = _unpack_group(content, place, words[u, first : first + BITS])
                else:
                    place = _unpack_group(content, place, words[u, first:])
            whole[u] = place == end
        else:
            whole[u] = False
        begin = end
