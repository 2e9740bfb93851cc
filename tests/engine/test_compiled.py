"""Machine code on disk: no process takes up what was compiled from other sources."""

from __future__ import annotations

import pytest
from numba import config

from engine import history, mixture, scan
from engine.compiled import FOLDER, folder_of


def test_any_changed_source_has_a_folder_of_its_own(tmp_path):
    for name, text in (("a.py", "one = 1"), ("b.py", "two = 2")):
        (tmp_path / name).write_text(text)
    before = folder_of(tmp_path)
    (tmp_path / "__pycache__").mkdir()
    assert folder_of(tmp_path) == before
    (tmp_path / "b.py").write_text("two = 3")
    assert folder_of(tmp_path) != before


@pytest.mark.skipif(bool(config.CACHE_DIR), reason="NUMBA_CACHE_DIR says where")
@pytest.mark.parametrize("function", [scan.scan, history.count, mixture.update])
def test_what_is_compiled_lies_in_the_folder_of_all_sources(function):
    assert function._cache.cache_path.startswith(FOLDER)
