"""Data parallel meta-training: processes that `torchrun` started, each with episodes of its own.

Pseudo-gradients are averaged over all of them before each step, so theta stays the same in every process. Over
gloo on a CPU, over nccl on a GPU. The only file that knows `torch.distributed`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import distributed

from engine.episodes.meta_train import Place
from engine.types import Params


@contextmanager
def place(device: str) -> Iterator[Place]:
    """Which process this is, and how they average; one alone where `torchrun` did not start it.

    On `cuda`, each process of a machine takes a GPU of its own.
    """
    if not distributed.is_torchelastic_launched():
        yield Place(device=device)
        return
    on_gpu = device.startswith("cuda")
    own = f"cuda:{os.environ['LOCAL_RANK']}" if device == "cuda" else device
    if on_gpu:
        torch.cuda.set_device(own)
    distributed.init_process_group("nccl" if on_gpu else "gloo")
    try:
        yield Place(distributed.get_rank(), distributed.get_world_size(), averaged, own)
    finally:
        distributed.destroy_process_group()


def averaged(gradient: Params) -> Params:
    """The mean over all processes, in one message."""
    flat = torch.cat([value.flatten() for value in gradient.values()])
    distributed.all_reduce(flat)
    flat /= distributed.get_world_size()
    parts = torch.split(flat, [value.numel() for value in gradient.values()])
    return {name: part.view_as(gradient[name]) for name, part in zip(gradient, parts, strict=True)}
