"""Outputs are appended whole, kept over a crash, and read back line by line."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.errors import StoreError
from streams.logs.memory import MemoryOutput
from streams.logs.output import OutputFile, OutputLog


@pytest.fixture(params=["file", "memory"])
def output(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OutputFile | MemoryOutput]:
    if request.param == "memory":
        yield MemoryOutput()
        return
    file = OutputFile(tmp_path / "outputs" / "scores.jsonl")
    yield file
    file.close()


class TestEveryOutput:
    def test_lines_are_read_back_in_order(self, output: OutputLog) -> None:
        output.append([b"one", b"two"])
        output.append([b"three"])
        output.sync()
        assert output.read(0, 10)[0] == [b"one", b"two", b"three"]

    def test_reading_goes_on_where_it_stopped(self, output: OutputLog) -> None:
        output.append([b"one", b"two", b"three"])
        first, position = output.read(0, 2)
        rest, end = output.read(position, 2)
        assert (first, rest) == ([b"one", b"two"], [b"three"])
        assert output.read(end, 2) == ([], end)

    def test_appending_nothing_adds_nothing(self, output: OutputLog) -> None:
        output.append([])
        assert output.read(0, 1) == ([], 0)


def reopened(path: Path, more: list[bytes]) -> list[bytes]:
    file = OutputFile(path)
    file.append(more)
    file.close()
    return file.read(0, 1000)[0]


def test_appending_goes_on_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"
    reopened(path, [b"one"])
    assert reopened(path, [b"two"]) == [b"one", b"two"]


@given(cut=st.integers(0, 200_011))
def test_a_line_torn_anywhere_is_cut_off_and_the_whole_ones_stay(
    cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("torn") / "scores.jsonl"
    content = b"one\ntwo\n" + b"x" * 200_000 + b"\nyz"
    path.write_bytes(content[:cut])
    whole = content[:cut].split(b"\n")[:-1]
    assert reopened(path, [b"new"]) == [*whole, b"new"]


def test_a_line_still_being_written_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"
    file = OutputFile(path)
    file.append([b"one"])
    with path.open("ab") as other:
        other.write(b"tw")
    assert file.read(0, 10) == ([b"one"], 4)
    file.close()


def test_a_line_that_is_written_to_its_end_while_it_is_read_is_whole_or_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "scores.jsonl"
    file = OutputFile(path)
    file.append([b"one", b"two"])

    class StillWritten(io.RawIOBase):
        parts = iter([b"one\nt", b"", b"wo\n"])

        def readable(self) -> bool:
            return True

        def seekable(self) -> bool:
            return True

        def seek(self, position: int, whence: int = 0) -> int:
            return position + whence

        def readinto(self, room: Any) -> int:
            part = next(self.parts, b"")
            room[: len(part)] = part
            return len(part)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", lambda *_: io.BufferedReader(StillWritten()))
        assert file.read(0, 10) == ([b"one"], 4)
    assert file.read(4, 10) == ([b"two"], 8)
    file.close()


def test_an_append_that_fails_leaves_nothing_of_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "scores.jsonl"
    file = OutputFile(path)
    file.append([b"one"])

    class FullDisk:
        def write(self, content: bytes) -> int:
            return raw.write(content[:2])

        def __getattr__(self, name: str) -> Any:
            return getattr(raw, name)

    raw = file._file
    monkeypatch.setattr(file, "_file", FullDisk())
    with pytest.raises(StoreError, match=r"scores\.jsonl: no space left on device; make room"):
        file.append([b"two"])
    monkeypatch.undo()
    file.append([b"three"])
    file.close()
    assert path.read_bytes() == b"one\nthree\n"


def test_a_file_is_synced_where_something_was_appended_and_once_when_it_was_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr("streams.logs.output.os.fsync", lambda file: synced.append(file))
    for lines in ([], [b"of an earlier process, which may have died before it synced"]):
        file = OutputFile(tmp_path / "scores.jsonl")
        file.append(lines)
        counted = []
        for more in ([], [], [b"one"], [], []):
            file.append(more)
            file.sync()
            counted.append(len(synced))
            synced.clear()
        assert counted == [1, 0, 1, 0, 0]
        file.close()
