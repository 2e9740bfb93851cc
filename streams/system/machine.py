"""What a run or a benchmark ran on: what its bits and its speed depend on."""

from __future__ import annotations

import ctypes
import os
import platform
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

VERSIONS = ("reptide", "torch", "numpy", "numba", "river")

LARGEST_KEPT = 2**25
"""Bytes of the largest block that is kept: the most that glibc takes."""


def keep_freed_memory() -> None:
    """Have glibc keep what is freed, for training, which takes the same large tensors again in every round.

    Given back to the system, they are mapped and zeroed anew each time: half of the processor time of a round of MAML
    over a layer of 784 x 256 for 16 tasks. Elsewhere than on glibc it does nothing.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if platform.libc_ver()[0] == "glibc" else None
    if mallopt is not None:
        mallopt(-3, LARGEST_KEPT)  # M_MMAP_THRESHOLD
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


def cores() -> int:
    """How many this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine() -> dict[str, int | str]:
    """Processor, cores, system, instruction set, and the versions that compute."""
    return {
        "cpu": _processor(),
        "cores": cores(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "torch_threads": torch.get_num_threads(),
        "numpy": np.__version__,
    }


def described_machine() -> str:
    """What it ran on, in a line."""
    return ", ".join(f"{name} {value}" for name, value in machine().items())


def versions() -> dict[str, str]:
    """What it ran with."""
    return {name: version(name) for name in VERSIONS}


def _processor() -> str:
    """The processor's name; the platform module leaves it empty on Linux."""
    known = Path("/proc/cpuinfo")
    lines = known.read_text(encoding="utf-8").splitlines() if known.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor()
