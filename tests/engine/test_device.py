"""On an accelerator the promise is a tolerance, not equal bits."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from engine.stream.fold import Engine
from engine.stream.table import TaskTable
from engine.types import Meta
from tests.engine.driving import SPECS, Driven, fold_in_cuts, long_stream, theta


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator")
@pytest.mark.parametrize("name", ["balanced", "regression", "two buckets"])
def test_an_accelerator_serves_what_a_processor_serves_within_a_tolerance(name: str) -> None:
    events = long_stream(1, 300, 5, name)
    here = fold_in_cuts(name, events, [], [(0, 1)], 5)
    engine = Engine(SPECS[name], device="cuda")
    there = Driven(engine, TaskTable.empty(engine.layout, here.table.ids))
    there.fold(events, Meta(1, {key: value.to("cuda") for key, value in theta(name, 1).params.items()}))
    assert np.allclose(here.table.rows["score_sums"], there.table.rows["score_sums"], atol=1e-3)
