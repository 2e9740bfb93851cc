"""What an encoder keeps."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from engine.checks.made_up import stored_rows
from engine.checks.promises import CheckFailed, require
from engine.features.encoder import Features
from engine.features.stored import stored_numbers
from engine.types import Float32

ROWS = 32
"""Stored rows that the front end is tried on."""

AWKWARD: tuple[Any, ...] = (
    None, True, -1, 0.5, 10**400, 1e39, -1e308, float("nan"), float("inf"),
    "", "text", "\ud800", [], [1.0], [1.0, 2.0], {}, {"a": 1}, b"1",
)  # fmt: skip
"""Values that a stream of JSON, or a mistake, may bring for any field."""


def the_encoder_never_raises(features: Features) -> None:
    """Whatever value a field brings, it is encoded or becomes a fault."""
    for column in features.columns:
        alone = Features((column,))  # else the work would grow with the square of the columns
        for value in AWKWARD:
            try:
                alone.encode([{column.name: value}])
            except Exception as error:
                raise CheckFailed(
                    f"field {column.name!r}: encoding {value!r:.40} raised {type(error).__name__} ({error}); "
                    "return a fault for a value that does not fit"
                ) from error


def stored_rows_are_of_the_declared_width(features: Features) -> None:
    """Rows are [N, width] float32, for no rows too."""
    for count in (0, 1, 3):
        x = features.encode([{}] * count).x
        require(
            x.shape == (count, features.width) and x.dtype == np.float32,
            f"{count} rows were encoded as {x.dtype} {x.shape} instead of float32 {(count, features.width)}",
            "make each column's `width` agree with what its `encode` returns",
        )


def a_row_does_not_depend_on_the_rows_beside_it(features: Features) -> None:
    """A row is encoded alone as it is among others."""
    rows = [dict.fromkeys(features.names, value) for value in AWKWARD]
    together = features.encode(rows)
    for n, row in enumerate(rows):
        alone = features.encode([row])
        require(
            alone.x.tobytes() == together.x[n : n + 1].tobytes()
            and alone.faults.get(0) == together.faults.get(n),
            f"a row of {AWKWARD[n]!r:.40} is encoded otherwise alone than among others",
            "encode each value by itself; a cache must tell 1 from True and from 1.0",
        )


def what_is_encoded_may_be_stored(features: Features) -> None:
    """Stored numbers are finite, and NaN only where a number may be missing; else a row that holds one is refused."""
    rows = [dict.fromkeys(features.names, value) for value in AWKWARD]
    broken = features_unsound(features, features.encode(rows).x)
    require(
        not broken,
        f"fields {broken} are encoded as numbers that no row may hold (NaN, infinite, or no bucket)",
        "return a fault for a value that does not fit",
    )


def features_unsound(features: Features, x: Float32) -> list[str]:
    """Fields of which stored rows x [N, W] hold what they may not."""
    stored = stored_numbers(features)
    places = np.flatnonzero(stored.unsound(x).any(axis=0)).tolist()
    return sorted({stored.field[place] for place in places})


def the_front_end_reads_whatever_is_stored(features: Features) -> None:
    """Dense rows are finite and of the width that the network is built for."""
    front = features.front_end()
    dense = front(torch.from_numpy(stored_rows(features, ROWS, seed=0)))
    require(
        dense.shape == (ROWS, front.width) and bool(dense.isfinite().all()),
        f"the front end makes {tuple(dense.shape)} of {ROWS} stored rows, or what is not finite",
        f"it must return finite rows of width {front.width}",
    )


ENCODER_CHECKS = (
    the_encoder_never_raises,
    stored_rows_are_of_the_declared_width,
    a_row_does_not_depend_on_the_rows_beside_it,
    what_is_encoded_may_be_stored,
    the_front_end_reads_whatever_is_stored,
)
