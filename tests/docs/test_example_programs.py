"""Each script of examples/ runs as it stands, is short, asks for `reptide` alone, and shows that learning pays."""

from __future__ import annotations

import ast
import runpy
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import reptide as public
from tests.command import reptide
from tests.docs.test_readme import blocks, write_visits

EXAMPLES = Path(__file__).parents[2] / "examples"
SCRIPTS = sorted(EXAMPLES.glob("*.py"))
MODULES = {"reptide", "numpy", "torch", "polars"} | sys.stdlib_module_names


def ran(name: str) -> Mapping[str, Any]:
    return runpy.run_path(str(EXAMPLES / f"{name}.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_an_example_is_short_says_what_it_shows_and_imports_reptide_alone(script: Path) -> None:
    text = script.read_text(encoding="utf-8")
    tree = ast.parse(text)
    assert len(text.splitlines()) < 100
    assert ast.get_docstring(tree)
    imported = [name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names]
    imported += [str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert {name.split(".")[0] for name in imported} <= MODULES


@pytest.mark.parametrize(
    "name", ["online", "delayed_labels", "text_intents", "fraud_by_terminal", "generator"]
)
def test_an_example_of_a_stream_serves_better_than_the_base_rate(name: str) -> None:
    report = ran(name)["model"].report()
    assert report.outcomes["scored"] > 200
    assert report.loss["served"] < 0.9 * report.loss["base"]


def test_the_example_of_an_own_network_compares_it_with_the_default() -> None:
    losses = ran("own_network")["served"]
    assert losses["one that squares"] < losses["the default network"]


def test_the_example_of_an_own_learner_beats_the_nearest_mean() -> None:
    accuracy = ran("own_learner")["accuracy"]
    assert accuracy["ridge"] > accuracy["nearest mean"] + 0.1


def test_the_example_of_images_beats_the_nearest_pixels() -> None:
    names = ran("few_shot_images")
    assert sum(names["ours"]) > 1.3 * sum(names["nearest"])


def test_the_example_of_drift_raises_an_alarm_and_recovers() -> None:
    names = ran("regression_with_drift")
    off = {part: errors[0] for part, errors in names["off"].items()}
    assert off["later"] < off["right after"]
    assert names["alarms"]
    assert min(names["alarms"]) >= names["REPAIR"]


def test_the_example_of_outputs_reads_what_a_run_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "shop.toml").write_text(blocks("toml")[0], encoding="utf-8")
    write_visits(tmp_path / "visits.csv")
    assert reptide(tmp_path, "run", "shop.toml").returncode == 0
    monkeypatch.setattr(sys, "argv", ["outputs.py", str(tmp_path / "reptide-state/outputs")])
    names = ran("outputs")
    assert names["by_task"]["labels"].sum() == len(names["scores"])
    assert len(names["predictions"]) == len(names["scores"]) + len(names["unanswered"]) == 400
    assert "mean loss by task" in capsys.readouterr().out


def test_every_example_is_named_in_the_documents() -> None:
    text = (EXAMPLES.parent / "docs/in-python.md").read_text(encoding="utf-8")
    assert [script.name for script in SCRIPTS if f"(../examples/{script.name})" not in text] == []


def test_every_public_name_is_in_the_reference() -> None:
    text = (EXAMPLES.parent / "docs/reference.md").read_text(encoding="utf-8")
    assert [name for name in public.__all__ if f"::: reptide.{name}\n" not in text] == []
