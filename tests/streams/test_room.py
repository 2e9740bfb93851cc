"""Room for so many tasks: the coldest are forgotten, by every restart, every cut and every rebuild the same ones."""

from __future__ import annotations

import shutil
from contextlib import closing
from itertools import count
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from engine.features.history import EVENT_HALF_LIVES_S
from engine.stream.table import TaskTable
from streams.assembly.embedded import embedded, lmdb_store
from streams.errors import InputError
from streams.events.record import Offsets
from streams.logs.file.log import FileLog
from streams.logs.memory import Crash
from streams.operate.rows import opened
from streams.operate.snapshots.spec import described
from streams.operate.snapshots.state_directory import KIND, copy_state, restore
from streams.pages.run.summary import summarise
from streams.program.embedded import run, steps
from streams.replay.embedded import rebuild
from streams.settings.tree import Settings, load_settings
from streams.stores.coldest import warmth
from streams.stores.lmdb import LmdbStore
from tests.engine.driving import engine_for
from tests.faults.model import Left
from tests.faults.shop import CONFIG, counts, run_to_the_end, stop_after, what_is_left

MOST, REGULARS, ROWS, CELL = 16, 4, 480, 64
VISITORS = 42
WEEK_S = EVENT_HALF_LIVES_S[-1]


def settings_of(directory: Path, batch: int = 24) -> Settings:
    flags = (f"run.most_tasks={MOST}", f"run.batch={batch}", f"outer.every={CELL}")
    return load_settings(directory / "shop.toml", {}, flags)


def flood(directory: Path, visitors: int = ROWS) -> None:
    """Every second event is of one of a few regulars, the others of so many visitors, who come in turn."""
    draws, n = np.random.default_rng(0), np.arange(ROWS)
    regular = n % 2 == 0
    columns = {
        "user": [f"regular {m // 2 % REGULARS}" if m % 2 == 0 else f"visitor {m % visitors}" for m in n],
        "at": 10 * n,
        "a": draws.normal(size=ROWS).round(3),
        "b": draws.normal(size=ROWS).round(3),
        "bought": np.where(draws.random(ROWS) < 0.3 + 0.4 * regular, "x", "y"),
        "known_at": 10 * n + draws.integers(0, 30, ROWS),
    }
    pl.DataFrame(columns).write_csv(directory / "events.csv")
    (directory / "shop.toml").write_text(CONFIG)


def gone_in(settings: Settings) -> int:
    with closing(lmdb_store(settings)) as store:
        return store.gone_for_room()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Left]:
    directory = tmp_path_factory.mktemp("flood")
    flood(directory)
    return directory, run_to_the_end(settings_of(directory))


@pytest.fixture(scope="module")
def returning(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Left]:
    """Of visitors who come again, some of them after they were forgotten."""
    directory = tmp_path_factory.mktemp("returning")
    flood(directory, VISITORS)
    return directory, run_to_the_end(settings_of(directory))


