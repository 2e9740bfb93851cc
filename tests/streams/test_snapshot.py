"""A state directory copied while a run goes on, restored elsewhere and continued: as if nothing had happened."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from streams.assembly.embedded import embedded
from streams.errors import InputError
from streams.events.record import SourcePosition
from streams.logs.memory import Crash
from streams.operate.snapshots.folder import Draft, drafted, opened
from streams.operate.snapshots.spec import described
from streams.operate.snapshots.state_directory import KIND, copy_state, restore, snapshot
from streams.program.embedded import Embedded, steps
from streams.settings.tree import Settings
from tests.faults.model import Left
from tests.faults.shop import keeping_nothing, run_to_the_end, settings_of, shop, what_is_left


def quietly(_: str) -> None:
    """Show no progress."""


def copied(program: Embedded, settings: Settings, directory: Path) -> None:
    state, engine, schedule = settings.run.directory, program.engine, program.worker.schedule
    stream = described(engine.layout, engine.learner, KIND)
    copy_state(state, program.store, stream, schedule, directory, quietly)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Left:
    """What an uninterrupted run leaves."""
    return run_to_the_end(shop(tmp_path_factory.mktemp("whole"), observations=300))


@pytest.fixture(scope="module")
def taken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A snapshot taken in the middle of a batch, after its rows were written and before they were committed."""
    directory = tmp_path_factory.mktemp("running")
    settings = shop(directory, observations=300)
    program = embedded(settings)
    commit, moments = program.log.commit, iter(range(8))

    def committing(offsets: Mapping[tuple[int, int], int]) -> None:
        if next(moments) == 6:
            copied(program, settings, directory / "snapshot")
        commit(offsets)

    program.log.commit = committing  # type: ignore[method-assign]
    for _, _ in zip(range(7), steps(program), strict=False):
        pass
    program.close()
    return directory


@pytest.fixture
def elsewhere(taken: Path, tmp_path: Path) -> Settings:
    """The same stream without a state directory, and the snapshot beside it."""
    for name in ("events.csv", "shop.toml"):
        shutil.copy2(taken / name, tmp_path / name)
    shutil.copytree(taken / "snapshot", tmp_path / "snapshot")
    return settings_of(tmp_path)


def place(settings: Settings) -> Path:
    return settings.run.directory.parent / "snapshot"


def test_one_taken_under_load_and_restored_elsewhere_goes_on_bit_for_bit(
    elsewhere: Settings, whole: Left
) -> None:
    restore(elsewhere, place(elsewhere), quietly)
    assert what_is_left(elsewhere).differs(whole) != []
    assert run_to_the_end(elsewhere).differs(whole) == []


def test_one_of_a_finished_run_is_that_run(taken: Path, tmp_path: Path, whole: Left) -> None:
    shutil.copytree(taken, tmp_path, dirs_exist_ok=True)
    settings = settings_of(tmp_path)
    run_to_the_end(settings)
    snapshot(settings, tmp_path / "second", quietly)
    shutil.rmtree(settings.run.directory)
    restore(settings, tmp_path / "second", quietly)
    assert what_is_left(settings).differs(whole) == []


def files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file())


