"""A recording is replayed for the kind of input that it was made of, and for no other."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from engine.traced import Recorded


def ranked(x: torch.Tensor) -> torch.Tensor:
    """Makes a tensor of its own beside what it is given, on the same device and of the same type."""
    return x + torch.arange(len(x), device=x.device, dtype=x.dtype)


@pytest.mark.parametrize(
    "other", [torch.zeros(3, dtype=torch.float64), torch.zeros(3, device="meta")], ids=["type", "device"]
)
def test_another_type_or_device_is_recorded_anew(other: torch.Tensor) -> None:
    recorded = Recorded(ranked)
    recorded(other)
    found = recorded(torch.zeros(3))
    assert (found.dtype, found.device.type) == (torch.float32, "cpu")
    assert found.tolist() == [0, 1, 2]


def test_what_is_recorded_follows_the_values_it_is_given() -> None:
    recorded = Recorded(ranked)
    assert recorded(torch.zeros(3)).tolist() == [0, 1, 2]
    assert recorded(torch.full((3,), 5.0)).tolist() == [5, 6, 7]


def test_what_is_kept_is_bounded_and_what_was_used_last_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.traced.MOST", 3)
    recorded = Recorded(ranked)
    record, made = recorded._record, list[int]()

    def counted(flat: Any, how: Any) -> Any:
        made.append(len(flat[0]))
        return record(flat, how)

    monkeypatch.setattr(recorded, "_record", counted)
    for length in (1, 2, 3, 1, 4, 1, 3, 4):
        assert recorded(torch.zeros(length)).tolist() == list(range(length))
    assert made == [1, 2, 3, 4]
    recorded(torch.zeros(2))
    assert made == [1, 2, 3, 4, 2], "2 was the one used longest ago when 4 came"
    assert len(recorded._recordings) == 3
