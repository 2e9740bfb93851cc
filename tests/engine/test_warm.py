"""An engine that was warmed up has recorded what a stream will ask of it."""

from __future__ import annotations

from typing import Any

import pytest

from engine.stream.fold import Engine
from engine.stream.warm import warm_up
from engine.traced import Recorded
from tests.engine.driving import SPECS, drive, long_stream, theta
from tests.recordings import not_shared
from tests.varied import varied


@pytest.mark.parametrize("name", ["unbalanced", "regression with history"])
def test_nothing_is_recorded_in_the_midst_of_a_stream(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Recorded, "__init__", not_shared)
    engine = Engine(varied(SPECS[name], support=20))
    warm_up(engine)

    def record(*_: Any) -> None:
        raise AssertionError("a call is recorded in the midst of a stream")

    monkeypatch.setattr(Recorded, "_record", record)
    driven = drive(engine, tasks=2)
    driven.fold(long_stream(0, 400, 2, name), theta(name, 1))
    assert driven.adaptations
