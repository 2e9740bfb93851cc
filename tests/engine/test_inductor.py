"""Steps as machine code: what they compute, where they are kept, and what is said where they cannot be made."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.fx import Graph

from engine import inductor
from engine.errors import EngineError
from engine.features.columns import Numeric
from engine.features.encoder import Features
from engine.learners.base import flatten
from engine.learners.gradient import GradientLearner
from engine.networks.transformer import transformer
from engine.problem import InnerLoop, Problem
from engine.targets import Classification
from engine.traced import Recorded
from engine.types import Batch
from tests.recordings import not_shared

PROBLEM = Problem(
    Features(tuple(Numeric(f"f{n}") for n in range(4))),
    Classification((0, 1)),
    network=partial(transformer, width=8, depth=1, heads=2),
    adapts="all",
    inner=InnerLoop(steps=3),
)


def gelu(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, 8), nn.GELU(), nn.Linear(8, outputs))


def compiling(problem: Problem) -> GradientLearner:
    return GradientLearner(replace(problem, inner=replace(problem.inner, compile=True)))


def support(tasks: int, seed: int = 0) -> Batch:
    g = torch.Generator().manual_seed(seed)
    x, y = torch.randn(tasks, 8, 4, generator=g), torch.randint(2, (tasks, 8), generator=g).float()
    return Batch(x, y, torch.full((tasks, 8), 1 / 8))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(Recorded, "__init__", not_shared)
    folder = tmp_path / "libraries"
    monkeypatch.setenv(inductor.NAMED, str(folder))
    return folder


def a_graph(operation: Any = torch.ops.aten.sin.default) -> Graph:
    graph = Graph()
    graph.output([graph.call_function(operation, (graph.placeholder("x"),))])
    return graph


@pytest.mark.long
def test_compiled_steps_are_the_steps_and_are_made_once_for_a_machine(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject, plain, block = compiling(PROBLEM), GradientLearner(PROBLEM), support(40)
    theta = subject.init(0)
    fast = flatten(subject.adapt(theta, block))
    assert torch.allclose(fast, flatten(plain.adapt(theta, block)), atol=1e-5)
    assert len(list(folder.glob("inner-*.so"))) == 2
    assert os.environ[inductor.NAMED] == str(folder)

    monkeypatch.setattr(inductor, "_made", None)  # the next takes up what was made
    again = compiling(PROBLEM)
    assert torch.equal(flatten(again.adapt(theta, block)), fast)
    for task in (0, 17, 39):
        alone = again.adapt(theta, Batch(*(column[task : task + 1] for column in block)))
        assert torch.equal(flatten(alone)[0], fast[task])


def test_without_a_compiler_it_is_said_what_to_do(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    subject = compiling(replace(PROBLEM, network=gelu))
    with pytest.raises(
        EngineError, match=r"needs a C\+\+ compiler: install g\+\+ .* or set inner\.compile = false"
    ):
        subject.adapt(subject.init(0), support(2))
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
def test_a_folder_that_others_can_write_to_is_refused(mode: int, folder: Path) -> None:
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(
        EngineError, match=r"which others can write to: take that right from them \(chmod go-w\)"
    ):
        inductor.library_of(a_graph(), [torch.ones(3)])


def test_the_folder_is_made_for_this_user_alone(folder: Path) -> None:
    assert inductor.folder_of_libraries() == folder
    assert folder.stat().st_mode & 0o777 == 0o700


def test_it_is_this_users_alone_where_others_may_write_to_the_cache_that_it_lies_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(inductor.NAMED, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".cache/reptide").mkdir(parents=True)
    (tmp_path / ".cache/reptide").chmod(0o775)  # as machine code of numba makes it, where a umask is 002
    assert inductor.folder_of_libraries().stat().st_mode & 0o777 == 0o700


def test_another_graph_shape_layout_type_version_or_processor_is_another_library(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x = torch.zeros(2, 2)
    names = [
        inductor.name_of(graph, [value])
        for graph, value in (
            (a_graph(), x),
            (a_graph(torch.ops.aten.cos.default), x),
            (a_graph(), torch.zeros(2, 3)),
            (a_graph(), x.expand(2, 2, 2)[0].mT),
            (a_graph(), x.double()),
        )
    ]
    monkeypatch.setattr(inductor, "_processor", lambda: "another")
    names.append(inductor.name_of(a_graph(), [x]))
    monkeypatch.setattr(torch, "__version__", "another")
    names.append(inductor.name_of(a_graph(), [x]))
    assert len(set(names)) == len(names)
    assert inductor.name_of(a_graph(), [x]) == names[-1]


def test_only_the_latest_libraries_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inductor, "MOST", 2)
    made = tmp_path / "made.so"
    made.write_bytes(b"machine code")
    for age in (3, 2, 1):
        kept = inductor._kept(made, tmp_path / f"inner-{age}.so")
        os.utime(kept, (1e9 - age, 1e9 - age))
    assert {path.name for path in tmp_path.glob("inner-*")} == {"inner-2.so", "inner-1.so"}


def test_where_nothing_can_be_kept_what_was_made_is_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = tmp_path / "made.so"
    made.write_bytes(b"machine code")
    assert inductor._kept(made, tmp_path / "gone" / "inner-1.so") == made
    assert "what was compiled cannot be kept" in caplog.text


def test_products_of_few_columns_are_taken_the_other_way_round() -> None:
    graph = Graph()
    a, b = graph.placeholder("a"), graph.placeholder("b")
    graph.output([graph.call_function(torch.ops.aten.bmm.default, (a, b))])
    narrow = torch.randn(3, 33, 5), torch.randn(3, 5, 8)
    module = inductor.wide(graph, narrow)
    (product,) = module.graph.find_nodes(op="call_function", target=torch.ops.aten.bmm.default)
    assert product.args[0].target is torch.ops.aten.transpose.int
    (found,) = module(*narrow)
    assert torch.allclose(found, torch.bmm(*narrow), atol=1e-6)
    assert found.is_contiguous()
