"""What a run or a benchmark ran on: what its bits and its speed depend on."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import numpy as np
import torch


def machine() -> dict[str, int | str]:
    """Processor, cores, system, instruction set, and the versions that compute."""
    return {
        "cpu": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
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


def _processor() -> str:
    """The processor's name; the platform module leaves it empty on Linux."""
    known = Path("/proc/cpuinfo")
    lines = known.read_text(encoding="utf-8").splitlines() if known.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor()
