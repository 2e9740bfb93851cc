"""Loops over events that no array expression can express, as machine code; beside `engine.kernels.vectors` all numba.

`NUMBA_DISABLE_JIT=1` runs the same functions as plain Python, which is how a debugger steps through them.
No fast-math anywhere: the same input gives the same bits.

Machine code is kept on disk for the next process. numba would take it up again as long as the file of a function is
as it was, whatever became of the functions of other files that are compiled into it: an upgrade would go on with
the old ones. So it is kept in a folder that is named by all sources and the processor, beside them or, where that
cannot be written, in the user's cache; where neither can, nothing is kept, and every process compiles anew. Code that
lies already in a folder that cannot be written, as in the image of a container, is read, and nothing is added.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b
from pathlib import Path
from time import time
from typing import Any, TypeVar

import numba
from numba.core.caching import CompileResultCacheImpl, FunctionCache, UserProvidedCacheLocator
from numba.core.registry import cpu_target

F = TypeVar("F", bound=Callable[..., Any])


IS_PYTHON = bool(numba.config.DISABLE_JIT)
"""Whether nothing is compiled."""

DAY_S = 86_400.0

NOT_KEPT = (
    "machine code cannot be kept here, so every start compiles for half a minute: let NUMBA_CACHE_DIR name a folder "
    "that can be written"
)


def machine() -> str:
    """What machine code is made by and for: numba, and the processor or the one that NUMBA_CPU_NAME names."""
    return repr((numba.__version__, *cpu_target.target_context.codegen().magic_tuple()))


def name_of(sources: Path, machine: str) -> str:
    """What the folder for a machine's code of the modules in a folder is called."""
    content = b"".join([machine.encode(), *(path.read_bytes() for path in sorted(sources.rglob("*.py")))])
    return f"compiled-{blake2b(content, digest_size=8).hexdigest()}"


def folder_in(places: Iterable[Path], name: str) -> Path | None:
    """The folder of that name in the first place that can be written, or where code lies in it already.

    Where it is new, folders of other sources beside it are cleared.
    """
    for place in places:
        folder = place / name
        is_new = not holds_code(folder)
        if is_writable(folder):
            if is_new:
                clear_others(folder)
            return folder
        if not is_new:
            return folder
    return None


