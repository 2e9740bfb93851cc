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


def spread(x: torch.Tensor) -> list[torch.Tensor]:
    """Operations of several results, one that is not used, a constant, and one that is written to."""
    low, high = torch.aminmax(x)
    first, _ = x.split(2)
    total = torch.tensor(1.0)
    return [low, high, first, total.add_(x.sum())]


def test_results_of_several_parts_and_constants_that_are_written_to_are_those_of_a_call() -> None:
    recorded = Recorded(spread)
    recorded(torch.zeros(4))
    for x in (torch.tensor([3.0, 1.0, 2.0, 5.0]), torch.ones(4)):
        assert [value.tolist() for value in recorded(x)] == [value.tolist() for value in spread(x)]


def test_a_call_that_branches_on_a_value_is_refused_with_the_way_out() -> None:
    with pytest.raises(RuntimeError, match=r"_local_scalar_dense.*use torch\.where"):
        Recorded(lambda x: x if x.sum() > 0 else -x)(torch.ones(2))


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
