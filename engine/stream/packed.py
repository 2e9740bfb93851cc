"""Rows as they lie in a store where room counts: words of zeros are left out, so a young task takes little.

A row has room for every example and every observation that its task may remember, and most tasks have few. Packed, it
is its head, a bit for each of the words behind it, and those of the words that are not zero. A row that would be no
shorter is left as it is, so the length tells which of the two it is. What is free in a row has to be zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from engine.compiled import compiled_as, copy, read_rows, vectors
from engine.stream.layout import HEAD_BYTES
from engine.types import Bool, Int64

WORD = 4
"""Bytes of a word: one number of a feature, or half of a count."""

HEAD_WORDS = HEAD_BYTES // WORD

BITS = 32

Words = npt.NDArray[np.uint32]
Buffer = bytes | memoryview


def packed(rows: npt.NDArray[np.void]) -> list[memoryview]:
    """Rows [U] as bytes, each no longer than the row."""
    words = _words(rows)
    buffer, ends = np.empty(words.size, np.uint32), np.empty(len(words), np.int64)
    _pack(words, buffer, ends)
    content, bounds = buffer.view(np.uint8).data, [0, *(ends * WORD).tolist()]
    return [content[start:end] for start, end in pairwise(bounds)]


def unpack(stored: Sequence[Buffer], rows: npt.NDArray[np.void]) -> Bool:
    """Write what was packed into `rows` [U], whose bytes are zero; returns which [U] were whole.

    Of those that were not, the row may hold anything.
    """
    lengths = np.array([len(row) for row in stored], np.int64)
    whole: Bool = (lengths % WORD == 0) & (lengths <= rows.dtype.itemsize)
    content = bytearray().join(row if fits else b"" for row, fits in zip(stored, whole.tolist(), strict=True))
    _unpack(np.frombuffer(content, np.uint32), np.cumsum(lengths * whole // WORD), _words(rows), whole)
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
    return rows.view(np.uint32).reshape(len(rows), rows.dtype.itemsize // WORD)


@compiled_as(read_rows("uint32"), "uint32[]", *vectors(1))
def _pack(words: Words, buffer: Words, ends: Int64) -> None:
    """Pack rows [U, n] one after the other; `ends` [U] is where each ends."""
    end, length = 0, words.shape[1]
    groups = (length - HEAD_WORDS + BITS - 1) // BITS
    for u in range(words.shape[0]):
        begin, kept = end, 0
        for i in range(HEAD_WORDS, length):
            kept += words[u, i] != 0
        end += min(length, HEAD_WORDS + groups + kept)
        ends[u] = end
        if end - begin == length:
            copy(words[u], buffer[begin:end])
            continue
        copy(words[u, :HEAD_WORDS], buffer[begin : begin + HEAD_WORDS])
        place = begin + HEAD_WORDS + groups
        for group in range(groups):
            first, mask = HEAD_WORDS + group * BITS, np.uint32(0)
            for bit in range(min(BITS, length - first)):
                word = words[u, first + bit]
                if word != 0:
                    buffer[place] = word
                    place += 1
                    mask |= np.uint32(1) << np.uint32(bit)
            buffer[begin + HEAD_WORDS + group] = mask


@compiled_as("uint32[]", *vectors(1), "uint32[,]", "boolean[]")
def _unpack(content: Words, ends: Int64, words: Words, whole: Bool) -> None:
    """The other way round, into rows of zeros; `whole` [U], those that may be, becomes those that are."""
    length, begin = words.shape[1], 0
    groups = (length - HEAD_WORDS + BITS - 1) // BITS
    for u in range(words.shape[0]):
        end = ends[u]
        place = begin + HEAD_WORDS + groups
        if end - begin == length:
            copy(content[begin:end], words[u])
        elif whole[u] and place <= end:
            copy(content[begin : begin + HEAD_WORDS], words[u, :HEAD_WORDS])
            for group in range(groups):
                mask = content[begin + HEAD_WORDS + group]
                for i in range(HEAD_WORDS + group * BITS, min(HEAD_WORDS + (group + 1) * BITS, length)):
                    if mask & np.uint32(1):
                        if place == end:
                            whole[u] = False
                            break
                        words[u, i] = content[place]
                        place += 1
                    mask >>= np.uint32(1)
                whole[u] &= mask == 0
            whole[u] &= place == end
        else:
            whole[u] = False
        begin = end
