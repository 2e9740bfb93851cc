"""A file that grew goes on where it was, with the same bits; any other change is refused before a byte is touched."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import orjson
import polars as pl
import pytest

from benchmarks.fault_deployment import SMALL_TASKS
from streams.assembly.embedded import embedded
from streams.errors import InputError, StoreError
from streams.program.embedded import run
from streams.replay.embedded import rebuild
from streams.settings.tree import Settings, load_settings
from tests.faults.shop import files_of, run_to_the_end, stop_after

CHUNK, CHUNKS = 12, 20
DAY = CHUNK * 4
"""Seconds that a chunk spans, the last label's delay included."""

CONFIG = """
[input]
path = "events.{kind}"
task = ["user"]
time = "at"
label = "bought"
{label_time}
{tasks}
[run]
directory = "state"
batch = 24
max_gib = 0.1
"""


def table(chunks: int, seed: int = 0) -> pl.DataFrame:
    """Chunks of observations and delayed labels; each begins after all labels of the one before are known."""
    rng = np.random.default_rng(seed)
    rows = CHUNK * CHUNKS
    at = np.repeat(np.arange(CHUNKS), CHUNK) * DAY + np.tile(np.arange(CHUNK), CHUNKS)
    columns = {
        "user": [f"user {n}" for n in rng.integers(0, 4, rows)],
        "at": at,
        "a": rng.normal(size=rows).round(3),
        "b": rng.normal(size=rows).round(3),
        "bought": rng.choice(np.array(["x", "y", None]), rows, p=[0.5, 0.4, 0.1]),
        "known_at": at + rng.integers(0, DAY - CHUNK - 1, rows),
    }
    return pl.DataFrame(columns, strict=False).head(CHUNK * chunks)


def write(settings: Settings, rows: pl.DataFrame) -> None:
    assert settings.input is not None
    path = settings.input.path
    writes: dict[str, Callable[[Path], object]] = {
        ".csv": rows.write_csv,
        ".jsonl": rows.write_ndjson,
        ".parquet": rows.write_parquet,
    }
    writes[path.suffix](path)


def shop(folder: Path, chunks: int, kind: str = "csv", *, delayed: bool = True) -> Settings:
    folder.mkdir(parents=True, exist_ok=True)
    label_time = 'label_time = "known_at"' if delayed else ""
    (folder / "shop.toml").write_text(CONFIG.format(kind=kind, label_time=label_time, tasks=SMALL_TASKS))
    settings = load_settings(folder / "shop.toml", {})
    write(settings, table(chunks))
    return settings


def refusal(settings: Settings, command: Callable[[Settings], object] = run_to_the_end) -> str:
    """Why a directory is refused; it is as it was."""
    before = files_of(settings.run.directory)
    with pytest.raises(InputError) as raised:
        command(settings)
    assert files_of(settings.run.directory) == before
    return str(raised.value)


