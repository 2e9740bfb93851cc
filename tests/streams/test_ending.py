"""How the process of a command ends: at once, with its status, when all is done."""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable
from typing import Any

import pytest

from streams.cli import app
from streams.cli.__main__ import command


def ended_with(monkeypatch: pytest.MonkeyPatch, raised: BaseException) -> list[int]:
    """The status that a process ends with whose command raises something."""
    at_the_end, statuses = list[Callable[[], None]](), list[int]()

    def main() -> None:
        atexit.register(lambda: None)  # as a library does
        raise raised

    monkeypatch.setattr(atexit, "register", at_the_end.append)
    monkeypatch.setattr(os, "_exit", statuses.append)
    monkeypatch.setattr(app, "main", main)
    with pytest.raises(type(raised)):
        command()
    first, *_others = at_the_end
    assert statuses == []
    first()  # Python calls what was registered first after all others
    return statuses


@pytest.mark.parametrize(("code", "status"), [(0, 0), (None, 0), (1, 1), (130, 130), ("a sentence", 1)])
def test_the_status_is_the_commands(monkeypatch: pytest.MonkeyPatch, code: Any, status: int) -> None:
    assert ended_with(monkeypatch, SystemExit(code)) == [status]


def test_an_error_that_nobody_expected_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ended_with(monkeypatch, RuntimeError("a defect")) == [1]


def test_a_process_that_is_interrupted_while_it_starts_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ended_with(monkeypatch, KeyboardInterrupt()) == [130]