def test_a_flood_of_tasks_seen_once_leaves_those_seen_often_as_they_are(finished: tuple[Path, Left]) -> None:
    settings = settings_of(finished[0])
    with opened(settings) as state:
        left = set(state.store.tasks())
    assert len(left) <= MOST + CELL // 2
    newest = [f"visitor%20{n}" for n in range(ROWS - MOST, ROWS) if n % 2]
    assert left >= {f"regular%20{n}" for n in range(REGULARS)} | set(newest)
    seen = counts(settings)
    assert {seen[f"regular {n}"][0] for n in range(REGULARS)} == {ROWS // 2 // REGULARS}


@pytest.mark.parametrize(("batch", "batches"), [(7, 5), (24, 20), (200, 3)])
def test_however_the_log_is_cut_and_where_it_is_stopped_the_same_tasks_are_forgotten(
    finished: tuple[Path, Left], tmp_path: Path, batch: int, batches: int
) -> None:
    flood(tmp_path)
    stop_after(settings_of(tmp_path, batch), batches)
    assert run_to_the_end(settings_of(tmp_path)).differs(finished[1]) == []


@pytest.mark.parametrize("commits", [3, 6, 7])
def test_a_process_that_dies_between_a_batch_and_its_commit_forgets_no_others(
    returning: tuple[Path, Left], tmp_path: Path, commits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    flood(tmp_path, VISITORS)
    commit, done = FileLog.commit, count()

    def dying(log: FileLog, offsets: Offsets) -> None:
        if next(done) == commits:
            raise Crash("commit")
        commit(log, offsets)

    with monkeypatch.context() as patch, closing(embedded(settings_of(tmp_path))) as program:
        patch.setattr(FileLog, "commit", dying)
        with pytest.raises(Crash):
            run(program, lambda progress: None)
    assert run_to_the_end(settings_of(tmp_path)).differs(returning[1]) == []


def test_a_snapshot_whose_rows_are_rounds_ahead_of_its_position_forgets_no_others(
    returning: tuple[Path, Left], tmp_path: Path
) -> None:
    flood(tmp_path, VISITORS)
    settings = settings_of(tmp_path)
    with closing(embedded(settings)) as program:
        batches = steps(program)
        next(batches)

        def meanwhile(doing: str) -> None:
            if doing == "copying the rows":
                for _, _ in zip(range(11), batches, strict=False):
                    pass

        stream = described(program.engine.layout, program.engine.learner, KIND)
        schedule, taken = program.worker.schedule, tmp_path / "snapshot"
        copy_state(settings.run.directory, program.store, stream, schedule, taken, meanwhile)
        batches.close()
    shutil.rmtree(settings.run.directory)
    restore(settings, taken, lambda doing: None)
    assert run_to_the_end(settings).differs(returning[1]) == []


def test_a_rebuild_that_died_before_a_row_was_dropped_forgets_no_others(
    returning: tuple[Path, Left], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dying(store: LmdbStore) -> None:
        raise Crash("clear")

    flood(tmp_path, VISITORS)
    stop_after(settings_of(tmp_path), 12)
    with monkeypatch.context() as patch, pytest.raises(Crash):
        patch.setattr(LmdbStore, "clear", dying)
        rebuild(settings_of(tmp_path), lambda position, progress: None)
    assert run_to_the_end(settings_of(tmp_path)).differs(returning[1]) == []


def test_a_rebuild_forgets_them_again(finished: tuple[Path, Left], tmp_path: Path) -> None:
    shutil.copytree(finished[0], tmp_path, dirs_exist_ok=True)
    settings = settings_of(tmp_path)
    gone = gone_in(settings)
    rebuild(settings, lambda position, progress: None)
    assert what_is_left(settings).differs(finished[1]) == []
    assert gone_in(settings) == gone


def test_one_row_is_not_made_anew_where_it_may_have_been_forgotten_meanwhile(
    finished: tuple[Path, Left], tmp_path: Path
) -> None:
    shutil.copytree(finished[0], tmp_path, dirs_exist_ok=True)
    settings, said = settings_of(tmp_path), r"run\.most_tasks.*--inexact"
    with pytest.raises(InputError, match=said):
        rebuild(settings, lambda position, progress: None, task="regular 1")
    rebuild(settings, lambda position, progress: None, task="regular 1", inexact=True)
    assert what_is_left(settings).differs(finished[1]) == []


def test_an_operator_is_told_how_many_are_forgotten(tmp_path: Path) -> None:
    flood(tmp_path)
    said: list[str] = []
    program = embedded(settings_of(tmp_path), said.append)
    run(program, lambda progress: None)
    program.close()
    told = [line for line in said if "run.most_tasks" in line]
    assert told[0].startswith(
        "the 6 tasks seen least, and longest ago, are forgotten: there were more than 16"
    )
    assert len(told) > ROWS // CELL
    assert sum(int(line.split()[1]) for line in told) == gone_in(settings_of(tmp_path))


def test_however_often_it_was_stopped_its_end_says_how_many_in_all(
    finished: tuple[Path, Left], tmp_path: Path
) -> None:
    flood(tmp_path)
    settings = settings_of(tmp_path)
    stop_after(settings, 9)
    with closing(embedded(settings)) as program:
        warnings = summarise(settings, program, run(program, lambda progress: None)).warnings
    gone = gone_in(settings_of(finished[0]))
    assert f"tasks forgotten, since there were more than run.most_tasks: {gone} in all" in " ".join(warnings)


def test_who_was_seen_often_goes_after_who_was_seen_once_until_that_was_many_weeks_ago() -> None:
    engine = engine_for("history")
    table = TaskTable.empty(engine.layout, ["often, long ago", "often", "once", "once, later", "never"])
    table.rows["events"] = [64, 64, 1, 1, 0]
    table.rows["event_rates"][:, -1] = [64.0, 64.0, 1.0, 1.0, 0.0]
    table.rows["event_s"] = np.array([1.0, 5.0, 8.0, 9.0, 0.0]) * WEEK_S
    warm = warmth(table.encode(pack=True), engine.layout)
    assert np.argsort(warm).tolist() == [4, 0, 2, 3, 1]
    assert warm[0] == 7.0


def test_a_damaged_row_stays_for_an_operator_to_see() -> None:
    engine = engine_for("history")
    stored = [bytes(row)[:-2] for row in TaskTable.empty(engine.layout, ["a"]).encode(pack=True)]
    assert warmth(stored, engine.layout).tolist() == [np.inf]


def test_damaged_rows_stay_where_there_is_no_room_for_all_of_them(tmp_path: Path) -> None:
    layout = engine_for("history").layout
    (sound,) = TaskTable.empty(layout, ["a"]).encode(pack=True)
    with closing(LmdbStore(tmp_path, max_gib=0.01)) as store:
        store.put([("sound", bytes(sound)), *((f"damaged {n}", bytes(sound)[:-2]) for n in range(4))])
        assert store.forget_coldest(layout, 3, 64) == 1
        assert sorted(store.tasks()) == [f"damaged {n}" for n in range(4)]
