"""A promise without its test is no promise: every test that the document names exists."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
NAMED = re.findall(
    r"`(tests/[\w/]+\.py)(?:::(\w+))?`", (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")
)


def test_every_promise_names_a_test_that_exists() -> None:
    assert len(NAMED) >= 15
    for path, name in NAMED:
        assert f"def {name}" in (ROOT / path).read_text(encoding="utf-8"), f"{path}::{name}"


def test_every_row_of_the_table_names_a_test() -> None:
    text = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8").split("## Not promised")[0]
    rows = [line for line in text.splitlines() if line.startswith("| **")]
    assert rows
    assert all("`tests/" in row for row in rows)
