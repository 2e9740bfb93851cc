"""Machine code on disk: no process takes up what was compiled from other sources."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from numba.core.errors import NumbaError, TypingError
from numba.core.registry import cpu_target

from engine import compiled as compiling
from engine import machine_code, trust
from engine.compiled import is_of
from engine.kernels.row_theta import ROW_THETA, SHAPE
from engine.kernels.vectors import address
from engine.located import LOCATED
from engine.machine_code import FOLDER, folder_in, name_of
from engine.stream import history, mixture, scan
from engine.stream.layout import COLUMNS_LAYOUT
from engine.stream.requirements import LIMITS
from engine.stream.rules import version_of
from engine.stream.scan_arrays import (
    EVENTS_LAYOUT,
    RESULTS_LAYOUT,
    RULES_LAYOUT,
    VERSION_LAYOUT,
    WORK_LAYOUT,
    Results,
    blank_results,
    nothing_foreseen,
)
from engine.stream.support import LEFT_LAYOUT, room_for
from engine.stream.table import TaskTable
from engine.types import Outcomes
from tests.engine.driving import SPECS, batch_of, engine_for, label, observation, theta


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


def code_in(place: Path) -> Path:
    """A folder that holds code."""
    code = place / NAME / "engine" / "scan.nbi"
    code.parent.mkdir(parents=True)
    code.write_bytes(b"code")
    return place / NAME


def test_the_first_place_that_can_be_written_is_taken_and_none_where_none_can(tmp_path: Path) -> None:
    (tmp_path / "no folder").write_text("")
    assert folder_in([tmp_path / "no folder", tmp_path / "home"], NAME) == tmp_path / "home" / NAME
    assert folder_in([tmp_path / "no folder"], NAME) is None
    assert list((tmp_path / "home" / NAME).iterdir()) == []


def test_code_in_a_place_that_cannot_be_written_goes_before_a_place_that_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = code_in(tmp_path / "image")
    monkeypatch.setattr(machine_code, "is_writable", lambda folder: "image" not in folder.parts)
    assert folder_in([tmp_path / "image", tmp_path / "home"], NAME) == folder
    (folder / "engine" / "scan.nbi").unlink()
    assert folder_in([tmp_path / "image", tmp_path / "home"], NAME) == tmp_path / "home" / NAME


def test_a_place_that_may_not_be_looked_into_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "glob", refuse)
    monkeypatch.setattr(machine_code, "is_writable", lambda folder: False)
    assert folder_in([tmp_path], NAME) is None


def added(x: Any) -> Any:
    return x + 1


def summed(x: Any) -> Any:
    return x.sum()


@pytest.mark.parametrize("is_writable", [True, False])
def test_a_folder_that_everybody_can_write_to_is_passed_over(
    is_writable: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = code_in(tmp_path)
    if not is_writable:
        monkeypatch.setattr(machine_code, "is_writable", lambda _: False)
    for mode in (0o777, 0o757, 0o775):
        folder.chmod(mode)
        assert folder_in([tmp_path], NAME) is None
    folder.chmod(0o755)
    assert folder_in([tmp_path], NAME) == folder


@pytest.mark.parametrize(
    ("mode", "group", "is_trusted"), [(0o775, 7, True), (0o775, 8, False), (0o755, 7, False)]
)
def test_a_folder_that_a_group_can_write_to_is_used_where_the_sources_are_that_groups_too(
    mode: int, group: int, is_trusted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = os.getuid()
    monkeypatch.setattr(
        Path,
        "stat",
        lambda path, **_: owned_by(user, mode, group) if path == trust.SOURCES else owned_by(user, 0o775, 7),
    )
    assert trust.is_trusted(tmp_path) == is_trusted


def test_a_folder_of_another_user_is_passed_over_unless_the_sources_are_that_users_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, user = code_in(tmp_path), os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: user + 1)
    monkeypatch.setattr(Path, "stat", lambda path, **_: owned_by(0 if path == trust.SOURCES else user + 2))
    assert folder_in([tmp_path], NAME) is None
    monkeypatch.setattr(Path, "stat", lambda _, **__: owned_by(user + 2))
    assert folder_in([tmp_path], NAME) == folder


def owned_by(user: int, mode: int = 0o755, group: int = 0) -> os.stat_result:
    return os.stat_result((stat.S_IFDIR | mode, 0, 0, 2, user, group, 0, 0, 0, 0))


def test_code_in_a_folder_that_is_not_added_to_is_taken_up_and_what_is_not_there_is_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiling, "FOLDER", tmp_path)
    monkeypatch.setattr(machine_code, "IS_ADDED_TO", True)
    compiling.compiled_as("int64")(added)
    kept = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr(machine_code, "IS_ADDED_TO", False)
    taken_up: Any = compiling.compiled_as("int64")(added)
    assert taken_up(2) == 3
    assert sum(taken_up.dispatcher.stats.cache_hits.values()) == 1
    other: Any = compiling.compiled(added)
    assert other(0.5) == 1.5
    assert sum(other.stats.cache_misses.values()) == 1
    assert sorted(tmp_path.rglob("*")) == kept


def test_code_on_disk_is_taken_up_without_what_numba_compiles_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiling, "FOLDER", tmp_path)
    compiling.compiled_as("int64")(added)
    monkeypatch.setattr(cpu_target.target_context, "refresh", lambda: pytest.fail("made ready to compile"))
    taken_up: Any = compiling.compiled_as("int64")(added)
    assert taken_up(2) == 3


@pytest.mark.parametrize(
    "argument", [np.ones(3, np.int64), np.ones((3, 1)), np.ones(6)[::2], np.ones(3, ">f8")]
)
def test_every_call_refuses_an_array_of_another_type_though_its_numbers_are_as_wide(argument: Any) -> None:
    total: Any = compiling.compiled_as("float64[]")(summed)
    for _ in range(2):
        with pytest.raises(TypeError, match=r"argument 0 of summed is .* compiled for array"):
            total(argument)
        assert [total(np.arange(n, dtype=np.float64)) for n in (3, 4)] == [3.0, 6.0]


class Pair(NamedTuple):
    one: Any
    other: Any


class Twin(NamedTuple):
    one: Any
    other: Any


def of_pair(pair: Any) -> Any:
    return pair.one[0] + pair.other


def test_of_a_tuple_every_call_looks_at_the_class_and_the_first_at_what_it_holds() -> None:
    kind = compiling.scalars(Pair, ["float64[]", "float64"])
    total: Any = compiling.compiled_as(kind)(of_pair)
    for wrong in (
        Pair(np.ones(1, np.int64), 2.0),
        Pair(np.ones(1), "2"),
        Pair(np.ones(2)[::2][:, None], 2.0),
    ):
        with pytest.raises(TypeError, match="argument 0 of of_pair"):
            total(wrong)
    assert total(Pair(np.ones(1), 2.0)) == 3.0
    with pytest.raises(TypeError, match="argument 0 of of_pair"):
        total(Twin(np.ones(1), 2.0))


@pytest.mark.parametrize("name", SPECS)
def test_what_makes_tuples_of_arrays_makes_them_of_the_types_that_compiled_code_takes_them_for(
    name: str,
) -> None:
    engine, meta = engine_for(name), theta(name, 1)
    table = TaskTable.empty(engine.layout, ["a"])
    events = batch_of([observation(1), label(1, 1.0)])
    made = {
        COLUMNS_LAYOUT: table.columns(),
        LOCATED: table.located,
        EVENTS_LAYOUT: engine.requirements.checked(events, 1),
        RESULTS_LAYOUT: blank_results(2, engine.rules.outputs, engine.spec.problem.width),
        RULES_LAYOUT: engine.rules,
        VERSION_LAYOUT: version_of(engine.rules, meta),
        WORK_LAYOUT: nothing_foreseen(1, engine.rules.outputs),
        LEFT_LAYOUT: room_for(2, 1, table.rows),
        LIMITS: engine.requirements.limits,
    }
    if engine.network is not None:
        made[SHAPE] = engine.network.of(meta.params).shape
        made[ROW_THETA] = engine.network.of(meta.params)
    for kind, value in made.items():
        assert is_of(kind, value), kind


def test_results_are_the_columns_of_outcomes_in_their_order() -> None:
    assert Results._fields == tuple(field.name for field in fields(Outcomes))


@pytest.mark.parametrize("array", [np.ones(3), np.ones(6, np.float32)[::2], np.ones((3, 2), np.float32).T])
def test_no_address_is_taken_of_what_would_be_read_for_something_else(array: Any) -> None:
    with pytest.raises(TypingError, match="no address is taken of"):
        compiling.compiled(lambda of: address(of))(array)


def test_what_would_allocate_is_not_compiled() -> None:
    with pytest.raises(NumbaError, match="NRT required but not enabled"):
        compiling.compiled(lambda count: np.zeros(count))(3)


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
