"""Machine code on disk: no process takes up what was compiled from other sources."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine import compiled as compiling
from engine.compiled import FOLDER, folder_in, name_of
from engine.stream import history, mixture, scan


def test_any_changed_source_has_a_folder_of_its_own(tmp_path: Path) -> None:
    for name, text in (("a.py", "one = 1"), ("b.py", "two = 2")):
        (tmp_path / name).write_text(text)
    before = name_of(tmp_path, "generic")
    (tmp_path / "__pycache__").mkdir()
    assert name_of(tmp_path, "generic") == before
    (tmp_path / "b.py").write_text("two = 3")
    assert name_of(tmp_path, "generic") != before


def test_any_other_processor_has_a_folder_of_its_own(tmp_path: Path) -> None:
    assert name_of(tmp_path, "generic") != name_of(tmp_path, "skylake")


@pytest.mark.parametrize("function", [vars(scan.scan)["dispatcher"], history.count, mixture.update])
def test_what_is_compiled_lies_in_the_folder_of_all_sources(
    function: Any,
) -> None:
    assert function._cache.cache_path.startswith(str(FOLDER))


NAME = "compiled-0123456789abcdef"


def test_the_first_place_that_can_be_written_is_taken_and_none_where_none_can(tmp_path: Path) -> None:
    (tmp_path / "no folder").write_text("")
    assert folder_in([tmp_path / "no folder", tmp_path / "home"], NAME) == tmp_path / "home" / NAME
    assert folder_in([tmp_path / "no folder"], NAME) is None
    assert list((tmp_path / "home" / NAME).iterdir()) == []


def test_code_in_a_place_that_cannot_be_written_goes_before_a_place_that_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = tmp_path / "image" / NAME / "engine" / "scan.nbi"
    code.parent.mkdir(parents=True)
    code.write_bytes(b"code")
    monkeypatch.setattr(compiling, "is_writable", lambda folder: "image" not in folder.parts)
    assert folder_in([tmp_path / "image", tmp_path / "home"], NAME) == tmp_path / "image" / NAME
    code.unlink()
    assert folder_in([tmp_path / "image", tmp_path / "home"], NAME) == tmp_path / "home" / NAME


def test_a_place_that_may_not_be_looked_into_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "glob", refuse)
    monkeypatch.setattr(compiling, "is_writable", lambda folder: False)
    assert folder_in([tmp_path], NAME) is None


def added(x: Any) -> Any:
    return x + 1


def summed(x: Any) -> Any:
    return x.sum()


def test_code_in_a_folder_that_is_not_added_to_is_taken_up_and_what_is_not_there_is_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiling, "FOLDER", tmp_path)
    monkeypatch.setattr(compiling, "IS_ADDED_TO", True)
    compiling.compiled_as("int64")(added)
    kept = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr(compiling, "IS_ADDED_TO", False)
    taken_up: Any = compiling.compiled_as("int64")(added)
    assert taken_up(2) == 3
    assert sum(taken_up.dispatcher.stats.cache_hits.values()) == 1
    other: Any = compiling.compiled(added)
    assert other(0.5) == 1.5
    assert sum(other.stats.cache_misses.values()) == 1
    assert sorted(tmp_path.rglob("*")) == kept


def test_the_first_call_refuses_another_type_and_later_ones_give_the_same() -> None:
    total: Any = compiling.compiled_as("float64[]")(summed)
    with pytest.raises(TypeError, match="No matching definition"):
        total(np.ones(3, np.int64))
    assert [total(np.arange(n, dtype=np.float64)) for n in (3, 4)] == [3.0, 6.0]
    with pytest.raises(TypeError):
        total([1.0])


def test_without_a_folder_functions_compile_and_do_the_same_with_a_warning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(compiling, "FOLDER", None)
    with pytest.warns(RuntimeWarning, match="let NUMBA_CACHE_DIR name a folder"):
        doubled: Callable[[int], int] = compiling.compiled(lambda x: 2 * x)
    assert doubled(3) == 6


def test_folders_of_other_sources_are_cleared_but_for_those_of_the_last_day(tmp_path: Path) -> None:
    old, new, other = (tmp_path / name for name in ("compiled-" + "a" * 16, "compiled-" + "b" * 16, "kept"))
    for folder in (old, new, other):
        (folder / "scan_1f").mkdir(parents=True)
        (folder / "scan_1f" / "scan.nbi").write_bytes(b"code")
    for folder in (old, other):
        os.utime(folder, (0, 0))
    folder_in([tmp_path], NAME)
    assert {path.name for path in tmp_path.iterdir()} == {new.name, other.name, NAME}
    assert (other / "scan_1f" / "scan.nbi").exists()
