"""Versions of theta in a directory: one file each, written once.

A file is linked into place once it is on disk, which fails if there is one of its name: that is the compare-and-set,
and a crash before it leaves nothing that a reader would look at. Its name is on disk too before a version is said to
be published. Earlier versions of this program wrote two files each, tensors and their description; both are read.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Set
from pathlib import Path

from streams.errors import CheckpointError
from streams.stores.sealed import apart, joined, seal_in, sealed, unsealed
from streams.stores.versions import Checkpoint
from streams.system.files import drafted

DIGITS = 8
"""Of a version, in the name of a file."""

SUFFIX, DESCRIPTION, TENSORS = ".theta", ".json", ".safetensors.z"
"""Of a version, and of the two files that it was before."""


class DirectoryMeta:
    """A `MetaStore` in a directory."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self._own: Checkpoint | None = None
        self._known = max(kept(directory), default=0)

    def current(self) -> int:
        """The newest version; 0 while there is none."""
        while self._file(self._known + 1).exists():  # asked once a batch: never list a directory that grows
            self._known += 1
        return self._known

    def load(self, version: int) -> Checkpoint:
        """One version, its hash checked; what was published here last is not read again."""
        if self._own is not None and self._own.version == version:
            return self._own
        try:
            return unsealed(*self._read(version))
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"version {version} of theta in {self.directory} cannot be used ({error}); "
                f"restore its files, {version:08d}*, from a backup, or delete them; then rows of a stream are "
                "made anew under what is left by `reptide rebuild --inexact`, to be run before it goes on"
            ) from error

    def publish(self, checkpoint: Checkpoint) -> bool:
        """Write a version if its predecessor is the newest."""
        if checkpoint.version != self.current() + 1:
            return False
        published = _link(self._file(checkpoint.version), joined(*sealed(checkpoint)))
        self._own = checkpoint if published else None
        return published

    def missing(self, versions: Iterable[int]) -> set[int]:
        """Those of versions that are not kept."""
        return set(versions) - {0, *kept(self.directory)}

    def sizes(self) -> Mapping[int, int]:
        """Bytes of each version that is kept."""
        sizes: dict[int, int] = {}
        for version, file in self._numbered():
            sizes[version] = sizes.get(version, 0) + file.stat().st_size
        return sizes

    def drop(self, versions: Set[int]) -> None:
        """Delete versions: descriptions first, without which nobody looks for the rest."""
        self._own = None
        files = [Path(file.path) for version, file in self._numbered() if version in versions]
        for path in sorted(files, key=lambda path: path.suffix != DESCRIPTION):
            path.unlink()

    def _numbered(self) -> Iterator[tuple[int, os.DirEntry[str]]]:
        with os.scandir(self.directory) as files:
            for file in files:
                if file.name[:DIGITS].isdigit():
                    yield int(file.name[:DIGITS]), file

    def files(self, version: int) -> list[Path]:
        """The files of one version.

        Raises:
            FileNotFoundError: it is not kept.
            CheckpointError: it is kept twice.

        """
        file = self._file(version)
        head = file.with_suffix(DESCRIPTION)
        if not head.exists():
            return [file]
        if file.exists():
            raise CheckpointError(
                f"version {version} of theta in {self.directory} was written twice, as {file.name} by this release "
                f"and as {head.name} by one before, which does not see the other; delete the one that is not to be "
                "gone on with"
            )
        return [self.directory / f"{head.stem}-{seal_in(head.read_bytes()):.16}{TENSORS}", head]

    def _read(self, version: int) -> tuple[bytes, bytes]:
        """Description and tensors of a version."""
        *tensors, file = [path.read_bytes() for path in self.files(version)]
        return (file, tensors[0]) if tensors else apart(file)

    def _file(self, version: int) -> Path:
        return self.directory / f"{version:0{DIGITS}d}{SUFFIX}"


def kept(directory: Path) -> list[int]:
    """The versions that lie in a directory, in order."""
    files = (path for suffix in (SUFFIX, DESCRIPTION) for path in directory.glob(f"[0-9]*{suffix}"))
    return sorted({int(path.stem) for path in files})


def _link(path: Path, content: bytes) -> bool:
    """Write a file whole unless it exists."""
    with drafted(path, content) as draft:
        try:
            os.link(draft, path)
        except FileExistsError:
            return False
    return True
