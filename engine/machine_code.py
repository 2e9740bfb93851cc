"""Where machine code is kept for the next process: a folder that is named by all sources and the processor.

numba would take code up again as long as the file of a function is as it was, whatever became of the functions of
other files that are compiled into it: an upgrade would go on with the old ones. So all of them name the folder. It
lies beside them or, where that cannot be written, in the user's cache; where neither can, nothing is kept, and every
process compiles anew. Code that lies already in a folder that cannot be written, as in the image of a container, is
read, and nothing is added. A folder that others can write to is passed over (`engine.trust`): what lies there is run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import blake2b
from pathlib import Path
from time import time
from typing import Any

import numba
from numba.core.caching import CompileResultCacheImpl, FunctionCache, UserProvidedCacheLocator
from numba.core.registry import cpu_target
from numba.core.runtime import rtsys

from engine.trust import SOURCES, is_trusted

DAY_S = 86_400.0

NOT_KEPT = (
    "machine code cannot be kept here, so every start compiles for a minute: let NUMBA_CACHE_DIR name a folder "
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
        if not is_new and is_trusted(folder):
            return folder
    return None


def is_writable(folder: Path) -> bool:
    """Whether files can be written to a folder, which is made where it can be, and by nobody else."""
    try:
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        if not is_trusted(folder):
            return False
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

FOLDER = folder_in([Path(NAMED)] if NAMED else _places(SOURCES), name_of(SOURCES, machine()))
"""Where machine code is kept; None where nothing can be."""

IS_ADDED_TO = FOLDER is not None and is_writable(FOLDER)
"""Whether what is compiled is written there."""


class Kept(FunctionCache):  # type: ignore[misc]
    """Machine code on disk, which is taken up without what numba compiles Python and numpy by: a tenth of a start."""

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Load what a function was compiled to for a signature; None where it was not."""
        rtsys.initialize(target_context)
        return self._load_overload(sig, target_context)


class _LocatorAsItIs(UserProvidedCacheLocator):  # type: ignore[misc]
    def ensure_cache_path(self) -> None:
        """The one of numba passes over a folder that cannot be written."""


class _CodeAsItIs(CompileResultCacheImpl):  # type: ignore[misc]
    _locator_classes = (_LocatorAsItIs,)


class KeptAsItIs(Kept):
    """Machine code that is read where it lies."""

    _impl_class = _CodeAsItIs

    def save_overload(self, sig: Any, data: Any) -> None:
        """Nothing is added."""


def keep(dispatcher: Any, function: Any, folder: Path) -> None:
    """Let machine code of a function be taken up from a folder, and written there where that can be."""
    numba.config.CACHE_DIR = str(folder)
    try:
        kept = Kept(function) if IS_ADDED_TO else KeptAsItIs(function)
    finally:
        numba.config.CACHE_DIR = NAMED
    dispatcher._cache = kept  # noqa: SLF001 - numba has no other way to choose a cache
