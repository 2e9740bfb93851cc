"""Versions of theta in a directory: one file of safetensors and one of JSON each, written once.

The JSON file holds the hash of both and is linked into place last, which fails if it exists: that
is the compare-and-set, and a crash before it leaves nothing that a reader would look at. Their names are on disk too
before a version is said to be published.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Set
from pathlib import Path

from streams.errors import CheckpointError
from streams.stores.sealed import seal_in, sealed, unsealed
from streams.stores.versions import Checkpoint
from streams.system.files import drafted, write_whole

DIGITS = 8
"""Of a version, in the name of a file."""


class DirectoryMeta:
    """A `MetaStore` in a directory."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self._own: Checkpoint | None = None
        self._known = max(kept(directory), default=0)

    def current(self) -> int:
        """The newest version; 0 while there is none."""
        while self._head(self._known + 1).exists():  # asked once a batch: never list a directory that grows
            self._known += 1
        return self._known

    def load(self, version: int) -> Checkpoint:
        """One version, its hash checked; what was published here last is not read again."""
        if self._own is not None and self._own.version == version:
            return self._own
        try:
            head = self._head(version).read_bytes()
            return unsealed(head, self._written(version, seal_in(head)).read_bytes())
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"version {version} of theta in {self.directory} cannot be used ({error}); "
                f"restore its two files, {version:08d}*, from a backup, or delete them; then rows of a stream are "
                "made anew under what is left by `reptide rebuild --inexact`, to be run before it goes on"
            ) from error

    def publish(self, checkpoint: Checkpoint) -> bool:
        """Write a version if its predecessor is the newest."""
        if checkpoint.version != self.current() + 1:
            return False
        head, content = sealed(checkpoint)
        write_whole(self._body(checkpoint.version, seal_in(head)), content)
        published = _link(self._head(checkpoint.version), head)
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
        files = [Path(file.path) for version, file in self._numbered() if version in versions]
        for path in sorted(files, key=lambda path: path.suffix != ".json"):
            path.unlink()

    def _numbered(self) -> Iterator[tuple[int, os.DirEntry[str]]]:
        with os.scandir(self.directory) as files:
            for file in files:
                if file.name[:DIGITS].isdigit():
                    yield int(file.name[:DIGITS]), file

    def files(self, version: int) -> list[Path]:
        """The files of one version, its description last.

        Raises:
            FileNotFoundError: it is not kept.

        """
        head = self._head(version)
        return [self._written(version, seal_in(head.read_bytes())), head]

    def _head(self, version: int) -> Path:
        return self.directory / f"{version:08d}.json"

    def _body(self, version: int, seal: str) -> Path:
        """Named by its content, so that a trainer that loses the race overwrites nothing."""
        return self.directory / f"{version:08d}-{seal:.16}.safetensors"

    def _written(self, version: int, seal: str) -> Path:
        """Where it lies: earlier versions of this program compressed it, and called it so."""
        compressed = self.directory / f"{version:08d}-{seal:.16}.safetensors.z"
        return compressed if compressed.exists() else self._body(version, seal)


def kept(directory: Path) -> list[int]:
    """The versions that lie in a directory, in order."""
    return sorted(int(path.stem) for path in directory.glob("[0-9]*.json"))


def _link(path: Path, content: bytes) -> bool:
    """Write a file whole unless it exists."""
    with drafted(path, content) as draft:
        try:
            os.link(draft, path)
        except FileExistsError:
            return False
    return True
