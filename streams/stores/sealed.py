"""A version of theta as bytes: tensors as safetensors, all else as JSON with the hash of both, the seal.

Of tables, which are most of it, the rows that were met are written (`tables`). Earlier versions of this program wrote
all of them, or compressed what they wrote; those are read as well.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

from safetensors import SafetensorError, TensorSpec, serialize
from safetensors.torch import load
from torch import Tensor

from streams.errors import CheckpointError
from streams.stores.tables import thinned, widened
from streams.stores.versions import Checkpoint

PARAMS, TRAINER, SEAL, ROWS = "params.", "trainer.", "blake2b", "rows"

BYTES = "bytes"
"""Of tensors that an earlier version of this program compressed, before it did."""

MOST_BYTES = 2**31
"""Of the tensors of one version, uncompressed."""


def sealed(checkpoint: Checkpoint) -> tuple[bytes, bytes]:
    """Description and tensors of a version; equal versions give equal bytes.

    Raises:
        CheckpointError: it is too large to be read back, or holds numbers of a type that safetensors does not know.
    """
    tensors = {PARAMS + name: value for name, value in checkpoint.params.items()}
    tensors |= {TRAINER + name: value for name, value in checkpoint.trainer.items()}
    written, rows = thinned(tensors)
    try:
        content = _saved(written)
    except SafetensorError as error:
        raise CheckpointError(
            f"version {checkpoint.version} of theta holds numbers of a type that cannot be written ({error}); "
            "let the network hold another type"
        ) from error
    size = len(content) + sum(tensors[name].nbytes for name in rows)
    if size > MOST_BYTES:
        raise CheckpointError(
            f"version {checkpoint.version} of theta takes {size:,} bytes, more than {MOST_BYTES:,}; "
            "choose fewer buckets, smaller embeddings, or a smaller network"
        )
    described = {
        "version": checkpoint.version,
        "fingerprint": checkpoint.fingerprint,
        ROWS: rows,
        "numbers": dict(checkpoint.numbers),
    }
    return json.dumps({**described, SEAL: _seal(content, described)}).encode(), content


def _saved(tensors: Mapping[str, Tensor]) -> bytes:
    """Tensors as safetensors, which is told where their numbers lie: its own `save` looks at each of them anew."""
    kept = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    return serialize(
        {
            name: TensorSpec(
                dtype=str(value.dtype).removeprefix("torch."),
                shape=value.shape,
                data_ptr=value.data_ptr(),
                data_len=value.nbytes,
            )
            for name, value in kept.items()
        }
    )


def joined(head: bytes, tensors: bytes) -> bytes:
    """Description and tensors as one, behind the seal and the length of the description."""
    return b"%b %d\n%b%b" % (seal_in(head).encode(), len(head), head, tensors)


def apart(content: bytes) -> tuple[bytes, bytes]:
    """Description and tensors that were joined.

    Raises:
        ValueError: they are damaged.
    """
    first, _, rest = content.partition(b"\n")
    seal, _, length = first.partition(b" ")
    head, tensors = rest[: int(length)], rest[int(length) :]
    if seal != seal_in(head).encode():
        raise ValueError("its seal is damaged")
    return head, tensors


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
        written = load(_expanded(content, described[BYTES]) if BYTES in described else content)
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
    seal = blake2b(content, digest_size=16)
    seal.update(json.dumps(described, sort_keys=True).encode())
    return seal.hexdigest()
