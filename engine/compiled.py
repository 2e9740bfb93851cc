"""The one place that knows numba: loops over events that no array expression can express, as machine code.

`NUMBA_DISABLE_JIT=1` runs the same functions as plain Python, which is how a debugger steps through them.
No fast-math anywhere: the same input gives the same bits.

Machine code is kept on disk for the next process. numba would take it up again as long as the file of a function is
as it was, whatever became of the functions of other files that are compiled into it: an upgrade would go on with
the old ones. So it is kept in a folder that is named by all sources, beside them or, where that cannot be written, in
the user's cache; where neither can, nothing is kept, and every process compiles anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b
from pathlib import Path
from time import time
from typing import Any, TypeVar

import numba

F = TypeVar("F", bound=Callable[..., Any])


DAY_S = 86_400.0

NOT_KEPT = (
    "machine code cannot be kept here, so every start compiles for half a minute: let NUMBA_CACHE_DIR name a folder "
    "that can be written"
)


def name_of(sources: Path) -> str:
    """What the folder for the machine code of the modules in a folder is called."""
    content = b"".join(path.read_bytes() for path in sorted(sources.glob("*.py")))
    return f"compiled-{blake2b(content, digest_size=8).hexdigest()}"


def folder_in(places: Iterable[Path], name: str) -> Path | None:
    """The folder of that name in the first place that can be written; folders of other sources there are cleared."""
    for place in places:
        folder = place / name
        try:
            is_new = not folder.exists()
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "writable").touch()
            (folder / "writable").unlink(missing_ok=True)
        except OSError:
            continue
        if is_new:
            clear_others(folder)
        return folder
    return None


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

FOLDER = folder_in([Path(NAMED)] if NAMED else _places(Path(__file__).parent), name_of(Path(__file__).parent))
"""Where machine code is kept; None where nothing can be."""


def compiled(function: F) -> F:
    """Compile on first call."""
    return _kept(function)


def _kept(function: F, *signature: Any) -> F:
    """Compile, with our folder for machine code; other code keeps its own."""
    numba.config.CACHE_DIR = "" if FOLDER is None else str(FOLDER)
    try:
        return numba.njit(*signature, cache=FOLDER is not None, error_model="numpy")(function)  # type: ignore[no-any-return]
    finally:
        numba.config.CACHE_DIR = NAMED


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
