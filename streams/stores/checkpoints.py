"""Versions of theta in a directory: one safetensors file and one JSON file each, written once.

The JSON file holds the hash of both and is linked into place last, which fails if it exists: that
is the compare-and-set, and a crash before it leaves nothing that a reader would look at.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save

from streams.errors import CheckpointError
from streams.stores.base import Checkpoint

PARAMS, TRAINER = "params.", "trainer."


class DirectoryMeta:
    """A `MetaStore` in a directory."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self._known = max((int(path.stem) for path in directory.glob("[0-9]*.json")), default=0)

    def current(self) -> int:
        """The newest version; 0 while there is none."""
        while self._head(self._known + 1).exists():  # asked once a batch: never list a directory that grows
            self._known += 1
        return self._known

    def load(self, version: int) -> Checkpoint:
        """One version, its hash checked."""
        try:
            described = json.loads(self._head(version).read_bytes())
            seal = described.pop("blake2b")
            tensors = load(_intact(self._body(version, seal), described, seal))
            return Checkpoint(
                version=described["version"],
                fingerprint=described["fingerprint"],
                params={k.removeprefix(PARAMS): v for k, v in tensors.items() if k.startswith(PARAMS)},
                trainer={k.removeprefix(TRAINER): v for k, v in tensors.items() if k.startswith(TRAINER)},
                numbers=described["numbers"],
            )
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise CheckpointError(
                f"version {version} of theta in {self.directory} cannot be used ({error}); "
                "restore its two files from a backup, or delete this version and every later one"
            ) from error

    def publish(self, checkpoint: Checkpoint) -> bool:
        """Write a version if its predecessor is the newest."""
        if checkpoint.version != self.current() + 1:
            return False
        tensors = {PARAMS + k: v.contiguous() for k, v in checkpoint.params.items()}
        tensors |= {TRAINER + k: v.contiguous() for k, v in checkpoint.trainer.items()}
        content = save(tensors)
        described = {
            "version": checkpoint.version,
            "fingerprint": checkpoint.fingerprint,
            "numbers": dict(checkpoint.numbers),
        }
        seal = _seal(content, described)
        _write(self._body(checkpoint.version, seal), content)
        head = json.dumps({**described, "blake2b": seal}, indent=1).encode()
        return _link(self._head(checkpoint.version), head)

    def _head(self, version: int) -> Path:
        return self.directory / f"{version:08d}.json"

    def _body(self, version: int, seal: object) -> Path:
        """Named by its content, so that a trainer that loses the race overwrites nothing."""
        return self.directory / f"{version:08d}-{seal!s:.16}.safetensors"


def _intact(path: Path, described: Mapping[str, Any], seal: Any) -> bytes:
    content = path.read_bytes()
    if _seal(content, described) != seal:
        raise ValueError(f"{path.name} or its description is damaged: their hash does not match")
    return content


def _seal(content: bytes, described: Mapping[str, Any]) -> str:
    """Hash of the tensors and what is said about them."""
    return blake2b(content + json.dumps(described, sort_keys=True).encode(), digest_size=16).hexdigest()


def _write(path: Path, content: bytes) -> Path:
    """Write a file whole, on disk before it has its name."""
    draft = path.with_suffix(f".{os.getpid()}.draft")
    with draft.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return draft.rename(path)


def _link(path: Path, content: bytes) -> bool:
    """Write a file whole unless it exists."""
    draft = _write(path.with_suffix(f".{os.getpid()}.new"), content)
    try:
        os.link(draft, path)
    except FileExistsError:
        return False
    finally:
        draft.unlink()
    return True
