"""The one place that knows numba: loops over events that no array expression can express, as machine code.

`NUMBA_DISABLE_JIT=1` runs the same functions as plain Python, which is how a debugger steps through them.
No fast-math anywhere: the same input gives the same bits.

Machine code is kept on disk for the next process. numba would take it up again as long as the file of a function is
as it was, whatever became of the functions of other files that are compiled into it: an upgrade would go on with
the old ones. So it is kept in a folder that is named by all sources.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeVar

import numba

F = TypeVar("F", bound=Callable[..., Any])


def folder_of(sources: Path) -> Path:
    """Where the machine code of the modules in a folder is kept."""
    content = b"".join(path.read_bytes() for path in sorted(sources.glob("*.py")))
    return sources / "__pycache__" / f"compiled-{blake2b(content, digest_size=8).hexdigest()}"


FOLDER = str(folder_of(Path(__file__).parent))


def compiled(function: F) -> F:
    """Compile on first call."""
    return _kept(function)


def _kept(function: F, *signature: Any) -> F:
    """Compile, with the folder for machine code, unless NUMBA_CACHE_DIR names another; other code keeps its own."""
    theirs = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = theirs or FOLDER
    try:
        return numba.njit(*signature, cache=True, error_model="numpy")(function)  # type: ignore[no-any-return]
    finally:
        numba.config.CACHE_DIR = theirs


def scalars(record: type[tuple[Any, ...]], types: list[Any]) -> Any:
    """The numba type of a named tuple of numbers; a pair stands for a tuple of that many, [] for a vector."""
    return numba.types.NamedTuple([_scalar(kind) for kind in types], record)


def _scalar(kind: str | tuple[str, int]) -> Any:
    if isinstance(kind, tuple):
        return numba.types.UniTuple(getattr(numba.types, kind[0]), kind[1])
    if kind.endswith("[]"):
        return numba.types.Array(getattr(numba.types, kind[:-2]), 1, "C")
    return getattr(numba.types, kind)


def arrays(columns: type[tuple[Any, ...]], types: list[tuple[str, int]], *, strided: bool) -> Any:
    """The numba type of a named tuple of arrays, given each one's scalar type and dimensions."""
    order = "A" if strided else "C"
    fields = [numba.types.Array(getattr(numba.types, scalar), ndim, order) for scalar, ndim in types]
    return numba.types.NamedTuple(fields, columns)


def vectors(count: int) -> list[Any]:
    """The numba types of that many contiguous vectors of int64."""
    return [numba.types.Array(numba.types.int64, 1, "C")] * count


def compiled_as(*signature: Any) -> Callable[[F], F]:
    """Compile for one declared signature, at import: no array a caller passes can need a second version."""

    def decorate(function: F) -> F:
        """Compile one function for that signature; what it is compiled to is kept on disk."""
        kinds = [getattr(numba.types, kind) if isinstance(kind, str) else kind for kind in signature]
        return _kept(function, tuple(kinds))

    return decorate
