"""Rows of a table as compiled code is given them: where they begin, and where each column begins in a row.

A table has fifty columns. To make a view of each takes Python 5 us, and to hand all of them over takes 2 us a call:
a compiled function that is told where the columns lie finds them in no time.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from math import prod
from typing import Any, NamedTuple

from llvmlite import ir
from numba import types
from numba.np.arrayobj import populate_array
from numba.np.numpy_support import as_dtype

from engine.compiled import IS_PYTHON, operation, scalars

INDEX = ir.IntType(64)


class Located(NamedTuple):
    """Rows, and their columns."""

    rows: Any
    """[U, bytes] uint8; one may lie anywhere behind the other."""
    places: Any
    """[columns, 4] where each begins in a row, and its shape there."""


LOCATED = scalars(Located, [types.Array(types.uint8, 2, "A"), "int64[,]"])


def columns_in(kind: Any) -> Callable[[Located], Any]:
    """What finds the columns of rows: a named tuple of arrays [U, ...], of that numba type."""

    @operation
    def found(typing: Any, located: Any) -> Any:  # noqa: ARG001 - as numba calls it
        """In compiled code."""

        def made(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ARG001
            """All of them; of those that nobody reads, the compiler makes nothing."""
            rows, places = (
                context.make_array(of)(context, builder, builder.extract_value(arguments[0], n))
                for n, of in enumerate(located)
            )
            columns = [_column(context, builder, of, rows, places, n) for n, of in enumerate(kind)]
            return context.make_tuple(builder, kind, columns)

        return kind(located), made

    def viewed(located: Located) -> Any:
        """In Python."""
        rows, places = located
        of_each = zip(kind, places.tolist(), strict=True)
        return kind.instance_class._make(_view(rows, of, *place) for of, place in of_each)

    return viewed if IS_PYTHON else found


def _column(context: Any, builder: Any, kind: Any, rows: Any, places: Any, n: int) -> Any:
    """The n-th column: from row to row it goes on as rows do, within a row it lies in order."""
    number = context.get_data_type(kind.dtype)
    entry = [builder.gep(places.data, [INDEX(4 * n + k)]) for k in range(kind.ndim)]
    start, *inner = map(builder.load, entry)
    width = INDEX(context.get_abi_sizeof(number))
    strides = [*accumulate(reversed(inner[1:]), builder.mul, initial=width)][: len(inner)]
    first = builder.bitcast(builder.gep(rows.data, [start]), number.as_pointer())
    shape = [builder.extract_value(rows.shape, 0), *inner]
    strides = [builder.extract_value(rows.strides, 0), *reversed(strides)]
    return _array(context, builder, kind, first, shape, strides, width)


def _array(
    context: Any, builder: Any, kind: Any, first: Any, shape: list[Any], strides: list[Any], width: Any
) -> Any:
    array = context.make_array(kind)(context, builder)
    populate_array(array, data=first, shape=shape, strides=strides, itemsize=width, meminfo=None)
    return array._getvalue()  # noqa: SLF001 - as numba names it


def _view(rows: Any, kind: Any, start: int, *shape: int) -> Any:
    """A column as numpy sees it."""
    dtype, inner = as_dtype(kind.dtype), shape[: kind.ndim - 1]
    stop = start + dtype.itemsize * prod(inner)
    return rows[:, start:stop].view(dtype).reshape(len(rows), *inner)


@operation
def _numbers_of(typing: Any, column: Any, row: Any) -> Any:  # noqa: ARG001 - as numba calls it
    kind = types.Array(column.dtype, 1, "C")

    def made(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ARG001
        """The vector that begins where the row does."""
        array = context.make_array(column)(context, builder, arguments[0])
        (_, count), (step, width) = (
            [builder.extract_value(of, n) for n in range(2)] for of in (array.shape, array.strides)
        )
        start = builder.add(builder.ptrtoint(array.data, INDEX), builder.mul(arguments[1], step))
        first = builder.inttoptr(start, array.data.type)
        return _array(context, builder, kind, first, [count], [width], width)

    return kind(column, types.intp), made


def _row_of(column: Any, row: int) -> Any:
    return column[row]


numbers_of: Callable[[Any, int], Any] = _row_of if IS_PYTHON else _numbers_of
"""One row of a column [U, n], as a vector whose numbers lie in order, which a column does not say of itself."""
