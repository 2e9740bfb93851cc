"""Loops over events that no array expression can express, as machine code.

Beside `engine.located`, and the vectors of `engine.kernels`, all that is known of numba.

`NUMBA_DISABLE_JIT=1` runs the same functions as plain Python, which is how a debugger steps through them.
No fast-math anywhere: the same input gives the same bits.

Compiled functions allocate nothing, and count no references: what they write to comes from Python, or from `room`.
numba would count every array of every tuple that one function hands to another, which took three quarters of a scan.
And LLVM would copy them all, which took half of the rest: what compiled functions call becomes a part of them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array
from numba.np.numpy_support import as_dtype

from engine.machine_code import FOLDER, NOT_KEPT, keep

F = TypeVar("F", bound=Callable[..., Any])
V = TypeVar("V")


IS_PYTHON = bool(numba.config.DISABLE_JIT)
"""Whether nothing is compiled."""


def compiled(function: F) -> F:
    """Compile on first call."""
    return _kept(function)


def compiled_within(function: F) -> F:
    """Compile into the functions that call it, none of which is Python: on its own it is not kept, nor called."""
    return numba.njit(  # type: ignore[no-any-return]
        error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True, _nrt=False
    )(function)


def compiled_apart(function: F) -> F:
    """Compile on first call; other threads run meanwhile."""
    return _kept(function, nogil=True)


def _kept(function: F, *signature: Any, nogil: bool = False) -> F:
    """Compile, with our folder for machine code; other code keeps its own."""
    is_inner = not signature and not nogil
    dispatcher: Any = numba.njit(error_model="numpy", nogil=nogil, _nrt=False, forceinline=is_inner)(function)
    if dispatcher is function:  # under NUMBA_DISABLE_JIT
        return function
    if FOLDER is None:
        warnings.warn(NOT_KEPT, RuntimeWarning, stacklevel=1)
    else:
        keep(dispatcher, function, FOLDER)
    for kinds in signature:
        dispatcher.compile(kinds)
        dispatcher.disable_compile()
    return dispatcher  # type: ignore[no-any-return]


operation: Callable[[Any], Any] = intrinsic(prefer_literal=True)


@operation
def _room(typing: Any, count: Any) -> Any:  # noqa: ARG001 - as numba calls it
    kind = numba.types.Array(numba.types.float64, 1, "C")

    def made(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ARG001
        array = context.make_array(kind)(context, builder)
        data = cgutils.alloca_once(builder, ir.DoubleType(), size=count.literal_value)
        width = context.get_constant(numba.types.intp, 8)
        shape = [context.get_constant(numba.types.intp, count.literal_value)]
        populate_array(array, data=data, shape=shape, strides=[width], itemsize=width, meminfo=None)
        return array._getvalue()  # noqa: SLF001 - as numba names it

    return kind(count), made


room: Callable[[int], Any] = np.empty if IS_PYTHON else _room
"""A vector of so many float64 numbers, a constant, that lives as long as the compiled function that asks for it."""


@compiled_within
def copy(source: Any, into: Any) -> None:
    """Copy a vector."""
    for i in range(len(into)):
        into[i] = source[i]


@compiled_within
def fill(into: Any, value: float) -> None:
    """Write one number everywhere in a vector."""
    for i in range(len(into)):
        into[i] = value


def scalars(record: type[tuple[Any, ...]], types: list[Any]) -> Any:
    """The numba type of a named tuple of numbers; a pair is a tuple of that many, [] a vector, [,] a matrix.

    A part that is a named tuple itself is given by its type.
    """
    return numba.types.NamedTuple([_scalar(kind) for kind in types], record)


def _scalar(kind: Any) -> Any:
    if isinstance(kind, tuple):
        return numba.types.UniTuple(getattr(numba.types, kind[0]), kind[1])
    if not isinstance(kind, str):
        return kind
    scalar, array, dimensions = kind.partition("[")
    if array:
        return numba.types.Array(getattr(numba.types, scalar), dimensions.count(",") + 1, "C")
    return getattr(numba.types, kind)


def arrays(columns: type[tuple[Any, ...]], types: list[tuple[str, int]], *, strided: bool) -> Any:
    """The numba type of a named tuple of arrays, given each one's scalar type and dimensions."""
    order = "A" if strided else "C"
    fields = [numba.types.Array(getattr(numba.types, scalar), ndim, order) for scalar, ndim in types]
    return numba.types.NamedTuple(fields, columns)


def strided(scalar: str) -> Any:
    """The numba type of an array of two dimensions that is a field of a table's rows."""
    return numba.types.Array(getattr(numba.types, scalar), 2, "A")


