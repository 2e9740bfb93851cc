"""Classes are appended to a stream that runs: rows and theta stay, and no class ever changes its place."""

from __future__ import annotations

import json
from collections.abc import Callable
from math import log
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import orjson
import polars as pl
import pytest

from engine.learners.gradient import GradientLearner
from engine.outer.backprop import Backprop
from engine.outer.descent import FitSettings
from engine.outer.online import Online, Rates
from engine.targets import Classification, Regression
from engine.types import EngineError
from streams.assembly import embedded, parts
from streams.errors import SettingsError, StoreError
from streams.events.learned_labels import read_learned
from streams.logs.output import OutputFile
from streams.pages.run.summary import summarise
from streams.program.embedded import steps
from streams.program.label_window import LabelWindow
from streams.program.progress import Progress
from streams.program.trainer import Trainer
from streams.settings.tree import Settings, load_settings
from streams.stores.classes import ClassFile, ClassNames, agree
from streams.stores.memory import MemoryMeta
from streams.stores.redis.classes import RedisClasses
from streams.stores.redis.server import RedisServer
from tests.faults.shop import left, run_to_the_end, shop
from tests.redis_servers import one_redis

__all__ = ["one_redis"]

APPENDED_AT = 190
"""Of the shop's 300 observations; from here on some labels are of a class that comes late."""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    shop(tmp_path)
    late = pl.int_range(pl.len()) >= APPENDED_AT
    bought = pl.when(late & (pl.col("bought") == "y")).then(pl.lit("z")).otherwise("bought").alias("bought")
    path = tmp_path / "events.csv"
    pl.read_csv(path).with_columns(bought).write_csv(path)
    return tmp_path


def named(directory: Path, *classes: str, reserve: int = 4, learner: str = "gradient") -> Settings:
    target = json.dumps({"classes": classes, "reserve": reserve})
    return load_settings(
        directory / "shop.toml", {}, [f"target={target}", f"learner={learner}", "model.width=8"]
    )


def stop_after(settings: Settings, events: int) -> None:
    program = embedded.embedded(settings)
    for _ in steps(program):
        if program.log.position() >= events:
            break
    program.close()


def lines(settings: Settings, topic: str) -> list[dict[str, Any]]:
    output = OutputFile(settings.run.directory / "outputs" / f"{topic}.jsonl")
    try:
        return [orjson.loads(line) for line in output.read(0, 10**6)[0]]
    finally:
        output.close()


@pytest.mark.parametrize("learner", ["gradient", "prototype"])
def test_a_class_appended_is_learned_and_rows_and_theta_go_on(directory: Path, learner: str) -> None:
    before = named(directory, "x", "y", learner=learner)
    stop_after(before, events=300)
    counted = sum(1 for line in lines(before, "scores") if line["outcome"] == "scored")
    grown = named(directory, "x", "y", "z", learner=learner)
    end = run_to_the_end(grown)
    scores = [line for line in lines(grown, "scores") if line["outcome"] == "scored"]
    assert 0 < counted < len(scores)
    assert lines(grown, "dead-letter") == []
    late = [line for line in scores if line["label"] == "z"]
    assert late and all(np.isfinite(list(line["loss"].values())).all() for line in late)
    assert np.mean([line["served"][2] for line in late[-10:]]) > 0.1
    program = embedded.embedded(grown)
    assert left(program).differs(end) == []
    assert "labels scored" in summarise(grown, program, Progress()).said
    program.close()


def test_a_prediction_made_before_its_class_was_named_is_scored_by_no_less_than_the_floor(
    directory: Path,
) -> None:
    labels = pl.read_csv(directory / "events.csv")["bought"]
    program = embedded.embedded(before := named(directory, "x", "y"))
    for _ in steps(program):
        if any(labels[line["id"]] == "z" for line in lines(before, "predictions")):
            break
    program.close()
    run_to_the_end(grown := named(directory, "x", "y", "z"))
    scores = [line for line in lines(grown, "scores") if line["outcome"] == "scored" and line["label"] == "z"]
    assert -log(2e-6) < max(line["loss"]["served"] for line in scores) <= -log(1e-6) + 1e-3


