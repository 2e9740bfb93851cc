"""What the layout promises: the layers, and that every module says why it exists."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted(path for package in ("engine", "streams") for path in (ROOT / package).rglob("*.py"))


OFFLINE = """
import sys
from importlib import import_module
for name in sys.argv[1:]:
    import_module(name)
print(*[name for name in sys.modules if name == "numba" or name.startswith(("engine.stream", "engine.detectors"))])
"""


def test_what_learns_from_episodes_alone_loads_no_stream_and_no_compiler() -> None:
    rooms = [ROOT / "engine" / room for room in ("learners", "outer", "episodes", "evaluation/episodic")]
    files = [
        path.relative_to(ROOT).with_suffix("") for room in rooms for path in sorted(room.glob("[a-z]*.py"))
    ]
    modules = [".".join(file.parts) for file in files]
    command = [sys.executable, "-c", OFFLINE, *modules, "reptide.few_shot", "streams.cli.training"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")
    assert len(modules) > 20


def named(node: ast.expr) -> set[str]:
    """Names in the class, union or tuple of classes that something is compared with."""
    return {child.id for child in ast.walk(node) if isinstance(child, ast.Name)}


def asked_for(tree: ast.Module) -> set[str]:
    """Classes by which a module tells what an object is: `isinstance(x, C)`, `type(x) is C`."""
    asked: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "isinstance":
            asked |= named(node.args[1])
        elif isinstance(node, ast.Compare) and isinstance(node.left, ast.Call):
            asked |= {name for other in node.comparators for name in named(other)}
    return asked


def test_nobody_asks_for_the_class_of_a_learner_but_for_what_it_can_do() -> None:
    learners = {path: ast.parse(path.read_text()) for path in (ROOT / "engine" / "learners").glob("*.py")}
    classes = {node.name for path, tree in learners.items() for node in tree.body
               if isinstance(node, ast.ClassDef) and path.name != "base.py"}  # fmt: skip
    assert {"GradientLearner", "EmbeddingLearner", "PrototypeLearner"} <= classes
    elsewhere = [path for path in MODULES if path not in learners]
    assert not [path.name for path in elsewhere if asked_for(ast.parse(path.read_text())) & classes]


def test_the_layers_hold() -> None:
    command = [str(Path(sys.executable).with_name("lint-imports"))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_opens_with_its_reason_to_exist(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_pickled_or_evaluated(path: Path) -> None:
    names = {
        node.id
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Name)
    }
    assert not names & {"pickle", "eval", "exec", "marshal", "shelve"}