def vectors(count: int) -> list[Any]:
    """The numba types of that many contiguous vectors of int64."""
    return [numba.types.Array(numba.types.int64, 1, "C")] * count


def read_vector(scalar: str) -> Any:
    """The numba type of a contiguous vector that is only read."""
    return numba.types.Array(getattr(numba.types, scalar), 1, "C", readonly=True)


def read_rows(scalar: str) -> Any:
    """The numba type of a contiguous array of two dimensions that is only read, from wherever it begins."""
    return numba.types.Array(getattr(numba.types, scalar), 2, "C", readonly=True, aligned=False)


class Compiled:
    """A function compiled for one declared signature.

    numba looks at every argument of a call, which takes longer than most calls where these are a hundred arrays. So
    calls go to the machine code at once, which would take an array of another type for one of its own. The first call
    has all arguments looked at; every call those that are arrays themselves, and the kind of the others: what makes
    named tuples of arrays is one function each.
    """

    def __init__(self, dispatcher: Any, kinds: Sequence[Any]) -> None:
        self.dispatcher, self.kinds = dispatcher, kinds
        (made,) = dispatcher.overloads.values()
        self._call, self._is_first = made.entry_point, True
        self._arrays = [
            (place, as_dtype(kind.dtype), kind.ndim, kind.layout == "C")
            for place, kind in enumerate(kinds)
            if isinstance(kind, numba.types.Array)
        ]
        self._records = [
            (place, kind.instance_class)
            for place, kind in enumerate(kinds)
            if isinstance(kind, numba.types.NamedTuple)
        ]

    def __call__(self, *arguments: Any) -> Any:
        """Call the function.

        Raises:
            TypeError: an argument is not of the declared type.
        """
        for place, dtype, dimensions, in_order in self._arrays:
            array = arguments[place]
            if (
                type(array) is not np.ndarray
                or array.dtype is not dtype
                or array.ndim != dimensions
                or (in_order and not array.flags.c_contiguous)
            ):
                self._look_at(place, array)
        for place, record in self._records:
            if type(arguments[place]) is not record:
                self._look_at(place, arguments[place])
        if self._is_first:
            self._look_at_all(arguments)
        return self._call(*arguments)

    def _look_at_all(self, arguments: Sequence[Any]) -> None:
        if len(arguments) != len(self.kinds):
            raise TypeError(
                f"{self.dispatcher.__name__} takes {len(self.kinds)} arguments, got {len(arguments)}"
            )
        for place, argument in enumerate(arguments):
            self._look_at(place, argument)
        self._is_first = False

    def _look_at(self, place: int, argument: Any) -> None:
        if is_of(self.kinds[place], argument):
            return
        found = f"{argument.dtype}{argument.shape}" if isinstance(argument, np.ndarray) else repr(argument)
        raise TypeError(
            f"argument {place} of {self.dispatcher.__name__} is {found:.200}, compiled for {self.kinds[place]}; "
            "convert it, and lay it out in order"
        )


def is_of(kind: Any, value: Any) -> bool:
    """Whether a value is what compiled code takes for a type; numbers are converted as Python converts them."""
    if isinstance(kind, numba.types.Array):
        return (
            isinstance(value, np.ndarray)
            and value.dtype == as_dtype(kind.dtype)
            and value.ndim == kind.ndim
            and (value.flags.c_contiguous or kind.layout != "C")
            and (value.flags.writeable or not kind.mutable)
        )
    if isinstance(kind, numba.types.NamedTuple):
        return type(value) is kind.instance_class and all(map(is_of, kind.types, value))
    if isinstance(kind, numba.types.BaseTuple):
        return isinstance(value, tuple) and len(value) == len(kind) and all(map(is_of, kind, value))
    return isinstance(value, int | float | np.number | np.bool_)


def checked_for(kind: Any, value: V) -> V:
    """A value that is what compiled code takes for a type: what is made once is looked at once.

    Raises:
        TypeError: it is not.
    """
    if not is_of(kind, value):
        raise TypeError(
            f"{value!r:.200} is not what is compiled for {kind}; convert it, and lay it out in order"
        )
    return value


def compiled_as(*signature: Any) -> Callable[[F], F]:
    """Compile for one declared signature, at import: no array a caller passes can need a second version.

    Such a function is called from Python, and not from what is compiled. Other threads run meanwhile.
    """

    def decorate(function: F) -> F:
        """Compile one function for that signature; what it is compiled to is kept on disk."""
        kinds = [_scalar(kind) for kind in signature]
        made = _kept(function, tuple(kinds), nogil=True)
        return made if made is function else Compiled(made, kinds)  # type: ignore[return-value]

    return decorate
