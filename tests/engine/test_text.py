"""Numbers are laid out by compiled code as orjson lays them out, byte for byte, whatever they are."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from engine.text.numbers import BEYOND, DOUBLE, LONGEST, SINGLE, WHOLE, write_numbers

ROOT = Path(__file__).parents[2]

KINDS = {np.float32: SINGLE, np.float64: DOUBLE, np.int64: WHOLE}


def written(values: Any, bounds: list[int], width: int) -> list[bytes]:
    """The texts of stretches of numbers."""
    bits = values.view(np.uint32).astype(np.uint64) if values.itemsize == 4 else values.view(np.uint64)
    into, ends = np.empty(len(values) * LONGEST + BEYOND, np.uint8), np.empty(len(bounds) - 1, np.int64)
    write_numbers(bits, KINDS[values.dtype.type], np.array(bounds), width, into, ends)
    return [into[a:b].tobytes() for a, b in zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True)]


def plainly(values: Any) -> bytes:
    return orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1]


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int64])
def test_numbers_of_any_bits_are_written_as_orjson_writes_them(kind: Any) -> None:
    word = np.uint32 if kind == np.float32 else np.uint64
    drawn = np.random.default_rng(0).integers(0, np.iinfo(word).max, 300_000, word, endpoint=True)
    values = drawn.view(kind)
    assert written(values, [0, len(values)], len(values)) == [plainly(values)]


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_powers_their_neighbours_and_numbers_of_few_digits_are_written_as_orjson_writes_them(
    kind: Any,
) -> None:
    with np.errstate(over="ignore", under="ignore"):
        powers = np.concatenate([10.0 ** np.arange(-323, 309), 2.0 ** np.arange(-1074, 1024)]).astype(kind)
        few = np.outer(np.arange(1.0, 1000), 10.0 ** np.arange(-30, 31)).ravel().astype(kind)
    ends = np.array([0.0, np.nan, np.inf, np.finfo(kind).max, np.finfo(kind).smallest_subnormal], kind)
    beside = [np.nextafter(powers, kind(to)) for to in (0, np.inf)]
    values = np.concatenate([powers, *beside, few, ends])
    values = np.concatenate([values, -values])
    assert written(values, [0, len(values)], len(values)) == [plainly(values)]


@given(npst.arrays(st.sampled_from([*KINDS]), st.integers(0, 30)), st.data())
def test_stretches_lie_end_to_end_and_rows_have_brackets_between(values: Any, data: st.DataObject) -> None:
    places = st.lists(st.integers(0, len(values)), min_size=2, max_size=6)
    bounds, width = sorted(data.draw(places)), data.draw(st.integers(1, 5))
    stretches = [values[a:b] for a, b in pairwise(bounds)]
    expected = [
        b"],[".join(plainly(part[n : n + width]) for n in range(0, len(part), width)) for part in stretches
    ]
    assert written(values, bounds, width) == expected


def test_plain_python_writes_the_same() -> None:
    program = (
        "from tests.engine.test_text import *\n"
        "for kind in KINDS:\n"
        "    word = np.uint32 if kind == np.float32 else np.uint64\n"
        "    drawn = np.random.default_rng(1).integers(0, np.iinfo(word).max, 500, word, endpoint=True)\n"
        "    values = np.concatenate([drawn.view(kind), np.arange(-9, 9).astype(kind)])\n"
        "    assert written(values, [0, 518], 518) == [plainly(values)], kind\n"
    )
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1", "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", program], env=environment, cwd=ROOT, check=True)
