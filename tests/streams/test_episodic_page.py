"""The page and the table of an episodic evaluation: whole, self-contained, and true to the figures."""

from __future__ import annotations

import json
import struct
import zlib
from base64 import b64decode
from collections.abc import Callable
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from torch import nn

from engine.episodes.task_source import ClassEpisodes, Examples, TaskEpisodes
from engine.evaluation.episodic.baselines import SupportGuess
from engine.evaluation.episodic.evaluate import Contender, Judging, Setting, evaluate
from engine.evaluation.episodic.report import EpisodicDict, EpisodicReport, Metric
from engine.features.encoder import Features
from engine.features.pixels import Pixels
from engine.learners.gradient import GradientLearner
from engine.learners.prototype import PrototypeLearner
from engine.problem import InnerLoop, Problem
from engine.targets import Classification, Regression
from streams.errors import StoreError
from streams.pages.episodic import render, table, write_page
from streams.pages.episodic.phrases import standing, verdict, warnings, with_interval
from streams.pages.episodic.pictures import png
from tests.streams.outline import Outline

HOSTILE = "</td><script>alert('x')</script><img src=http://evil.example/a onerror=\"x\">"
SIDE = 3


def normed(inputs: Any, outputs: Any) -> nn.Sequential:
    return nn.Sequential(nn.BatchNorm1d(inputs, track_running_stats=False), nn.Linear(inputs, outputs))


def linear(inputs: Any, outputs: Any) -> nn.Linear:
    return nn.Linear(inputs, outputs)


def examples() -> Examples:
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(6), 12)
    x = np.clip(rng.random((6, SIDE * SIDE))[y] + rng.normal(0, 0.1, (len(y), SIDE * SIDE)), 0, 1)
    nothing = np.zeros(len(y))
    return Examples(x.astype(np.float32), y.astype(np.float32), nothing.astype(np.int64), nothing)


@cache
def of_images() -> EpisodicReport:
    features = Features((Pixels("image", SIDE),))
    target = Classification((0, 1, 2), exchangeable=True)
    problem = Problem(features, target, linear, adapts="all", inner=InnerLoop(lr=0.5))
    batch = Problem(features, target, normed)
    contenders = [
        Contender(
            "prototypes", PrototypeLearner, batch, PrototypeLearner(batch).init(0), "means of embeddings"
        ),
        Contender("fine-tuning", GradientLearner, problem, GradientLearner(problem).init(0)),
        Contender("majority class", SupportGuess, problem, {}),
    ]
    source = ClassEpisodes(examples(), 3, 2, 4)
    settings = [Setting(2, source, source)]
    return evaluate(contenders, settings, Judging("fine-tuning", episodes=25, steps=(0, 1), pictures=2))


@cache
def of_numbers() -> EpisodicReport:
    problem = Problem(Features((Pixels("image", SIDE),)), Regression(0, 6))
    source = TaskEpisodes(examples()._replace(task=np.arange(72) % 4), shots=5)
    contenders = [Contender(name, SupportGuess, problem, {}) for name in ("support mean", "its twin")]
    return evaluate(contenders, [Setting(5, source), Setting(6, source)], Judging("its twin", episodes=25))


def page(report: Callable[[], EpisodicReport] = of_images, **changes: Any) -> Any:
    given = {"title": "Characters", "source": "6 classes", "evaluation": report().as_dict()}
    return given | changes


def full() -> Any:
    return page(
        command="reptide evaluate",
        machine="2 cores",
        finished_s=1.7e9,
        settings="[x]",
        versions={"torch": "2"},
    )


def figures(
    evaluation: EpisodicDict,
    contender: str,
    metric: str = "accuracy",
    mode: str = "inductive",
    **wanted: int | str,
) -> Any:
    return next(
        j
        for j in evaluation["judgements"]
        if (j["contender"], j["metric"], j["mode"]) == (contender, metric, mode)
        and wanted.items() <= dict(j).items()
    )


def printed(evaluation: EpisodicDict, width: int = 80) -> str:
    console = Console(width=width)
    with console.capture() as captured:
        console.print(table(evaluation))
    return captured.get()


