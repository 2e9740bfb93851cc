"""Tables of theta as the rows that differ from most: one has a row for each of thousands of buckets, few ever met.

What most rows are is written once, beside it the places of the others and what they are. Rows are compared as bytes,
so a table comes back bit for bit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from engine.types import Bool, UInt64

MANY = 256
"""With fewer rows a table is written as it is."""

LOOKED_AT = 16
"""Rows, evenly spaced, by which it is told what most are."""

USUAL, PLACES, OTHERS = "usual.", "places.", "others."
"""What the names of a table's parts begin with."""

WORD = 8
"""Bytes of a row that are compared at once."""


class Thin(NamedTuple):
    """A table [N, W] of which most rows are the same."""

    usual: Tensor
    """[W]"""
    places: Tensor
    """[n] int32, rising"""
    others: Tensor
    """[n, W]"""


def thinned(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, int]]:
    """What to write of tensors, and the number of rows of each table that is written in parts.

    >>> parts, rows = thinned({"bias": torch.zeros(2), "table": torch.zeros(1000, 2)})
    >>> rows, {name: tuple(part.shape) for name, part in parts.items()}
    ({'table': 1000}, {'bias': (2,), 'usual.table': (2,), 'places.table': (0,), 'others.table': (0, 2)})
    """
    written, rows = dict[str, Tensor](), dict[str, int]()
    for name, value in tensors.items():
        thin = _thin(value)
        if thin is None:
            written[name] = value
        else:
            rows[name] = len(value)
            written |= {
                prefix + name: part for prefix, part in zip((USUAL, PLACES, OTHERS), thin, strict=True)
            }
    return written, rows


def widened(written: Mapping[str, Tensor], rows: Mapping[str, int], most_bytes: int) -> dict[str, Tensor]:
    """The tensors that `thinned` was given.

    Raises:
        ValueError: parts do not make a table, or tables take more than `most_bytes`.
        KeyError: a part is missing.

    """
    found, left = dict(written), most_bytes
    for name, count in rows.items():
        thin = Thin(*(found.pop(prefix + name) for prefix in (USUAL, PLACES, OTHERS)))
        if not _fits(thin, count) or name in found:
            raise ValueError("the parts of a table do not fit together")
        left -= count * thin.usual.nbytes
        if left < 0:
            raise ValueError(f"its tables are said to take more than {most_bytes:,} bytes")
        table = thin.usual.repeat(count, 1)
        table[thin.places.long()] = thin.others
        found[name] = table
    return found


def _thin(table: Tensor) -> Thin | None:
    """The parts of a table; None where they would take no less than half of it."""
    if table.dim() != 2 or len(table) < MANY or not table.shape[1] * table.element_size():
        return None
    words = _words(table)
    usual = _most_common(words)
    met = np.flatnonzero(_differ(words, words[usual]))
    if 2 * len(met) > len(table):
        return None
    places = torch.from_numpy(met)
    return Thin(table[usual], places.int(), table[places])


def _words(table: Tensor) -> UInt64:
    """Rows as words, or bytes where these do not fill words."""
    content = table.detach().cpu().contiguous().view(torch.uint8).numpy()
    return content.view(np.uint64) if content.shape[1] % WORD == 0 else content


def _most_common(words: UInt64) -> int:
    """The place of a row that is like most of those looked at."""
    seen = range(0, len(words), len(words) // LOOKED_AT)
    kinds = [words[place].tobytes() for place in seen]
    [(most, _)] = Counter(kinds).most_common(1)
    return seen[kinds.index(most)]


def _differ(words: UInt64, usual: UInt64) -> Bool:
    """Which rows are not like one, column after column: many times as fast as a row after the other."""
    differ: Bool = words[:, 0] != usual[0]
    for column in range(1, words.shape[1]):
        differ |= words[:, column] != usual[column]
    return differ


def _fits(thin: Thin, count: object) -> bool:
    """Whether parts make a table of so many rows."""
    usual, places, others = thin
    return (
        type(count) is int
        and 0 < count < 2**31  # places are int32
        and usual.dim() == places.dim() == 1
        and places.dtype == torch.int32
        and others.shape == (len(places), len(usual))
        and others.dtype == usual.dtype
        and bool(((places >= 0) & (places < count)).all())
    )