def test_outputs_speak_of_classes_that_are_named_alone(directory: Path) -> None:
    stop_after(settings := named(directory, "x", "y"), events=250)
    served = [line["served"] for line in lines(settings, "predictions") if "served" in line]
    assert {len(one) for one in served} == {2}
    assert np.allclose(np.sum(served, axis=1), 1, atol=1e-5)


def test_a_label_that_is_not_named_is_a_dead_letter_that_says_where_to_append_it(directory: Path) -> None:
    run_to_the_end(settings := named(directory, "x", "y"))
    details = {letter["detail"] for letter in lines(settings, "dead-letter")}
    assert details == {"label 'z' is none of ['x', 'y']; append it to target.classes, there is room for 2"}


@pytest.mark.parametrize("classes", [("y", "x"), ("x", "z", "y"), ("x", "z")])
def test_classes_that_move_or_vanish_are_refused_before_anything_is_folded(
    directory: Path, classes: tuple[str, str] | tuple[str, str, str]
) -> None:
    stop_after(named(directory, "x", "y"), events=60)
    with pytest.raises(SettingsError, match=r'target\.classes: theta and rows were made for \["x", "y"\]'):
        embedded.embedded(named(directory, *classes))


def test_a_class_appended_once_stays(directory: Path) -> None:
    stop_after(named(directory, "x", "y", "z"), events=60)
    with pytest.raises(SettingsError, match="none is renamed or left out"):
        embedded.embedded(named(directory, "x", "y"))


def test_there_are_no_more_classes_than_the_reserve(directory: Path) -> None:
    with pytest.raises(EngineError, match="reserve makes room for 2 classes, and there are 3"):
        embedded.embedded(named(directory, "x", "y", "z", reserve=2))


def test_a_trainer_that_knows_fewer_classes_than_the_workers_stops_and_says_so(directory: Path) -> None:
    run_to_the_end(settings := named(directory, "x", "y", "z"))
    found = [read_learned(orjson.dumps(line)) for line in lines(settings, "episodes")]
    spec = parts.stream_spec(named(directory, "x", "y"))
    trainer = Trainer(
        spec, Online(GradientLearner(spec.problem), Backprop(), Rates(FitSettings())), MemoryMeta()
    )
    with pytest.raises(SettingsError, match="classes that the workers have"):
        trainer.advance(None, LabelWindow.of(found), len(found), {})
    assert trainer.store.current() == 0


# Where the names are kept

Open = Callable[[], ClassNames]


@pytest.fixture(params=["a file", "redis"])
def recorder(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """Opens the same names again and again."""
    if request.param == "a file":
        return lambda: ClassFile(tmp_path / "classes.json")
    url, stream = request.getfixturevalue("one_redis").url, uuid4().hex
    return lambda: RedisClasses(RedisServer(url), stream, "0")


def test_names_are_written_once_and_in_their_places(recorder: Callable[[], ClassNames]) -> None:
    assert recorder().record(()) == []
    assert recorder().record(["a", "b"]) == ["a", "b"]
    assert recorder().record(["b", "a", "ü c"]) == ["a", "b", "ü c"]
    assert recorder().record(()) == ["a", "b", "ü c"]


def test_names_that_are_refused_are_not_recorded(recorder: Callable[[], ClassNames]) -> None:
    agree(recorder(), Classification(("a", "b"), reserve=4))
    with pytest.raises(SettingsError):
        agree(recorder(), Classification(("b", "a", "c"), reserve=4))
    agree(recorder(), Classification(("a", "b", "d"), reserve=4))


def test_one_as_a_number_and_as_text_are_two_names(recorder: Callable[[], ClassNames]) -> None:
    agree(recorder(), Classification((0, 1), reserve=4))
    with pytest.raises(SettingsError):
        agree(recorder(), Classification((0, "1"), reserve=4))


def test_where_there_is_no_room_nothing_is_recorded(recorder: Callable[[], ClassNames]) -> None:
    agree(recorder(), Classification(("a", "b")))
    agree(recorder(), Regression(0, 1))
    assert recorder().record(()) == []


def test_a_damaged_file_is_refused_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "classes.json").write_text("[")
    with pytest.raises(StoreError, match=r"classes\.json is damaged"):
        ClassFile(tmp_path / "classes.json").record(())