@pytest.mark.parametrize("made", [full, page, lambda: page(of_numbers)])
def test_every_page_is_well_formed_and_fetches_nothing(made: Callable[..., Any]) -> None:
    text = render(made())
    outline = Outline(text)
    assert "://" not in text
    assert "url(" not in text
    assert not {"script", "link", "img", "iframe", "object"} & set(outline.seen)
    fetched = [a for a in outline.attributes if a[1] in {"src", "href", "srcset"}]
    assert all(value.startswith("data:image/png;base64,") for _, _, value in fetched)
    assert "nan" not in text.lower().split()


@pytest.mark.parametrize("made", [full, lambda: page(of_numbers)])
def test_every_page_is_drawn_alike_from_its_json(made: Callable[..., Any]) -> None:
    contents = made()
    assert render(json.loads(json.dumps(contents, allow_nan=False))) == render(contents)


def test_the_charts_come_first_and_every_section_is_there() -> None:
    assert Outline(render(full())).within("h2") == [
        "Adaptation: accuracy by inner steps",
        "Contenders with 2 shots",
        "Training tasks beside held-out tasks",
        "Episodes",
        "Settings and versions",
    ]


def test_without_images_and_training_tasks_their_sections_are_left_out() -> None:
    outline = Outline(render(page(of_numbers)))
    assert outline.within("h2") == [
        "Adaptation: squared error by inner steps",
        "Contenders with 5 shots",
        "Contenders with 6 shots",
    ]
    assert "image" not in outline.seen


def test_the_figures_of_the_evaluation_are_in_the_table() -> None:
    contents = page()
    evaluation = contents["evaluation"]
    cells = Outline(render(contents)).within("td")
    for contender in evaluation["contenders"]:
        found = figures(evaluation, contender, headline=True, tasks="held out")["figures"]
        half = 100 * (found["high"] - found["mean"])
        assert f"{100 * found['mean']:.2f}% ± {half:.2f}" in cells
        assert f"{100 * found['p5']:.2f}%" in cells
        assert f"{figures(evaluation, contender, 'log_loss', headline=True)['figures']['mean']:.4f}" in cells


def test_each_contender_has_a_line_and_a_band() -> None:
    drawn = [
        value for tag, name, value in Outline(render(page())).attributes if (tag, name) == ("path", "class")
    ]
    assert drawn == ["band c0", "line c0 once", "band c1", "line c1", "band c2", "line c2 once"]


def test_a_transductive_figure_is_marked_as_not_counting() -> None:
    contents = page()
    found = figures(contents["evaluation"], "prototypes", mode="transductive", tasks="held out")
    outline = Outline(render(contents))
    (said,) = [text for text in outline.within("small") if text.startswith("transductive")]
    assert said.endswith("counts for nothing")
    assert with_interval("accuracy", found["figures"]) in outline.within("td")
    assert "not counted" in printed(contents["evaluation"])


def test_few_episodes_are_called_few() -> None:
    assert "Fewer than the customary 600" in " ".join(Outline(render(page())).within("p"))
    contents = deepcopy(page())
    for size in contents["evaluation"]["sizes"]:
        size["episodes"] = 600
    assert "customary" not in render(contents)


def test_a_contender_that_memorises_is_warned_of() -> None:
    contents = deepcopy(page())
    gap = contents["evaluation"]["gaps"][0]
    gap |= {"training": 0.9, "held_out": 0.5, "value": 0.4, "low": 0.3, "high": 0.5, "parts": True}
    said = (
        "prototypes may have memorised its training tasks (meta-overfitting): accuracy on them and on held-out "
        "tasks is 90.00% and 50.00% with 2 shots."
    )
    assert warnings(contents["evaluation"]) == [said]
    assert said in Outline(render(contents)).within("p")
    assert warnings(page()["evaluation"]) == []


def test_episodes_are_drawn_with_what_was_right_and_wrong() -> None:
    contents = deepcopy(page())
    query = contents["evaluation"]["episodes"][0]["query"]
    query[0] |= {"label": 0, "predicted": 2}
    query[1] |= {"label": 1, "predicted": 1}
    outline = Outline(render(contents))
    assert {"✗ 3, is 1", "✓ 2", "class 1"} <= set(outline.within("small"))
    assert len([tag for tag in outline.seen if tag == "image"]) == 2 * (3 + 10)


