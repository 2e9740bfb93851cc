"""Files written whole, and what a file system refuses in one sentence.

A crash, a power cut or a full disk leaves a file as it was or as it is to be, under the name that readers look at.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from streams.errors import StoreError

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}


def write_whole(path: Path, content: bytes) -> None:
    """Put a file in the place of what was there before.

    Raises:
        StoreError: it cannot be written; what was there before still is.

    """
    with drafted(path, content) as draft:
        draft.replace(path)


@contextmanager
def drafted(path: Path, content: bytes) -> Iterator[Path]:
    """A file beside `path` with this content, on disk, to be given its name; names are kept too, a draft is not.

    Raises:
        StoreError: it cannot be written or named.

    """
    draft = path.with_name(f"{path.name}.{os.getpid()}.draft")
    with writing(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with draft.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            yield draft
            keep_names(path.parent)
        finally:
            with suppress(OSError):
                draft.unlink(missing_ok=True)


def keep_names(directory: Path) -> None:
    """Have the names in a directory on disk: without that a power cut may lose a file that was written whole."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say in one sentence why a file could not be written.

    Raises:
        StoreError: it could not.

    """
    try:
        yield
    except OSError as error:
        raise StoreError(refusal(error, path)) from error


def refusal(error: OSError, path: Path | None = None) -> str:
    """What a file system refuses, in a sentence with the way out; `path` where the error names no file."""
    named = error.filename if path is None else path
    place = "" if named is None else f"{named}: "
    return f"{place}{(error.strerror or str(error)).lower()}{_way_out(error.errno)}"


def refusal_of_a_library(error: Exception, path: Path) -> str:
    """The same of a library that tells what a file system refused in words of its own."""
    told = str(error).removeprefix(f"{path}: ")
    codes = [code for code in (*FULL, *FORBIDDEN, errno.EIO) if os.strerror(code) in told]
    return refusal(OSError(codes[0] if codes else 0, told), path)


def _way_out(code: int | None) -> str:
    if code in FULL:
        return "; make room there and start it again: nothing is lost, it goes on where it was"
    if code == errno.EIO:  # what LMDB makes of a write that was cut short
        return "; the disk is full, or fails: make room there and start it again"
    if code in FORBIDDEN:
        return "; allow this user to write there, or choose another folder"
    return ""
