"""Sixteen float32 numbers as one value of compiled code: what is made of a loop is up to the compiler, this is not.

A vector is one register of AVX-512, two of AVX2, four of NEON. Each operation rounds as written here: a product and
the sum that it is added to once (`fused`, where the processor can), everything else by itself. So bits depend on the
order of operations alone.

Memory is named by the address of an array and a number of elements from there. Nothing is checked and nothing kept
alive: whoever calls a compiled function from Python holds the arrays, and makes them as long as it says.
"""

# ruff: noqa: ARG001 - numba calls what makes an operation with these arguments, used or not
from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils, errors
from numba.extending import intrinsic, lower_builtin, models, register_model, type_callable

WIDTH = 16
FLOAT, INDEX, PLACE = ir.FloatType(), ir.IntType(64), ir.IntType(32)
VECTOR = ir.VectorType(FLOAT, WIDTH)

Made = tuple[Any, Callable[[Any, Any, Any, Any], Any]]
"""The signature of an operation, and what builds it."""


operation: Callable[[Any], Any] = intrinsic
"""What compiled code calls: written, as numba wants it, as a function of types to a signature and what builds it."""


class _Vector(types.Type):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__(name="float32x16")


vector = _Vector()


@register_model(_Vector)
class _Model(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, of: Any) -> None:
        super().__init__(manager, of, VECTOR)


def _pointer(builder: Any, arguments: Any, kind: Any) -> Any:
    """To the element `arguments[1]` after the address `arguments[0]`, as the beginning of such a thing."""
    element = kind if isinstance(kind, ir.IntType) else FLOAT
    start = builder.inttoptr(arguments[0], element.as_pointer())
    return builder.bitcast(builder.gep(start, [arguments[1]]), kind.as_pointer())


def _reader(result: Any, kind: Any) -> Made:
    def made(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(_pointer(builder, arguments, kind), align=4 if kind is not INDEX else 8)

    return result(types.intp, types.intp), made


def _writer(value: Any, kind: Any) -> Made:
    def made(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.store(arguments[2], _pointer(builder, arguments, kind), align=4)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, value), made


@operation
def address(typing: Any, array: Any) -> Made:
    """Where a contiguous array of float32, or of int64, begins: others would be read for what they are not."""
    if (
        not isinstance(array, types.Array)
        or array.layout != "C"
        or array.dtype not in (types.float32, types.int64)
    ):
        raise errors.TypingError(
            f"no address is taken of {array}: give a contiguous array of float32, or of int64"
        )

    def made(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        found = context.make_array(signature.args[0])(context, builder, arguments[0])
        return builder.ptrtoint(found.data, INDEX)

    return types.intp(array), made


@operation
def load(typing: Any, start: Any, at: Any) -> Made:
    """The vector that begins at an element."""
    return _reader(vector, VECTOR)


@operation
def one(typing: Any, start: Any, at: Any) -> Made:
    """An element, float32."""
    return _reader(types.float32, FLOAT)


@operation
def whole(typing: Any, start: Any, at: Any) -> Made:
    """An element of an array of int64."""
    return _reader(types.int64, INDEX)


@operation
def store(typing: Any, start: Any, at: Any, value: Any) -> Made:
    """Write a vector to where an element is."""
    return _writer(vector, VECTOR)


@operation
def put(typing: Any, start: Any, at: Any, value: Any) -> Made:
    """Write an element, float32."""
    return _writer(types.float32, FLOAT)


@operation
def spread(typing: Any, number: Any) -> Made:
    """A number, sixteen times."""

    def made(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        blank = ir.Constant(VECTOR, ir.Undefined)
        first = builder.insert_element(blank, arguments[0], PLACE(0))
        return builder.shuffle_vector(first, blank, ir.Constant(ir.VectorType(PLACE, WIDTH), [0] * WIDTH))

    return vector(types.float32), made


@operation
def fused(typing: Any, a: Any, b: Any, c: Any) -> Made:
    """A b + c, rounded once where the processor can."""

    def made(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(VECTOR, [VECTOR] * 3)
        name = f"llvm.fmuladd.v{WIDTH}f32"
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)

    return vector(vector, vector, vector), made


@operation
def unless_negative(typing: Any, by: Any, value: Any) -> Made:
    """The numbers of `value`; 0 where those of `by` are 0 or less."""

    def made(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        zero = ir.Constant(VECTOR, [0.0] * WIDTH)
        return builder.select(builder.fcmp_unordered(">", arguments[0], zero), arguments[1], zero)

    return vector(vector, vector), made


@operation
def total(typing: Any, value: Any) -> Made:
    """The sum of a vector's numbers, halves first."""

    def made(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        rest, width = arguments[0], WIDTH
        while width > 1:
            width //= 2
            kind = ir.VectorType(PLACE, width)
            halves = [[*range(width)], [*range(width, 2 * width)]]
            rest = builder.fadd(
                *(builder.shuffle_vector(rest, rest, ir.Constant(kind, half)) for half in halves)
            )
        return builder.extract_element(rest, PLACE(0))

    return types.float32(vector), made


@operation
def transpose(typing: Any, source: Any, source_row: Any, target: Any, target_row: Any) -> Made:
    """Write sixteen vectors, `source_row` elements apart, as sixteen columns, in rows `target_row` elements apart."""

    def made(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source, source_row, target, target_row = arguments
        rows = [
            builder.load(_pointer(builder, (source, builder.mul(source_row, INDEX(n))), VECTOR), align=4)
            for n in range(WIDTH)
        ]
        for apart in (1, 2, 4, 8):
            rows = _exchanged(builder, rows, apart)
        for n, row in enumerate(rows):
            place = target, builder.mul(target_row, INDEX(n))
            builder.store(row, _pointer(builder, place, VECTOR), align=4)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp, types.intp), made


def _exchanged(builder: Any, rows: list[Any], apart: int) -> list[Any]:
    """Of each two rows so far apart, what lies across: the second's even blocks for the first's odd ones."""
    odd = [bool(n & apart) for n in range(WIDTH)]
    kind = ir.VectorType(PLACE, WIDTH)
    upper = ir.Constant(kind, [WIDTH + n - apart if odd[n] else n for n in range(WIDTH)])
    lower = ir.Constant(kind, [WIDTH + n if odd[n] else n + apart for n in range(WIDTH)])
    found = list(rows)
    for n in range(WIDTH):
        if not odd[n]:
            pair = rows[n], rows[n + apart]
            found[n], found[n + apart] = (builder.shuffle_vector(*pair, mask) for mask in (upper, lower))
    return found


def _lowered(of: Any, name: str) -> None:
    """The operator of two vectors."""

    @type_callable(of)  # type: ignore[untyped-decorator]
    def typed(context: Any) -> Any:
        return lambda a, b: vector if (a, b) == (vector, vector) else None

    @lower_builtin(of, vector, vector)  # type: ignore[untyped-decorator]
    def lowered(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return getattr(builder, name)(*arguments)


_lowered(operator.add, "fadd")
_lowered(operator.sub, "fsub")
_lowered(operator.mul, "fmul")
