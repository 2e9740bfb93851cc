"""Rows that were lost or damaged are made anew from the log, with the same bits; a rebuild may die, too."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import lmdb
import pytest

from engine.stream.table import RowError
from streams.assembly.embedded import embedded
from streams.errors import CheckpointError, InputError, SettingsError
from streams.logs.memory import Crash
from streams.operate.forget import forget_task
from streams.program import outputs
from streams.program.embedded import run
from streams.program.pruning import prune
from streams.replay.embedded import rebuild
from streams.settings.tree import Settings
from streams.stores.base import key_of
from streams.stores.checkpoints import DirectoryMeta
from streams.stores.lmdb import LmdbStore
from tests.faults.model import Left
from tests.faults.shop import (
    counts,
    counts_of_input,
    keeping_nothing,
    run_to_the_end,
    settings_of,
    shop,
    stop_after,
    users,
    what_is_left,
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Left]:
    directory = tmp_path_factory.mktemp("finished")
    return directory, run_to_the_end(shop(directory, observations=120))


@pytest.fixture
def settings(finished: tuple[Path, Left], tmp_path: Path) -> Settings:
    """A copy of a finished run, of which nothing is damaged yet."""
    shutil.copytree(finished[0], tmp_path, dirs_exist_ok=True)
    return settings_of(tmp_path)


@pytest.fixture
def whole(finished: tuple[Path, Left]) -> Left:
    return finished[1]


def rebuilt(settings: Settings) -> Left:
    rebuild(settings, lambda position, progress: None)
    return what_is_left(settings)


def write_raw(settings: Settings, task: str, change: int | None) -> None:
    """Damage one byte of a stored row, or delete the row."""
    environment = lmdb.open(str(settings.run.directory / "rows"), max_dbs=2, map_size=10**8)
    with environment.begin(db=environment.open_db(b"rows"), write=True) as transaction:
        key = key_of(task).encode()
        row = bytearray(transaction.get(key) or b"")
        transaction.delete(key)
        if change is not None:
            row[change] ^= 1
            transaction.put(key, bytes(row))
    environment.close()


def test_rebuilding_what_is_sound_changes_nothing(settings: Settings, whole: Left) -> None:
    assert rebuilt(settings).differs(whole) == []


def test_a_deleted_row_comes_back_with_the_same_bits(settings: Settings, whole: Left) -> None:
    write_raw(settings, "user 3/{}", None)
    assert what_is_left(settings).differs(whole) == ["rows"]
    assert rebuilt(settings).differs(whole) == []


@pytest.mark.parametrize("byte", [0, 8, 16, 24, 100, 700, -1])
def test_a_damaged_row_is_refused_by_its_task_and_comes_back_with_the_same_bits(
    settings: Settings, whole: Left, byte: int
) -> None:
    write_raw(settings, "user 3/{}", byte)
    with pytest.raises(RowError, match=r"'user 3/\{\}'.*reptide rebuild"):
        what_is_left(settings)
    assert rebuilt(settings).differs(whole) == []


def test_a_rebuild_that_is_refused_leaves_every_row(settings: Settings, whole: Left) -> None:
    other = settings.model_copy(update={"learner": "prototype"})
    with pytest.raises(SettingsError, match='learner is "prototype" and was "gradient"'):
        rebuild(other, lambda position, progress: None)
    assert what_is_left(settings).differs(whole) == []


def test_a_rebuild_formats_no_line(settings: Settings, whole: Left, monkeypatch: pytest.MonkeyPatch) -> None:
    def formatted(*_: Any) -> Any:
        raise AssertionError("a line was formatted")

    for name in ("outcome_lines", "lines_of"):
        monkeypatch.setattr(outputs, name, formatted)
    assert not rebuilt(settings).differs(whole)


def test_a_rebuild_writes_no_output_and_no_theta(settings: Settings) -> None:
    kept = [*(settings.run.directory / "outputs").iterdir(), *(settings.run.directory / "theta").iterdir()]
    before = {path: path.read_bytes() for path in kept}
    rebuilt(settings)
    assert {path: path.read_bytes() for path in kept} == before


def test_a_rebuild_goes_no_further_than_the_run_had_come(tmp_path: Path, whole: Left) -> None:
    settings = shop(tmp_path, observations=120)
    stop_after(settings, batches=4)
    stopped = what_is_left(settings)
    assert rebuilt(settings).differs(stopped) == []
    assert run_to_the_end(settings).differs(whole) == []


def test_a_rebuild_before_the_first_run_leaves_every_output_to_it(tmp_path: Path, whole: Left) -> None:
    settings = shop(tmp_path, observations=120)
    rebuilt(settings)
    assert run_to_the_end(settings).differs(whole) == []


@pytest.mark.parametrize("finish", ["run", "rebuild and run"])
@pytest.mark.parametrize(
    ("effect", "nth"), [("clear", 0), ("load", 0), ("swap", 0), ("load", 3), ("swap", 3)]
)
def test_a_rebuild_that_dies_anywhere_loses_nothing(
    settings: Settings, whole: Left, monkeypatch: pytest.MonkeyPatch, effect: str, nth: int, finish: str
) -> None:
    countdown = iter(range(nth, -(10**6), -1))
    real = getattr(LmdbStore, effect)

    def dying(*arguments: Any) -> Any:
        if next(countdown) == 0:
            raise Crash(effect)
        return real(*arguments)

    with monkeypatch.context() as patched, pytest.raises(Crash):
        patched.setattr(LmdbStore, effect, dying)
        rebuilt(settings)
    if finish == "rebuild and run":
        rebuilt(settings)
    assert run_to_the_end(settings).differs(whole) == []


# One row alone


@pytest.mark.parametrize("change", [None, 24, 700])
def test_one_row_is_made_anew_alone(settings: Settings, whole: Left, change: int | None) -> None:
    write_raw(settings, "user 3/{}", change)
    write_raw(settings, "user 5/{}", 24)
    assert rebuild(settings, lambda position, progress: None, task="user 3/{}") == 1
    with pytest.raises(RowError, match="'user 5/"):
        what_is_left(settings)
    assert rebuild(settings, lambda position, progress: None, task="user 5/{}") == 1
    assert what_is_left(settings).differs(whole) == []


def test_a_task_that_is_not_in_the_log_or_was_forgotten_is_not_made_anew(settings: Settings) -> None:
    with pytest.raises(InputError, match="holds no event of task 'nobody'"):
        rebuild(settings, lambda position, progress: None, task="nobody")
    forget_task(settings, "user 3/{}")
    with pytest.raises(InputError, match="was forgotten"):
        rebuild(settings, lambda position, progress: None, task="user 3/{}")


# What is gone


def rows_of(settings: Settings) -> dict[str, bytes]:
    program = embedded(settings)
    table = program.store.load(program.engine.layout, users(program))
    program.close()
    return {user: row.tobytes() for user, row in zip(table.ids, table.rows, strict=True)}


def test_a_rebuild_after_pruning_is_refused_and_leaves_every_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = keeping_nothing(shop(tmp_path), monkeypatch)
    run_to_the_end(settings)
    before = rows_of(settings)
    with pytest.raises(InputError, match=r"folded under below offset \d+ is not kept"):
        rebuild(settings, lambda position, progress: None)
    assert rows_of(settings) == before


@pytest.mark.parametrize("cell", [0, 64])
def test_a_single_adoption_that_is_gone_is_missed(settings: Settings, whole: Left, cell: int) -> None:
    store = LmdbStore(settings.run.directory / "rows")
    store.drop_adoptions({at for at in store.adoptions() if at.offset == cell})
    store.close()
    with pytest.raises(InputError, match=r"folded under below offset \d+ is not kept"):
        rebuilt(settings)
    assert what_is_left(settings).differs(whole) == ["adoptions"]


def test_where_a_theta_is_no_longer_kept_nothing_is_cleared_unless_the_rows_need_not_be_the_same(
    settings: Settings, whole: Left
) -> None:
    store = LmdbStore(settings.run.directory / "rows")
    versions = DirectoryMeta(settings.run.directory / "theta")
    prune(store, versions, keep_gib=0.0)
    store.drop_adoptions({at for at in store.adoptions() if at.offset < 200})
    store.close()
    with pytest.raises(
        InputError, match=r"folded under below offset \d+ is not kept.*--inexact; nothing was changed"
    ):
        rebuilt(settings)
    assert what_is_left(settings).differs(whole) == ["adoptions"]
    rebuild(settings, lambda position, progress: None, inexact=True)
    assert counts(settings) == counts_of_input(settings)


def keys_of(settings: Settings) -> list[str]:
    store = LmdbStore(settings.run.directory / "rows")
    keys = list(store.tasks())
    store.close()
    return keys


def delete(settings: Settings, version: int) -> None:
    for file in (settings.run.directory / "theta").glob(f"{version:08d}*"):
        file.unlink()


def spoil(settings: Settings, version: int) -> None:
    (file,) = (settings.run.directory / "theta").glob(f"{version:08d}*")
    content = bytearray(file.read_bytes())
    content[20] ^= 1
    file.write_bytes(content)


def rebuild_inexactly(settings: Settings) -> None:
    rebuild(settings, lambda position, progress: None, inexact=True)


def test_where_a_version_is_lost_rows_are_made_anew_under_what_is_left(
    settings: Settings, whole: Left
) -> None:
    delete(settings, 1)
    with pytest.raises(InputError, match=r"is not kept"):
        rebuild(settings, lambda position, progress: None)
    assert rebuild(settings, lambda position, progress: None, inexact=True, task="user 3/{}") == 1
    rebuild_inexactly(settings)
    assert counts(settings) == counts_of_input(settings)


@pytest.mark.parametrize("newest", [True, False])
def test_what_is_said_of_a_damaged_version_leads_out(tmp_path: Path, newest: bool) -> None:
    settings = shop(tmp_path)
    stop_after(settings, batches=13)
    rows = keys_of(settings)
    version = DirectoryMeta(settings.run.directory / "theta").current() if newest else 1
    spoil(settings, version)
    with pytest.raises(CheckpointError, match=r"delete them; .* by `reptide rebuild --inexact`"):
        rebuild_inexactly(settings)
    assert keys_of(settings) == rows, "nothing was cleared"
    delete(settings, version)
    rebuild_inexactly(settings)
    run_to_the_end(settings)
    assert counts(settings) == counts_of_input(settings)


def test_a_run_says_what_pruning_takes_from_a_rebuild(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, said = keeping_nothing(shop(tmp_path), monkeypatch), list[str]()
    program = embedded(settings, said.append)
    run(program, lambda progress: None)
    program.close()
    assert any("versions of theta up to" in sentence for sentence in said)