DAMAGE = {
    "missing": lambda path, content: path.unlink(),
    "cut short": lambda path, content: path.write_bytes(content[:-1]),
    "changed": lambda path, content: path.write_bytes(content[:-1] + bytes([content[-1] ^ 1])),
    "longer": lambda path, content: path.write_bytes(content + b"1"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_one_that_is_damaged_is_refused_before_anything_is_made(elsewhere: Settings, damage: str) -> None:
    directory = place(elsewhere)
    for path, content in {path: path.read_bytes() for path in files(directory)}.items():
        if content:
            DAMAGE[damage](path, content)
            with pytest.raises(InputError, match=r"the snapshot .* is damaged|is no snapshot"):
                restore(elsewhere, directory, quietly)
            path.write_bytes(content)
    assert not elsewhere.run.directory.exists()


def test_one_of_another_spec_is_refused(elsewhere: Settings) -> None:
    other = elsewhere.model_copy(update={"learner": "prototype"})
    with pytest.raises(InputError, match="taken under another stream spec"):
        restore(other, place(elsewhere), quietly)
    assert not elsewhere.run.directory.exists()


def test_one_is_not_restored_over_a_run(elsewhere: Settings, whole: Left) -> None:
    run_to_the_end(elsewhere)
    with pytest.raises(InputError, match="holds a run already; move it away"):
        restore(elsewhere, place(elsewhere), quietly)
    assert what_is_left(elsewhere).differs(whole) == []


def test_a_directory_that_holds_something_is_not_written_to(elsewhere: Settings) -> None:
    run_to_the_end(elsewhere)
    before = {path: path.read_bytes() for path in files(place(elsewhere))}
    with pytest.raises(InputError, match="is not empty"):
        snapshot(elsewhere, place(elsewhere), quietly)
    assert {path: path.read_bytes() for path in files(place(elsewhere))} == before


def test_before_the_first_run_there_is_nothing_to_take(elsewhere: Settings) -> None:
    with pytest.raises(InputError, match="holds no run yet"):
        snapshot(elsewhere, place(elsewhere).with_name("new"), quietly)
    assert not place(elsewhere).with_name("new").exists()


@pytest.mark.parametrize("when", ["before the rows are copied", "after"])
def test_one_from_which_pruning_took_what_it_needs_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    settings = keeping_nothing(shop(tmp_path, observations=300), monkeypatch)
    program = embedded(settings)
    batches = steps(program)
    for _, _ in zip(range(10), batches, strict=False):
        pass
    copy_to = program.store.copy_to

    def while_the_run_goes_on(directory: Path) -> Mapping[SourcePosition, int]:
        if when == "after":
            found = copy_to(directory)
        for _ in batches:
            pass
        return found if when == "after" else copy_to(directory)

    program.store.copy_to = while_the_run_goes_on  # type: ignore[method-assign]
    with pytest.raises(InputError, match=r"pruned while the snapshot was being taken .* take another one"):
        copied(program, settings, tmp_path / "snapshot")
    program.store.copy_to = copy_to  # type: ignore[method-assign]
    copied(program, settings, tmp_path / "snapshot")
    program.close()


def test_one_that_dies_half_way_leaves_nothing_that_could_be_restored(
    elsewhere: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_to_the_end(elsewhere)
    new = place(elsewhere).with_name("new")

    def dying(*_: Any) -> None:
        raise Crash("seal")

    monkeypatch.setattr(Draft, "seal", dying)
    with pytest.raises(Crash):
        snapshot(elsewhere, new, quietly)
    assert not new.exists()
    assert [path.name for path in new.parent.iterdir() if "draft" in path.name] == []


def test_what_a_killed_one_left_is_removed_by_the_next_of_its_name(elsewhere: Settings, whole: Left) -> None:
    left = elsewhere.run.directory.with_name(f".{elsewhere.run.directory.name}.draft")
    (left / "rows").mkdir(parents=True)
    (left / "rows" / "data.mdb").write_bytes(b"half")
    (left / "position.json").write_bytes(b"half")
    restore(elsewhere, place(elsewhere), quietly)
    assert not left.exists()
    assert run_to_the_end(elsewhere).differs(whole) == []


def test_one_that_another_process_is_writing_is_left_alone(elsewhere: Settings) -> None:
    directory = elsewhere.run.directory
    with drafted(directory, "there") as draft:
        Draft(draft).add("half", b"1")
        with pytest.raises(InputError, match=r"is in use by .*process"):
            restore(elsewhere, place(elsewhere), quietly)
        assert (draft / "half").read_bytes() == b"1"
    assert (directory / "half").read_bytes() == b"1"


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/../../b", "", "."])
def test_a_description_that_names_a_file_outside_is_refused(tmp_path: Path, name: str) -> None:
    with drafted(tmp_path / "snapshot", "there") as path:
        draft = Draft(path)
        draft.add("inside", b"1")
        draft._files[name] = draft._files.pop("inside")
        draft.seal({})
    with pytest.raises(InputError, match="is not what was written"):
        opened(tmp_path / "snapshot")


def test_a_later_format_is_refused_by_its_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.operate.snapshots.folder.FORMAT_NOW", 2)
    with drafted(tmp_path / "snapshot", "there") as path:
        Draft(path).seal({})
    monkeypatch.setattr("streams.operate.snapshots.folder.FORMAT_NOW", 1)
    with pytest.raises(InputError, match="has format 2, this program reads 1"):
        opened(tmp_path / "snapshot")


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b"7", b"\xff", b"[" * 100_000, b'{"blake2b": "", "files": {"a": 1}}']
)
def test_what_is_no_description_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "snapshot.json").write_bytes(content)
    with pytest.raises(InputError, match="is damaged"):
        opened(tmp_path)
