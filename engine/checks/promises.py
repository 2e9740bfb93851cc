"""Runs checks, and turns whatever a plug-in does wrong into one error."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from engine.types import EngineError


class CheckFailed(EngineError):
    """A promise that a plug-in does not keep."""


def run(checks: Sequence[Callable[..., None]], *arguments: Any) -> list[str]:
    """Run each check; what a plug-in raises is a promise broken."""
    with one_thread():
        for check in checks:
            try:
                check(*arguments)
            except EngineError:
                raise
            except Exception as error:
                promise = check.__name__.replace("_", " ")
                raise CheckFailed(f"checking that {promise}: {type(error).__name__}: {error}") from error
    return [check.__name__ for check in checks]


@contextmanager
def one_thread() -> Iterator[None]:
    """The promise of equal bits is made for one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def require(kept: bool, wrong: str, remedy: str) -> None:
    """Raise what is wrong, and what would mend it, unless a promise is kept."""
    if not kept:
        raise CheckFailed(f"{wrong}; {remedy}")
