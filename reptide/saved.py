"""An `Online` in a folder, under one seal: what it was made of, rows, theta, and the labels that come next."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.stream.table import TaskTable
from engine.targets import Classification, Regression
from streams.assembly import learners
from streams.errors import InputError
from streams.events.label_lines import columns_of_labels, lines_of
from streams.events.learned_labels import read_learned
from streams.operate.snapshots.folder import Draft, Folder, drafted, opened
from streams.stores.sealed import sealed, unsealed
from streams.system.named_function import NotAFunction, name_of, named_function

if TYPE_CHECKING:
    from reptide.online import Online

KIND = "online"
TARGETS: dict[str, type[Classification | Regression]] = {
    "classification": Classification,
    "regression": Regression,
}
TASKS, ROWS, LABELS, HEAD, THETA = "tasks.json", "rows", "labels.jsonl", "theta.json", "theta"


def save(model: Online, folder: Path) -> None:
    """Write a model to a new folder.

    Raises:
        ReptideError: the folder holds something, or the network is no function of a module.

    """
    described = {
        "kind": KIND,
        **_made_of(model),
        "position": model.position,
        "trained_through": model.trained_through,
        "window": len(model.window),
    }
    tasks = list(model.row_of)
    with drafted(folder, f"{folder} holds something already; save to a new folder") as directory:
        draft = Draft(directory)
        draft.add(TASKS, json.dumps(tasks).encode())
        with draft.file(ROWS) as write:
            for row in TaskTable(model.engine.layout, tuple(tasks), model.rows[: len(tasks)]).encode():
                write(bytes(row))
        with draft.file(LABELS) as write:
            if labels := [*model.window, *model.new]:
                write(lines_of(columns_of_labels(labels)).content.tobytes())
        if newest := model.trainer.newest():
            for name, content in zip((HEAD, THETA), sealed(newest), strict=True):
                draft.add(name, content)
        draft.seal(described)


def load(kind: type[Online], path: Path) -> Online:
    """Read a model from a folder.

    Raises:
        ReptideError: the folder is missing or damaged, or its network cannot be imported.

    """
    folder = opened(path)
    if folder.described.get("kind") != KIND:
        raise InputError(f"{path} holds a snapshot of another kind, and no saved Online")
    model = _made_anew(kind, folder)
    tasks = json.loads(folder.read(TASKS))
    rows, size = folder.read(ROWS), model.engine.layout.bytes_per_task
    stored = [memoryview(rows)[size * n : size * (n + 1)] for n in range(len(tasks))]
    for task, row in zip(tasks, TaskTable.decode(model.engine.layout, tasks, stored).rows, strict=True):
        model.rows[model.row(task)] = row
    if HEAD in folder.files:
        model.versions.keep(unsealed(folder.read(HEAD), folder.read(THETA)))
    model.position = folder.described["position"]
    model.trained_through = folder.described["trained_through"]
    labels = [read_learned(line) for line in folder.read(LABELS).splitlines()]
    model.window.extend(labels[: folder.described["window"]])
    model.new = labels[folder.described["window"] :]
    return model


def _made_of(model: Online) -> dict[str, Any]:
    """What the model was made of, as JSON holds it."""
    problem = model.engine.spec.problem
    kinds = {made: name for name, made in TARGETS.items()}
    return {
        "features": [{"encoder": learners.encoder_of(c), **asdict(c)} for c in problem.features.columns],  # type: ignore[call-overload]
        "target": {"kind": kinds[type(problem.target)], **asdict(problem.target)},
        "settings": dict(model.given),
        "network": None if model.network is None else _name_of(model.network),
    }


def _made_anew(kind: type[Online], folder: Folder) -> Online:
    made_of = folder.described
    features = [dict(column) for column in made_of["features"]]
    columns = [learners.column(column.pop("encoder"), column) for column in features]
    target = dict(made_of["target"])
    made = TARGETS[target.pop("kind")]
    if "classes" in target:
        target["classes"] = tuple(target["classes"])
    network = made_of["network"] and _named(made_of["network"])
    return kind(columns, made(**target), settings=made_of["settings"], network=network)


def _name_of(network: Any) -> str:
    """The import string of a network's builder."""
    name = name_of(network)
    if name is None:
        raise InputError(
            f"the network {network!r} cannot be saved: define it as a function of a module, by `def`"
        )
    return name


def _named(name: str) -> Any:
    try:
        return named_function(name)
    except (ImportError, AttributeError, ValueError, NotAFunction) as error:
        raise InputError(
            f"the network {name!r} cannot be imported: {error}; run where its module can be"
        ) from None