@pytest.fixture(scope="module", params=["csv", "jsonl", "parquet"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_file_appended_to_twenty_times_leaves_what_one_uninterrupted_run_leaves(tmp_path: Path) -> None:
    whole = run_to_the_end(shop(tmp_path / "whole", CHUNKS))
    for chunks in range(1, CHUNKS + 1):
        stop_after(shop(tmp_path / "grown", chunks), batches=99)
    assert run_to_the_end(shop(tmp_path / "grown", CHUNKS)).differs(whole) == []
    assert len(whole.versions) >= 3


@pytest.mark.parametrize("delayed", [True, False])
def test_a_file_of_any_kind_that_grew_leaves_what_one_uninterrupted_run_leaves(
    tmp_path: Path, kind: str, delayed: bool
) -> None:
    whole = run_to_the_end(shop(tmp_path / "whole", 9, kind, delayed=delayed))
    for chunks in (5, 9):
        grown = run_to_the_end(shop(tmp_path / "grown", chunks, kind, delayed=delayed))
    assert grown.differs(whole) == []


def test_a_run_stopped_in_the_middle_goes_on_in_the_file_that_grew_meanwhile(tmp_path: Path) -> None:
    settings = shop(tmp_path / "grown", 12)
    stop_after(settings, batches=3)
    write(settings, table(CHUNKS))
    assert run_to_the_end(settings).differs(run_to_the_end(shop(tmp_path / "whole", CHUNKS))) == []


def test_new_rows_may_come_before_labels_that_a_stopped_run_has_not_come_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.logs.file.log.AHEAD", 0)
    late = table(CHUNKS).with_columns(known_at=pl.col("known_at") + 10 * DAY)
    settings = shop(tmp_path / "grown", 10)
    write(settings, late.head(CHUNK * 10))
    stop_after(settings, batches=3)
    write(settings, late)
    whole = shop(tmp_path / "whole", CHUNKS)
    write(whole, late)
    assert run_to_the_end(settings).differs(run_to_the_end(whole)) == []


def test_a_rebuild_of_a_file_that_grew_makes_anew_what_was_folded_and_the_run_goes_on(tmp_path: Path) -> None:
    settings = shop(tmp_path / "grown", 10)
    before = run_to_the_end(settings)
    write(settings, table(CHUNKS))
    assert rebuild(settings, lambda position, progress: None) == len(before.rows)
    assert run_to_the_end(settings).differs(run_to_the_end(shop(tmp_path / "whole", CHUNKS))) == []


def test_every_label_is_said_once_however_often_the_file_grew(tmp_path: Path) -> None:
    for chunks in (10, 15, CHUNKS):
        settings = shop(tmp_path, chunks)
        run_to_the_end(settings)
    scores = (settings.run.directory / "outputs" / "scores.jsonl").read_bytes().splitlines()
    offsets = [orjson.loads(line)["offset"] for line in scores]
    assert len(offsets) == len(set(offsets)) == table(CHUNKS)["bought"].count()


# What is refused, and that the way out is one


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, kind: str) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    run_to_the_end(shop(folder, 10, kind))
    return folder


@pytest.fixture
def settings(finished: Path, tmp_path: Path) -> Settings:
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    return load_settings(tmp_path / "shop.toml", {})


def changed_in_the_middle() -> pl.DataFrame:
    return table(CHUNKS).with_columns(pl.when(pl.col("at") == 3).then(9.5).otherwise("a").alias("a"))


OTHERS: dict[str, Callable[[], pl.DataFrame]] = {
    "another file in its place": lambda: table(10, seed=1),
    "a longer file in its place": lambda: table(CHUNKS, seed=1),
    "a row changed": changed_in_the_middle,
    "a row left out": lambda: table(CHUNKS).filter(pl.col("at") != 3),
    "cut short": lambda: table(9),
    "empty": lambda: table(0),
    "in another order": lambda: table(10).sample(fraction=1.0, shuffle=True, seed=1),
}


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("command", [run_to_the_end, lambda settings: rebuild(settings, lambda *_: None)])
def test_any_other_table_is_refused_before_a_byte_is_touched(
    settings: Settings, other: str, command: Callable[[Settings], object]
) -> None:
    write(settings, OTHERS[other]())
    said = refusal(settings, command)
    assert "run.directory" in said
    assert "rows at its end" in said


def test_a_row_before_what_was_streamed_is_refused_by_its_line_and_the_time_to_come_after(
    settings: Settings, kind: str
) -> None:
    late = table(CHUNKS)[130:131].with_columns(pl.lit(5, pl.Int64).alias("at"))
    write(settings, pl.concat([table(10), late]))
    said = refusal(settings)
    line = {"csv": "line 122", "jsonl": "line 121", "parquet": "row 121"}[kind]
    assert f"{line}: a new row takes place before events that were streamed already" in said
    assert "1970-01-01 00:07" in said


def test_a_table_with_a_directory_of_its_own_is_streamed(settings: Settings, tmp_path: Path) -> None:
    write(settings, table(CHUNKS, seed=1))
    refusal(settings)
    own = settings.model_copy(update={"run": settings.run.model_copy(update={"directory": tmp_path / "own"})})
    assert len(run_to_the_end(own).rows) == 4


def test_the_old_rows_with_new_ones_at_their_end_are_streamed(settings: Settings) -> None:
    write(settings, table(10, seed=1))
    refusal(settings)
    write(settings, table(CHUNKS))
    assert len(run_to_the_end(settings).rows) == 4


def test_the_file_may_be_moved(settings: Settings, tmp_path: Path, kind: str) -> None:
    (tmp_path / f"events.{kind}").rename(tmp_path / f"moved.{kind}")
    assert settings.input is not None
    moved = settings.input.model_copy(update={"path": tmp_path / f"moved.{kind}"})
    run_to_the_end(settings.model_copy(update={"input": moved}))


def test_other_columns_are_refused_by_their_setting(settings: Settings) -> None:
    assert settings.input is not None
    other = settings.input.model_copy(update={"label_time": None})
    with pytest.raises(Exception, match=r"input\.label_time is null and was \"known_at\""):
        run_to_the_end(settings.model_copy(update={"input": other}))


# Texts whose last line goes on


@pytest.mark.parametrize(
    ("before", "after", "goes_on"),
    [
        ('u,1,0,1,x,2\nu,3,0,1,"x"', 'u,1,0,1,x,2\nu,3,0,1,"x",9\nu,9,0,1,x,9\n', False),
        ("u,1,0,1,x,2\nu,3,0,1,x,4", "u,1,0,1,x,2\nu,3,0,1,x,45\n", False),
        ("u,1,0,1,x,2\nu,3,0,1,x,4", "u,1,0,1,x,2\nu,3,0,1,x,4\nu,9,0,1,x,9", True),
        ("u,1,0,1,x,2\nu,3,0,1,x,4\n\n", "u,1,0,1,x,2\nu,3,0,1,x,4\r\nu,9,0,1,x,9", True),
    ],
)
def test_a_last_line_that_goes_on_is_a_changed_row(
    tmp_path: Path, before: str, after: str, goes_on: bool
) -> None:
    settings = shop(tmp_path, 1)
    path = tmp_path / "events.csv"
    header = "user,at,a,b,bought,known_at\n"
    path.write_text(header + before, newline="")
    stop_after(settings, batches=9)
    path.write_text(header + after, newline="")
    if goes_on:
        stop_after(settings, batches=9)
    else:
        refusal(settings)


# The position


@pytest.mark.parametrize(
    "content",
    [b"", b'{"incarnation":', b"[]", b"{}", b'{"offset": 3}', b'{"incarnation": 7, "offset": 200}', b"\xff"],
)
def test_a_damaged_position_is_refused_with_the_way_out(settings: Settings, content: bytes) -> None:
    (settings.run.directory / "position.json").write_bytes(content)
    assert "restore it from a backup, or give this table a directory of its own" in refusal(settings)


def test_rows_without_their_position_are_refused(settings: Settings) -> None:
    (settings.run.directory / "position.json").unlink()
    assert "position.json is not there" in refusal(settings)


def test_nothing_is_left_behind_where_the_input_is_refused_at_first(tmp_path: Path) -> None:
    settings = shop(tmp_path, 1)
    assert settings.input is not None
    settings.input.path.unlink()
    with pytest.raises(InputError, match="there is no such file"):
        embedded(settings)
    assert not settings.run.directory.exists()


def test_a_table_from_which_nothing_was_streamed_yet_may_be_replaced(tmp_path: Path) -> None:
    settings = shop(tmp_path / "shop", 1)
    embedded(settings).close()
    write(settings, table(CHUNKS, seed=1))
    assert len(run_to_the_end(settings).rows) == len(set(table(CHUNKS, seed=1)["user"]))


def test_a_file_that_is_being_written_to_goes_on_with_what_comes_next(tmp_path: Path) -> None:
    settings = shop(tmp_path / "grown", 2)
    log = embedded(settings)
    assert settings.input
    path = settings.input.path
    with path.open("ab") as file:
        file.write(b"user 1,9")  # after the log was opened; half of a line, as a buffer leaves it
    run(log, lambda progress: None)
    log.close()
    write(settings, table(3))
    assert run_to_the_end(settings).differs(run_to_the_end(shop(tmp_path / "whole", 3))) == []


def test_one_whose_times_would_be_believed_now_and_were_not_is_refused(tmp_path: Path) -> None:
    """What is of the future hangs on when a table was written."""
    settings = shop(tmp_path / "shop", 1, delayed=False)
    assert settings.input
    path = settings.input.path
    path.write_text(path.read_text() + "user 1,4000000000,1.0,1.0,x,\n")
    run_to_the_end(settings)
    assert b"bad_time" in (settings.run.directory / "outputs" / "dead-letter.jsonl").read_bytes()
    os.utime(path, (4e9, 4e9))
    assert "would be taken otherwise" in refusal(settings)


def test_settings_are_not_kept_where_the_directory_is_refused(tmp_path: Path) -> None:
    settings = shop(tmp_path / "shop", 1)
    run_to_the_end(settings)
    (settings.run.directory / "position.json").unlink()
    refusal(settings.model_copy(update={"inner": settings.inner.model_copy(update={"steps": 3})}))


def test_rows_without_the_settings_that_they_were_made_under_are_refused(tmp_path: Path) -> None:
    settings = shop(tmp_path / "shop", 1)
    run_to_the_end(settings)
    (settings.run.directory / "settings.json").unlink()
    assert "settings.json is not there" in refusal(settings)


@pytest.mark.parametrize("offset", [-5, 9999])
def test_a_position_that_no_run_has_written_is_refused(offset: int, tmp_path: Path) -> None:
    settings = shop(tmp_path / "shop", 1)
    run_to_the_end(settings)
    path = settings.run.directory / "position.json"
    path.write_bytes(orjson.dumps(orjson.loads(path.read_bytes()) | {"offset": offset}))
    assert "position.json is damaged" in refusal(settings)


def test_rows_that_are_gone_are_refused_and_made_anew_by_the_advice(tmp_path: Path) -> None:
    settings = shop(tmp_path / "shop", 2)
    whole = run_to_the_end(settings)
    shutil.rmtree(settings.run.directory / "rows")
    with pytest.raises(InputError, match="rows of what was streamed are gone"):
        run_to_the_end(settings)
    assert rebuild(settings, lambda position, progress: None, inexact=True) == len(whole.rows)
    assert run_to_the_end(settings).rows.keys() == whole.rows.keys()


def test_a_store_that_was_cut_short_is_refused(tmp_path: Path) -> None:
    settings = shop(tmp_path / "shop", 2)
    run_to_the_end(settings)
    path = settings.run.directory / "rows" / "data.mdb"
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(StoreError, match="cut short"):
        run_to_the_end(settings)


def test_a_last_row_without_its_line_break_is_said(tmp_path: Path) -> None:
    settings = shop(tmp_path / "shop", 1)
    assert settings.input
    path = settings.input.path
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    program = embedded(settings)
    assert any("has no line break at its end" in remark for remark in program.log.remarks())
    program.close()
