"""A version of theta as bytes: tensors as safetensors, all else as JSON with the hash of both, the seal.

Of tables, which are most of it, the rows that were met are written (`tables`). Earlier versions of this program wrote
all of them, compressed; those are read as well.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.numpy import save as save_arrays
from safetensors.torch import load, save
from torch import Tensor

from streams.errors import CheckpointError
from streams.stores.tables import thinned, widened
from streams.stores.versions import Checkpoint

PARAMS, TRAINER, SEAL, BYTES, ROWS = "params.", "trainer.", "blake2b", "bytes", "rows"

LEVEL = 0
"""Of compression: numbers that were learned hardly shrink."""

MOST_BYTES = 2**31
"""Of the tensors of one version, before they are compressed."""


def sealed(checkpoint: Checkpoint) -> tuple[bytes, bytes]:
    """Description and tensors of a version; equal versions give equal bytes.

    Raises:
        CheckpointError: it is too large to be read back, or holds numbers of a type that safetensors does not know.
    """
    tensors = {PARAMS + name: value for name, value in checkpoint.params.items()}
    tensors |= {TRAINER + name: value for name, value in checkpoint.trainer.items()}
    written, rows = thinned(tensors)
    try:
        plain = _saved(written)
    except (KeyError, SafetensorError) as error:
        raise CheckpointError(
            f"version {checkpoint.version} of theta holds numbers of a type that cannot be written ({error}); "
            "let the network hold another type"
        ) from error
    size = len(plain) + sum(tensors[name].nbytes for name in rows)
    if size > MOST_BYTES:
        raise CheckpointError(
            f"version {checkpoint.version} of theta takes {size:,} bytes, more than {MOST_BYTES:,}; "
            "choose fewer buckets, smaller embeddings, or a smaller network"
        )
    content = zlib.compress(plain, LEVEL)
    described = {
        "version": checkpoint.version,
        "fingerprint": checkpoint.fingerprint,
        BYTES: len(plain),
        ROWS: rows,
        "numbers": dict(checkpoint.numbers),
    }
    return json.dumps({**described, SEAL: _seal(content, described)}, indent=1).encode(), content


def _saved(tensors: Mapping[str, Tensor]) -> bytes:
    """Tensors as safetensors: as arrays, which it writes in a quarter of the time."""
    try:
        return save_arrays({name: value.contiguous().numpy(force=True) for name, value in tensors.items()})
    except TypeError:  # numpy knows no bfloat16
        return save({n: value.clone(memory_format=torch.contiguous_format) for n, value in tensors.items()})


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
        written = load(_expanded(content, described[BYTES]))
        tensors = widened(written, described.get(ROWS, {}), MOST_BYTES)
        return Checkpoint(
            version=described["version"],
            fingerprint=described["fingerprint"],
            params={k.removeprefix(PARAMS): v for k, v in tensors.items() if k.startswith(PARAMS)},
            trainer={k.removeprefix(TRAINER): v for k, v in tensors.items() if k.startswith(TRAINER)},
            numbers=described["numbers"],
        )
    except (KeyError, TypeError, AttributeError, zlib.error, SafetensorError) as error:
        raise ValueError(f"it is of another program: {error}") from error


def _read(head: bytes) -> tuple[dict[str, Any], str]:
    described = json.loads(head)
    if not isinstance(described, dict) or not isinstance(described.get(SEAL), str):
        raise ValueError("its description holds no seal")
    return described, described.pop(SEAL)


def _expanded(content: bytes, size: int) -> bytes:
    """Decompress what is said to have a size; never to more than that."""
    if size > MOST_BYTES:
        raise ValueError(f"its tensors are said to take {size:,} bytes, more than {MOST_BYTES:,}")
    reading = zlib.decompressobj()
    plain = reading.decompress(content, max(size, 1))
    if len(plain) != size or not reading.eof:
        raise ValueError(f"its tensors do not take the {size:,} bytes that they are said to")
    return plain


def _seal(content: bytes, described: Mapping[str, Any]) -> str:
    """Hash of the tensors and what is said about them."""
    return blake2b(content + json.dumps(described, sort_keys=True).encode(), digest_size=16).hexdigest()
