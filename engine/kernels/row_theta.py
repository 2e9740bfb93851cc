"""What the loop over rows (`row_loop`) must know of a network, and of a version of theta."""

from __future__ import annotations

from typing import Any, NamedTuple

from engine.compiled import scalars


class Shape(NamedTuple):
    """What the loop must know of a network. A place is one in theta's numbers or, as -1 - place, in a task's own."""

    outputs: int
    width: int
    """Numbers of a dense row: what the front end makes of a stored one."""
    widest: int
    """Of all layers."""
    numeric: Any
    """[n] which stored numbers are standardised."""
    mean: int
    """Place of their means,"""
    std: int
    """and of their deviations."""
    flagged: Any
    """Which stored numbers may be missing and say so."""
    plain: Any
    """Which are read as they are."""
    sets: Any
    """Where sets of counts of labels begin."""
    classes: int
    """0 of a regression."""
    rate: int
    """Place of the rate of each class, or of the mean of all labels."""
    unit: int
    """Of a regression: place of the deviation of its labels."""
    last: int
    """Where the last label lies in a stored row; -1 where it is not read."""
    marks: int
    """Classes that the last label may be."""
    bags: Any
    """[B, 5] of each category or text: where its ids begin, how many (1 of a category), numbers of its embedding, and
    the places of its embeddings and of its weights in theta's tables."""
    layers: Any
    """[L, 5] kind, inputs, outputs, and the places of weights and biases."""
    wide: bool
    """Whether a linear model stands beside the network,"""
    numbers: int
    """of so many of the dense numbers, with these places:"""
    weight: int
    bias: int


NUMBER, VECTOR, MATRIX = "int64", "int64[]", "int64[,]"
SHAPE = scalars(
    Shape,
    [
        *[NUMBER] * 3, VECTOR, NUMBER, NUMBER, VECTOR, VECTOR, VECTOR, *[NUMBER] * 5, MATRIX, MATRIX, "boolean",
        *[NUMBER] * 3,
    ],
)  # fmt: skip


class RowTheta(NamedTuple):
    """One version of theta, as the loop reads it."""

    shape: Shape
    numbers: Any
    """[T] as `shape` places them."""
    tables: Any
    """All tables of buckets, one after the other."""
    log_rate: Any
    """[classes] the logarithm of each class's rate."""


ROW_THETA = scalars(RowTheta, [SHAPE, "float32[]", "float32[]", "float64[]"])