def is_writable(folder: Path) -> bool:
    """Whether files can be written to a folder, which is made where it can be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "writable").touch()
        (folder / "writable").unlink(missing_ok=True)
    except OSError:
        return False
    return True


def holds_code(folder: Path) -> bool:
    """Whether machine code lies in a folder that can be read."""
    try:
        return any(folder.glob("*/*.nbi"))
    except OSError:
        return False


def clear_others(folder: Path) -> None:
    """Delete folders of other sources, but for those of the last day: a process may be compiling into one."""
    for other in folder.parent.glob("compiled-" + "[0-9a-f]" * 16):
        try:
            if other != folder and other.stat().st_mtime < time() - DAY_S:
                for path in sorted(other.rglob("*"), reverse=True):  # what lies in a folder before the folder
                    path.rmdir() if path.is_dir() else path.unlink()
                other.rmdir()
        except OSError:  # another process was first, or may do what we may not
            continue


def _places(sources: Path) -> Iterator[Path]:
    yield sources / "__pycache__"
    try:
        yield Path("~/.cache/reptide").expanduser()
    except RuntimeError:  # nobody's home is known
        return


NAMED = numba.config.CACHE_DIR
"""NUMBA_CACHE_DIR, which goes first."""

SOURCES = Path(__file__).parent

FOLDER = folder_in([Path(NAMED)] if NAMED else _places(SOURCES), name_of(SOURCES, machine()))
"""Where machine code is kept; None where nothing can be."""

IS_ADDED_TO = FOLDER is not None and is_writable(FOLDER)
"""Whether what is compiled is written there."""


class _LocatorAsItIs(UserProvidedCacheLocator):  # type: ignore[misc]
    def ensure_cache_path(self) -> None:
        """The one of numba passes over a folder that cannot be written."""


class _CodeAsItIs(CompileResultCacheImpl):  # type: ignore[misc]
    _locator_classes = (_LocatorAsItIs,)


class CacheAsItIs(FunctionCache):  # type: ignore[misc]
    """Machine code that is read where it lies."""

    _impl_class = _CodeAsItIs

    def save_overload(self, sig: Any, data: Any) -> None:
        """Nothing is added."""


def compiled(function: F) -> F:
    """Compile on first call."""
    return _kept(function)


def compiled_within(function: F) -> F:
    """Compile into the functions that call it, none of which is Python: on its own it is not kept, nor called."""
    return numba.njit(error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)(function)  # type: ignore[no-any-return]


def compiled_apart(function: F) -> F:
    """Compile on first call; other threads run meanwhile."""
    return _kept(function, nogil=True)


def _kept(function: F, *signature: Any, nogil: bool = False) -> F:
    """Compile, with our folder for machine code; other code keeps its own."""
    if FOLDER is None:
        warnings.warn(NOT_KEPT, RuntimeWarning, stacklevel=1)
    numba.config.CACHE_DIR = "" if FOLDER is None else str(FOLDER)
    try:
        if FOLDER is not None and not IS_ADDED_TO:
            return _read(function, *signature, nogil=nogil)
        return numba.njit(*signature, cache=FOLDER is not None, error_model="numpy", nogil=nogil)(function)  # type: ignore[no-any-return]
    finally:
        numba.config.CACHE_DIR = NAMED


def _read(function: F, *signature: Any, nogil: bool) -> F:
    """Take up machine code; compile what is not there, for this process alone."""
    dispatcher: Any = numba.njit(error_model="numpy", nogil=nogil)(function)
    if dispatcher is not function:  # as it is under NUMBA_DISABLE_JIT
        dispatcher._cache = CacheAsItIs(function)  # noqa: SLF001 - numba has no other way to choose a cache
        for kinds in signature:
            dispatcher.compile(kinds)
            dispatcher.disable_compile()
    return dispatcher  # type: ignore[no-any-return]


def scalars(record: type[tuple[Any, ...]], types: list[Any]) -> Any:
    """The numba type of a named tuple of numbers; a pair is a tuple of that many, [] a vector, [,] a matrix."""
    return numba.types.NamedTuple([_scalar(kind) for kind in types], record)


def _scalar(kind: str | tuple[str, int]) -> Any:
    if isinstance(kind, tuple):
        return numba.types.UniTuple(getattr(numba.types, kind[0]), kind[1])
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


def read_rows(scalar: str) -> Any:
    """The numba type of a contiguous array of two dimensions that is only read, from wherever it begins."""
    return numba.types.Array(getattr(numba.types, scalar), 2, "C", readonly=True, aligned=False)


class Compiled:
    """A function compiled for one declared signature.

    The first call goes through numba, which looks at every argument and refuses another type; later calls go to the
    machine code at once, since to look at a hundred arrays again takes longer than most calls.
    """

    def __init__(self, dispatcher: Any) -> None:
        self.dispatcher = dispatcher
        self._call: Callable[..., Any] = self._first

    def __call__(self, *arguments: Any) -> Any:
        """Call the function, with arguments of the declared types."""
        return self._call(*arguments)

    def _first(self, *arguments: Any) -> Any:
        result = self.dispatcher(*arguments)
        (made,) = self.dispatcher.overloads.values()
        self._call = made.entry_point
        return result


def compiled_as(*signature: Any) -> Callable[[F], F]:
    """Compile for one declared signature, at import: no array a caller passes can need a second version.

    Such a function is called from Python, and not from what is compiled.
    """

    def decorate(function: F) -> F:
        """Compile one function for that signature; what it is compiled to is kept on disk."""
        kinds = [_scalar(kind) if isinstance(kind, str) else kind for kind in signature]
        made = _kept(function, tuple(kinds))
        return made if made is function else Compiled(made)  # type: ignore[return-value]

    return decorate
