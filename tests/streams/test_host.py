"""What a process asks of the machine it runs on."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

BYTES, TENSORS = 4_000_000, 8
HEAP = f"""
import ctypes, sys
import torch
from streams.system.machine import keep_freed_memory

class Mallinfo(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in ["arena", *"bcdefghij"]]

if sys.argv[1] == "kept":
    keep_freed_memory()
libc = ctypes.CDLL(None)
libc.mallinfo2.restype = Mallinfo
before = libc.mallinfo2().arena
parts = [torch.ones({BYTES}, dtype=torch.uint8) for _ in range({TENSORS})]
del parts
print(libc.mallinfo2().arena - before)
"""


def heap_grown(how: str) -> int:
    """Bytes that the allocator has more than before tensors were made and freed."""
    done = subprocess.run([sys.executable, "-c", HEAP, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators keep it or not as they like")
def test_what_training_frees_stays_with_the_allocator() -> None:
    assert heap_grown("kept") > BYTES * (TENSORS - 1)
    assert heap_grown("given back") < BYTES