@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_is_a_png_of_its_pixels(channels: int) -> None:
    pixels = list(range(4 * channels))
    encoded = png({"label": 0, "predicted": None, "pixels": pixels}, 2, channels)
    assert encoded[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", encoded[16:24]) == (2, 2)
    length = struct.unpack(">I", encoded[33:37])[0]
    rows = np.frombuffer(zlib.decompress(encoded[41 : 41 + length]), np.uint8).reshape(2, 1 + 2 * channels)
    planes = np.array(pixels).reshape(channels, 2, 2)
    assert (rows[:, 1:].reshape(2, 2, channels) == planes.transpose(1, 2, 0)).all()


def test_the_images_of_the_page_decode() -> None:
    sources = [v for _, name, v in Outline(render(page())).attributes if name == "href"]
    assert all(
        b64decode(source.partition(",")[2]).endswith(b"\x00\x00\x00\x00IEND\xaeB`\x82") for source in sources
    )


def test_a_figure_without_a_value_is_a_dash() -> None:
    contents = deepcopy(page(of_numbers))
    for judgement in contents["evaluation"]["judgements"]:
        if judgement["contender"] == "support mean":
            judgement |= {"figures": None, "against_reference": None}
    assert "\N{EN DASH}" in Outline(render(contents)).within("td")
    assert "\N{EN DASH}" in printed(contents["evaluation"])
    for judgement in contents["evaluation"]["judgements"]:
        judgement["figures"] = None
    assert "figure" not in Outline(render(contents)).seen


def test_every_text_is_escaped() -> None:
    evaluation: Any = deepcopy(of_images().as_dict())
    evaluation["contenders"] = {
        HOSTILE if name == "prototypes" else name: HOSTILE for name in evaluation["contenders"]
    }
    for found in (*evaluation["judgements"], *evaluation["gaps"]):
        found["contender"] = HOSTILE if found["contender"] == "prototypes" else found["contender"]
        found |= {"parts": True} if "parts" in found else {}
    contents = full() | {"evaluation": evaluation, "title": HOSTILE, "source": HOSTILE, "command": HOSTILE}
    contents |= {"machine": HOSTILE, "settings": HOSTILE, "versions": {HOSTILE: HOSTILE}}
    assert not {"script", "img"} & set(Outline(render(contents)).seen)


@pytest.mark.parametrize(
    ("metric", "low", "high", "expected"),
    [
        ("accuracy", 0.01, 0.03, 1),
        ("accuracy", -0.03, -0.01, -1),
        ("log_loss", 0.01, 0.03, -1),
        ("squared_error", -0.03, -0.01, 1),
        ("accuracy", -0.01, 0.03, 0),
    ],
)
def test_accuracy_is_better_high_and_errors_low(
    metric: Metric, low: float, high: float, expected: int
) -> None:
    assert standing(metric, {"value": 0.0, "low": low, "high": high}) == expected


def test_the_verdict_says_what_the_interval_allows() -> None:
    evaluation: Any = deepcopy(of_images().as_dict())
    found = figures(evaluation, "prototypes", headline=True, tasks="held out")
    found["figures"] |= {"mean": 0.9, "high": 0.92}
    for low, high, word in ((0.1, 0.3, "better"), (-0.1, 0.3, "a tie"), (-0.3, -0.1, "worse")):
        found["against_reference"] = {"value": (low + high) / 2, "low": low, "high": high}
        assert f"against fine-tuning: {word} (95% interval" in verdict(evaluation)
    assert verdict(evaluation).startswith("With 2 shots, accuracy of prototypes is 90.00% ± 2.00, ")
    alone = evaluation | {"contenders": {"fine-tuning": ""}}
    assert verdict(alone).endswith(".")
    assert "against" not in verdict(alone)


def test_the_table_has_every_number_of_steps_and_fits_a_terminal() -> None:
    evaluation = of_images().as_dict()
    lines = printed(evaluation).splitlines()
    assert max(map(len, lines)) <= 80
    (row,) = [line for line in lines if "fine-tuning" in line and "±" in line]
    for steps in (0, 1):
        found = figures(evaluation, "fine-tuning", steps=steps, tasks="held out")["figures"]
        assert f"{100 * found['mean']:.2f}" in row
    (tie,) = [line for line in printed(of_numbers().as_dict()).splitlines() if "support mean" in line][:1]
    assert "tie" in tie


def test_a_page_that_cannot_be_written_names_the_path(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"file/page\.html"):
        write_page(tmp_path / "file" / "page.html", page())
    write_page(tmp_path / "page.html", page(title="Größe ≥ 3 · 東京"))
    assert "Größe ≥ 3 · 東京" in (tmp_path / "page.html").read_text(encoding="utf-8")
