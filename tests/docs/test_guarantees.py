"""Each promise in docs/guarantees.md names the test that keeps it: the file, its class where it has one, the test.

So does each workaround in docs/architecture.md.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
GUARANTEES = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")
NAMING = GUARANTEES + (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
NAMED = re.findall(r"`(tests/[\w/]+\.py)((?:::\w+)*)`", NAMING)


@cache
def defined(path: str) -> frozenset[str]:
    """The tests of a file, each as pytest names it behind the file; and those of a class without it."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    tests = {f"::{node.name}" for node in tree.body if isinstance(node, ast.FunctionDef)}
    for case in (node for node in tree.body if isinstance(node, ast.ClassDef)):
        inner = {node.name for node in case.body if isinstance(node, ast.FunctionDef)}
        tests |= {f"::{case.name}", *(f"::{case.name}::{name}" for name in inner)}
    return frozenset(tests)


@pytest.mark.parametrize(("path", "test"), sorted(set(NAMED)), ids="".join)
def test_a_promise_names_a_test_that_exists(path: Any, test: Any) -> None:
    assert defined(path)
    assert not test or test in defined(path)


def test_every_mention_of_a_test_is_looked_at() -> None:
    assert len(NAMED) == NAMING.count("`tests/")


def test_every_row_of_a_table_names_a_test() -> None:
    rows = [line for line in GUARANTEES.splitlines() if line.startswith("| **")]
    assert rows
    assert [row[:60] for row in rows if "`tests/" not in row] == []
