"""A full disk, a file system that forbids, and a power cut after a rename: a sentence, and nothing lost."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from streams.errors import StoreError
from streams.stores.checkpoints import DirectoryMeta
from streams.system import files
from streams.system.files import refusal, write_whole
from tests.faults.shop import run_to_the_end, shop
from tests.streams.test_checkpoints import checkpoint


@contextmanager
def room_for_files_of(size: int) -> Iterator[None]:
    """No file may grow beyond a size: to a program the same as a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_is_full_again_and_again_costs_nothing_but_starting_again(tmp_path: Path) -> None:
    (tmp_path / "free").mkdir()
    (tmp_path / "full").mkdir()
    expected = run_to_the_end(shop(tmp_path / "free"))
    settings = shop(tmp_path / "full")
    for size in (0, 10_000, 30_000, 60_000, 120_000):
        with room_for_files_of(size), pytest.raises(StoreError) as caught:
            run_to_the_end(settings)
        assert "make room there" in str(caught.value)
    assert not run_to_the_end(settings).differs(expected)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (errno.ENOSPC, "/x/y: no space left on device; make room there and start it again: nothing is lost"),
        (
            errno.EROFS,
            "/x/y: read-only file system; allow this user to write there, or choose another folder",
        ),
        (errno.EISDIR, "/x/y: is a directory"),
    ],
)
def test_what_a_file_system_refuses_is_a_sentence(code: int, said: str) -> None:
    assert refusal(OSError(code, os.strerror(code)), Path("/x/y")).startswith(said)


def test_a_file_that_cannot_be_written_stays_as_it_was_and_leaves_no_draft(tmp_path: Path) -> None:
    path = tmp_path / "position.json"
    write_whole(path, b"old")
    with room_for_files_of(100), pytest.raises(StoreError, match=r"position\.json: file too large"):
        write_whole(path, b"new" * 100)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_names_are_on_disk_before_a_file_or_a_version_counts_as_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[set[str]] = []
    monkeypatch.setattr(files, "keep_names", lambda folder: kept.append({p.name for p in folder.iterdir()}))
    write_whole(tmp_path / "report.html", b"page")
    assert "report.html" in kept.pop()
    versions = DirectoryMeta(tmp_path / "theta")
    assert versions.publish(checkpoint(1))
    (names,) = kept
    assert "00000001.theta" in names
