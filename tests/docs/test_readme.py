"""The README's example is a program: its settings and its commands, exactly as they stand."""

from __future__ import annotations

import csv
import random
import re
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.command import reptide

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def write_visits(path: Path) -> None:
    """Visits of a few users whose taste differs; a fifth of the labels never comes."""
    rng = random.Random(5)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["user", "visited", "amount", "country", "bought", "known"])
        for visit in range(400):
            user = rng.choice(["ann", "bob", "cem", "dana"])
            amount = rng.uniform(1, 100)
            bought = "yes" if (amount > 50) == (user in ("ann", "cem")) else "no"
            known = "" if rng.random() < 0.2 else 60.0 * visit + rng.uniform(0, 600)
            writer.writerow([user, 60.0 * visit, round(amount, 2), rng.choice(["NL", "TR"]), bought, known])


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shop")
    (folder / "shop.toml").write_text(blocks("toml")[0], encoding="utf-8")
    write_visits(folder / "visits.csv")
    return folder


def test_the_example_runs_as_it_stands(shop: Path) -> None:
    commands = [
        line.split("#")[0].split() for line in blocks("sh")[1].splitlines() if line.startswith("reptide")
    ]
    assert [command[1] for command in commands] == ["check", "run", "inspect"]
    for _, *arguments in commands:
        done = reptide(shop, *arguments)
        assert done.returncode == 0, done.stderr
    assert '"task": "ann"' in done.stdout


def test_the_example_leaves_the_report_and_the_outputs_that_the_readme_names(shop: Path) -> None:
    assert reptide(shop, "run", "shop.toml").returncode == 0
    assert "Which visit ends in a purchase?" in (shop / "reptide-state/report.html").read_text(
        encoding="utf-8"
    )
    outputs = {path.stem for path in (shop / "reptide-state/outputs").iterdir()}
    assert outputs == {"predictions", "scores", "drifts", "episodes", "dead-letter"}


def test_every_file_that_the_documents_link_to_exists() -> None:
    for document in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (document.parent / target).exists(), f"{document.name} links to {target}"


def python_of(document: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / document).read_text(encoding="utf-8"), re.DOTALL)


DOCUMENTS = [
    str(path.relative_to(ROOT))
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    if "```python" in path.read_text(encoding="utf-8")
]


class TokenOfACloud:
    """What signs for Amazon MSK, which is nobody's dependency."""

    @staticmethod
    def generate_auth_token(region: str) -> tuple[str, int]:
        return f"token of {region}", 1500


@pytest.mark.parametrize("document", DOCUMENTS)
def test_python_in_a_document_runs_as_it_stands(
    document: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(
        sys.modules, "aws_msk_iam_sasl_signer", SimpleNamespace(MSKAuthTokenProvider=TokenOfACloud)
    )
    visit = {"user": "ann", "amount": 3.5, "country": "NL", "bought": "yes"}
    names: dict[str, Any] = {
        "visits": [{**visit, "id": n, "time": 60.0 * n, "known": 60.0 * n + 30} for n in range(70)]
    }
    for number, block in enumerate(python_of(document)):
        (tmp_path / f"{number}.py").write_text(block, encoding="utf-8")
        names |= runpy.run_path(str(tmp_path / f"{number}.py"), names)
    printed = capsys.readouterr().out
    assert "as served" in printed or "report()" not in "".join(python_of(document))
    if "signed" in names:
        assert names["signed"]() == ("token of eu-central-1", 1.5)


def test_the_example_of_images_trains_as_it_stands_but_for_its_length(tmp_path: Path) -> None:
    (tmp_path / "birds.toml").write_text(blocks("toml")[1], encoding="utf-8")
    rng = np.random.default_rng(0)
    for kind in range(60):
        folder = tmp_path / "birds" / f"kind-{kind}"
        folder.mkdir(parents=True)
        for i in range(3):
            pixels = rng.integers(0, 256, (9, 12), np.uint8)
            Image.fromarray(pixels).save(folder / f"{i}.png")
    command = (
        next(line for line in blocks("sh")[2].splitlines() if "meta-train" in line).split("#")[0].split()
    )
    shorter = ["--set", "episodes.rounds=1", "--set", "episodes.judged=1", "--set", "episodes.tasks=1"]
    done = reptide(tmp_path, *command[1:], *shorter)
    assert done.returncode == 0, done.stderr
    assert "reptide evaluate" in done.stderr + done.stdout
