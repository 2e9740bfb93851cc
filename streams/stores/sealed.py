"""A version of theta as bytes: tensors as safetensors, all else as JSON with the hash of both, the seal."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save

from streams.stores.base import Checkpoint

PARAMS, TRAINER, SEAL = "params.", "trainer.", "blake2b"


def sealed(checkpoint: Checkpoint) -> tuple[bytes, bytes]:
    """Description and tensors of a version; equal versions give equal bytes."""
    tensors = {PARAMS + k: v.contiguous() for k, v in checkpoint.params.items()}
    tensors |= {TRAINER + k: v.contiguous() for k, v in checkpoint.trainer.items()}
    content = save(tensors)
    described = {
        "version": checkpoint.version,
        "fingerprint": checkpoint.fingerprint,
        "numbers": dict(checkpoint.numbers),
    }
    return json.dumps({**described, SEAL: _seal(content, described)}, indent=1).encode(), content


def seal_in(head: bytes) -> str:
    """The seal that a description holds.

    Raises:
        ValueError: it is damaged.
    """
    return _read(head)[1]


def unsealed(head: bytes, content: bytes) -> Checkpoint:
    """A version from its description and tensors.

    Raises:
        ValueError: they are damaged, or do not belong together.
    """
    described, seal = _read(head)
    if _seal(content, described) != seal:
        raise ValueError("its tensors or their description are damaged: their hash does not match")
    try:
        tensors = load(content)
        return Checkpoint(
            version=described["version"],
            fingerprint=described["fingerprint"],
            params={k.removeprefix(PARAMS): v for k, v in tensors.items() if k.startswith(PARAMS)},
            trainer={k.removeprefix(TRAINER): v for k, v in tensors.items() if k.startswith(TRAINER)},
            numbers=described["numbers"],
        )
    except (KeyError, SafetensorError) as error:
        raise ValueError(f"it is of another program: {error}") from error


def _read(head: bytes) -> tuple[dict[str, Any], str]:
    described = json.loads(head)
    if not isinstance(described, dict) or not isinstance(described.get(SEAL), str):
        raise ValueError("its description holds no seal")
    return described, described.pop(SEAL)


def _seal(content: bytes, described: Mapping[str, Any]) -> str:
    """Hash of the tensors and what is said about them."""
    return blake2b(content + json.dumps(described, sort_keys=True).encode(), digest_size=16).hexdigest()
