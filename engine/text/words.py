"""Eight bytes of an array at once, from wherever they begin; nothing is checked, so there have to be so many."""

# ruff: noqa: ARG001 - numba calls what makes an operation with these arguments, used or not
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types

from engine.compiled import IS_PYTHON, operation
from engine.types import UInt8

WORD = 8


def _place(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    array = context.make_array(signature.args[0])(context, builder, arguments[0])
    return builder.bitcast(builder.gep(array.data, [arguments[1]]), ir.IntType(8 * WORD).as_pointer())


@operation
def _load(typing: Any, source: Any, at: Any) -> Any:

    def made(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(_place(context, builder, signature, arguments), align=1)

    return types.uint64(source, types.int64), made


@operation
def _store(typing: Any, into: Any, at: Any, word: Any) -> Any:

    def made(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.store(arguments[2], _place(context, builder, signature, arguments), align=1)
        return context.get_dummy_value()

    return types.void(into, types.int64, types.uint64), made


def _loaded(source: UInt8, at: int) -> Any:
    return source[at : at + WORD].view(np.uint64)[0]


def _stored(into: UInt8, at: int, word: Any) -> None:
    into[at : at + WORD].view(np.uint64)[0] = word


load: Callable[[Any, Any], Any] = _loaded if IS_PYTHON else _load
"""Read eight bytes, the first as the lowest."""

store: Callable[[Any, Any, Any], None] = _stored if IS_PYTHON else _store
"""Write eight bytes."""
