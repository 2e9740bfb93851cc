"""A recording is replayed for the kind of input that it was made of, and for no other."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
import torch

from engine.errors import EngineError
from engine.replayed import Replayed
from engine.traced import Recorded, Repeated, largest


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


def wave(x: torch.Tensor, turns: int = 40) -> torch.Tensor:
    for _ in range(turns):
        x = (x.mT.contiguous() * 0.5).sin() + 1
    return x


def the_run(recorded: Recorded) -> Any:
    ((run, _),) = recorded._recordings.values()
    return run


def test_memory_is_used_again_once_nothing_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.linspace(-1, 1, 24).view(4, 6)
    monkeypatch.setattr("engine.replayed.MOST_BYTES", 6 * x.nbytes)
    recorded = Recorded(wave)
    assert torch.equal(recorded(x), wave(x))
    assert isinstance(the_run(recorded), Replayed)
    assert torch.equal(recorded(-x), wave(-x))


def test_what_needs_more_memory_than_it_may_keep_comes_out_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.replayed.MOST_BYTES", 1)
    recorded, x = Recorded(wave), torch.linspace(-1, 1, 24).view(4, 6)
    for values in (x, -x):
        assert torch.equal(recorded(values), wave(values))
    assert not isinstance(the_run(recorded), Replayed)


def test_a_result_is_the_callers_own() -> None:
    recorded = Recorded(lambda x: {"as it is": x, "twice": 2 * x})
    first = recorded(torch.ones(2))
    recorded(torch.zeros(2))
    assert {name: value.tolist() for name, value in first.items()} == {"as it is": [1, 1], "twice": [2, 2]}


def test_an_argument_that_was_changed_in_place_is_read_again() -> None:
    recorded, x = Recorded(ranked), torch.zeros(3)
    assert recorded(x).tolist() == [0, 1, 2]
    assert recorded(x.add_(1)).tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    "at", [torch.tensor([2, 0]), torch.tensor([True, False, True])], ids=["places", "mask"]
)
def test_what_is_taken_by_places_or_by_a_mask_follows_the_values(at: torch.Tensor) -> None:
    recorded = Recorded(lambda x, at: x[:, at] * 2)
    x = torch.arange(6.0).view(2, 3)
    for values, where in (
        (x, at),
        (x + 1, at.flip(0)),
        (x, at ^ at if at.dtype is torch.bool else 1 - at // 2),
    ):
        assert torch.equal(recorded(values, where), values[:, where] * 2)


def test_calls_of_several_threads_do_not_meet() -> None:
    recorded = Recorded(wave)
    inputs = [torch.full((3, 3), float(n)) for n in range(8)]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(recorded, inputs * 20))
    assert all(torch.equal(one, wave(x)) for one, x in zip(found, inputs * 20, strict=True))


def descend(x: torch.Tensor, target: torch.Tensor, rate: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    distance = x - target.exp() @ target
    return x - rate * distance, distance.square().sum(1)


def test_what_is_repeated_is_a_loop_of_plain_calls() -> None:
    repeated = Repeated(descend)
    for seed, turns in ((0, 1), (1, 3), (2, 7)):
        x, target = torch.randn(2, 4, 4, generator=torch.Generator().manual_seed(seed))
        rate, moved, losses = torch.tensor(0.1 * (seed + 1)), x, []
        for _ in range(turns):
            moved, loss = descend(moved, target, rate)
            losses.append(loss)
        carry, first, last = repeated(turns, x, target, rate)
        assert torch.equal(carry, moved)
        assert torch.equal(first, losses[0])
        assert torch.equal(last, descend(moved, target, rate)[1])


def test_what_hangs_on_fixed_arguments_alone_is_computed_once() -> None:
    repeated = Repeated(descend)
    repeated(2, torch.zeros(4, 4), torch.ones(4, 4), torch.tensor(0.1))
    ((runs, _),) = repeated._recordings.values()
    names = [{call[0].overloadpacket.__name__ for call in run._calls} for run in runs]
    assert names == [{"exp", "mm"}, {"sub", "mul", "pow", "sum"}, {"sub", "pow", "sum"}]


def stirred(x: torch.Tensor, total: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Writes to a tensor that hangs on what is fixed alone."""
    kept = total * 2
    kept.add_(x)
    return kept, kept.sum(0)


def test_what_a_turn_writes_to_is_made_anew_for_each() -> None:
    carry, first, last = Repeated(stirred)(3, torch.ones(2), torch.full((2,), 5.0))
    assert (carry.tolist(), first.item(), last.item()) == ([31.0, 31.0], 22.0, 82.0)


def test_what_returns_nothing_is_done_all_the_same() -> None:
    recorded = Recorded(torch.linalg.solve)
    assert recorded(2 * torch.eye(2), torch.ones(2)).tolist() == [0.5, 0.5]
    with pytest.raises(RuntimeError, match="singular"):
        recorded(torch.zeros(2, 2), torch.ones(2))


def test_only_a_processor_is_compiled_for() -> None:
    repeated = Repeated(descend, compiles=True)
    with pytest.raises(
        EngineError, match=r"inner\.compile is for processors; on meta set inner\.compile = false"
    ):
        repeated(2, *(torch.zeros(4, 4, device="meta") for _ in range(3)))


def test_the_largest_tensor_is_told_of_a_call() -> None:
    assert largest(partial(torch.add, alpha=2), torch.zeros(3, 1), torch.zeros(5)) == 15
