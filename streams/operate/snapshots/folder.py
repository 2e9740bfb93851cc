"""A folder of files under one seal: written to a draft and renamed, and refused where a byte of it has changed.

The description `snapshot.json` holds size and hash of every file, and its own. Files are written and read in
pieces, so a folder may be larger than memory. Nothing in it is ever executed.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple

from streams.errors import InputError
from streams.system.files import keep_names
from streams.system.locks import held

DESCRIPTION, SEAL, FILES, FORMAT = "snapshot.json", "blake2b", "files", "format"
FORMAT_NOW = 1
PIECE = 1 << 20
"""Bytes that are read at a time."""
MOST_DESCRIBED = 64 << 20
"""Bytes of the largest description that is read."""
DIGEST_BYTES = 32
OTHER = "take another one"


class Sealed(NamedTuple):
    """What the description says of one file."""

    size: int
    digest: str


class _Passing:
    """Size and hash of what passes, piece by piece."""

    def __init__(self) -> None:
        self._size, self._digest = 0, blake2b(digest_size=DIGEST_BYTES)

    def add(self, piece: bytes) -> bytes:
        """Take a piece in, and hand it on."""
        self._size += len(piece)
        self._digest.update(piece)
        return piece

    @property
    def sealed(self) -> Sealed:
        """Of all that has passed."""
        return Sealed(self._size, self._digest.hexdigest())


class Draft:
    """A folder that is being written."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._files: dict[str, Sealed] = {}

    @contextmanager
    def file(self, name: str) -> Iterator[Callable[[bytes], object]]:
        """Write a file; what is yielded takes its content, piece by piece."""
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        passing = _Passing()
        with path.open("xb") as file:
            yield lambda piece: file.write(passing.add(piece))
            file.flush()
            os.fsync(file.fileno())
        self._files[name] = passing.sealed

    def add(self, name: str, content: bytes) -> None:
        """Write a file whole."""
        with self.file(name) as write:
            write(content)

    def copy(self, name: str, source: Path) -> None:
        """Take in a file as long as it is now, though it may grow meanwhile."""
        with source.open("rb") as opened, self.file(name) as write:
            left = os.fstat(opened.fileno()).st_size
            while piece := opened.read(min(PIECE, left)):
                write(piece)
                left -= len(piece)

    def take_in(self, name: str) -> None:
        """Take in a file that somebody else has written here."""
        passing = _Passing()
        with (self.directory / name).open("rb") as file:
            while passing.add(file.read(PIECE)):
                pass
            os.fsync(file.fileno())
        self._files[name] = passing.sealed

    def seal(self, described: Mapping[str, Any]) -> None:
        """Write the description."""
        files = {name: list(sealed) for name, sealed in sorted(self._files.items())}
        whole = {**described, FORMAT: FORMAT_NOW, FILES: files}
        content = json.dumps({**whole, SEAL: _seal(whole)}, indent=1).encode()
        if len(content) > MOST_DESCRIBED:
            raise InputError(f"{self.directory}: {len(files):,} files are more than a snapshot can describe")
        self.add(DESCRIPTION, content)


@dataclass(frozen=True)
class Folder:
    """A folder whose description is sound; its files may not be."""

    directory: Path
    described: Mapping[str, Any]
    files: Mapping[str, Sealed]

    def check(self) -> None:
        """See that every file is what it was.

        Raises:
            InputError: one is missing, cut short or changed.
        """
        for name in self.files:
            for _ in self.pieces(name):
                pass

    def pieces(self, name: str) -> Iterator[bytes]:
        """The content of a file, piece by piece; that it was sound is known at its end.

        Raises:
            InputError: it is missing, cut short or changed.
        """
        sealed, passing = self.files.get(name), _Passing()
        if sealed is None:
            raise InputError(
                f"the snapshot {self.directory} holds no {name}: it is of another program; {OTHER}"
            )
        try:
            with (self.directory / name).open("rb") as file:
                while piece := passing.add(file.read(PIECE)):
                    yield piece
        except OSError as error:
            raise _damaged(self.directory, f"{name} cannot be read ({error.strerror})") from None
        if sealed != passing.sealed:
            raise _damaged(self.directory, f"{name} is not what was written")

    def read(self, name: str) -> bytes:
        """A small file whole."""
        return b"".join(self.pieces(name))

    def copy(self, name: str, target: Path) -> None:
        """Write a file elsewhere, and have it on disk."""
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as file:
            _write(file, self.pieces(name))


@contextmanager
def drafted(directory: Path, refused: str) -> Iterator[Path]:
    """A new directory beside one that is not there yet, which takes its name when all of it is on disk.

    It is held meanwhile; what a killed process left there is removed.

    Args:
        directory: may be there if it is empty.
        refused: what to say where it holds anything.

    Raises:
        InputError: `directory` holds something, or another process is writing it.

    """
    draft = directory.with_name(f".{directory.name}.draft")
    _check_free(directory, refused)
    with held(draft):
        try:
            _check_free(directory, refused)  # again: who held the draft may have given it this name
            _emptied(draft)
            yield draft
            for folder, _, _ in os.walk(draft):
                keep_names(Path(folder))
            draft.rename(directory)
            keep_names(directory.parent)
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def opened(directory: Path) -> Folder:
    """Read the description of a folder.

    Raises:
        InputError: it is missing, damaged, or of another format.
    """
    path = directory / DESCRIPTION
    try:
        with path.open("rb") as file:
            content = file.read(MOST_DESCRIBED + 1)
    except OSError as error:
        raise InputError(f"{directory} is no snapshot: {path} cannot be read ({error.strerror})") from None
    try:
        described = json.loads(content)
        seal = described.pop(SEAL)
        sound = seal == _seal(described)
        files = {str(name): Sealed(*sealed) for name, sealed in described.pop(FILES).items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise _damaged(directory, f"{DESCRIPTION} cannot be read") from None
    if not sound or any(not _inside(name) for name in files):
        raise _damaged(directory, f"{DESCRIPTION} is not what was written")
    if described.get(FORMAT) != FORMAT_NOW:
        raise InputError(
            f"the snapshot {directory} has format {described.get(FORMAT)}, this program reads {FORMAT_NOW}; restore "
            "it with the version of reptide that took it"
        )
    return Folder(directory, described, files)


def _check_free(directory: Path, refused: str) -> None:
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise InputError(refused)


def _emptied(draft: Path) -> None:
    """Remove what is in a directory, which stays the one that is held."""
    draft.chmod(0o700)
    for path in draft.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _write(file: BinaryIO, pieces: Iterator[bytes]) -> None:
    for piece in pieces:
        file.write(piece)
    file.flush()
    os.fsync(file.fileno())


def _inside(name: str) -> bool:
    """Whether a name stays within its folder."""
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and "\0" not in name and name == str(path) != "."


def _seal(described: Mapping[str, Any]) -> str:
    return blake2b(json.dumps(described, sort_keys=True).encode(), digest_size=DIGEST_BYTES).hexdigest()


def _damaged(directory: Path, why: str) -> InputError:
    return InputError(f"the snapshot {directory} is damaged: {why}; {OTHER}, nothing was changed")
