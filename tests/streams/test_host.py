"""What a process asks of the machine it runs on."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
from streams.host import keep_freed_memory
import torch
if sys.argv[1] == "kept":
    keep_freed_memory()
def round_of_training():
    parts = [torch.ones(4, 1_000_000) for _ in range(8)]
    return sum(float(part[0, 0]) for part in parts)
for _ in range(3):
    round_of_training()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    round_of_training()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators keep it or not as they like")
def test_what_is_freed_in_one_round_is_not_mapped_anew_in_the_next():
    pages = 8 * 4 * 4_000_000 // 4096
    assert faults("given back") > 4 * pages
    assert faults("kept") < pages // 10
