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
from safetensors.torch import load
from torch import Tensor

from streams.errors import CheckpointError
from streams.stores.tables import thinned, widened
from streams.stores.versions import Checkpoint

PARAMS, TRAINER, SEAL, BYTES, ROWS = "params.", "trainer.", "blake2b", "bytes", "rows"

LEVEL = 0
"""Of compression: numbers that were learned hardly shrink."""

KINDS = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
"""What safetensors calls the types of numbers."""

MOST_BYTES = 2**31
"""Of the tensors of one version, before they are compressed."""


def sealed(checkpoint: Checkpoint) -> tuple[bytes, bytes]:
    """Description and tensors of a version; equal versions give equal bytes.

    Raises:
        CheckpointError: it is too large to be read back, or holds what is no real number.
    """
    tensors = {PARAMS + name: value for name, value in checkpoint.params.items()}
    tensors |= {TRAINER + name: value for name, value in checkpoint.trainer.items()}
    for name, value in tensors.items():
        if value.dtype not in KINDS:
            raise CheckpointError(
                f"{name} is of {value.dtype}, which no version can hold; let the network hold another type"
            )
    written, rows = thinned(tensors)
    plain = _serialized(written)
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


def _serialized(tensors: Mapping[str, Tensor]) -> bytes:
    """Tensors as safetensors: a description, its length before it, and all numbers behind. The library takes 2 ms."""
    parts, described, end = list[bytes](), dict[str, Any](), 0
    for name, value in tensors.items():
        parts.append(value.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
        start, end = end, end + value.nbytes
        described[name] = {"dtype": KINDS[value.dtype], "shape": [*value.shape], "data_offsets": [start, end]}
    head = json.dumps(described, separators=(",", ":")).encode()
    return b"".join([len(head).to_bytes(8, "little"), head, *parts])


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
