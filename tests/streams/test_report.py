"""The page of a run: whole, self-contained, escaped, and true to the figures it was given."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.evaluation.prequential.evaluate import DAY_S, Prequential, ScoredLabels, TaskScores
from engine.evaluation.prequential.report import Report, ReportDict
from engine.targets import Classification, Regression
from engine.types import PREDICTORS, Outcome
from streams.errors import StoreError
from streams.pages.kit.calendar_axis import MOST_TICKS, date, period, time_axis
from streams.pages.kit.charts import linear_axis
from streams.pages.kit.markup import Markup, element, join
from streams.pages.kit.phrases import duration, percent, standing, verdict
from streams.pages.run import render, write_report
from streams.pages.run.sections import DESCRIPTIONS, OUTCOMES
from tests.streams.outline import Outline

HOSTILE = "</td><script>alert('x')</script><img src=http://evil.example/a onerror=\"x\">"
START_S = 1_356_998_400.0  # 1 January 2013
BINARY = Classification(("on time", "late"))
NAMES = (*PREDICTORS, "baseline")


def scored(
    target: Classification | Regression,
    n: int = 900,
    days: int = 30,
    noise: tuple[float, ...] = (1.4, 1.3, 1.2, 0.5, 0.4, 0.8),
    width_s: float = DAY_S,
    seed: int = 2,
) -> ScoredLabels:
    rng = np.random.default_rng(seed)
    k, c = len(noise), target.outputs
    time_s = START_S + np.sort(rng.random(n)) * days * width_s
    seen = rng.integers(0, 50, n)
    if isinstance(target, Regression):
        y = rng.normal(0, 1, n).astype(np.float32)
        prediction = (y[:, None] + rng.normal(0, 1, (n, k)) * noise).astype(np.float32)[:, :, None]
        return ScoredLabels(
            y, prediction, np.square(prediction[:, :, 0] - y[:, None], dtype=np.float64), seen, time_s
        )
    outputs = rng.normal(0, 1.5, (n, c))
    y = (outputs + rng.gumbel(size=(n, c))).argmax(axis=1)
    noisy = np.exp(outputs[:, None] + rng.normal(0, 1, (n, k, c)) * np.array(noise)[:, None])
    p = noisy / noisy.sum(axis=-1, keepdims=True)
    loss = -np.log(np.take_along_axis(p, y[:, None, None], axis=2)[:, :, 0])
    return ScoredLabels(y.astype(np.float32), p.astype(np.float32), loss, seen, time_s)


@cache
def accumulated(
    target: Classification | Regression,
    tasks: tuple[str, ...],
    bucket_s: float,
    options: tuple[tuple[str, Any], ...],
) -> Report:
    found = Prequential(target, NAMES, bucket_s)
    found.add(scored(target, **dict(options)))
    sums = np.arange(1.0, len(tasks) + 1)
    labels = np.full(len(tasks), 10)
    return found.report(TaskScores(list(tasks), labels, sums, sums[::-1].copy()))


def evaluation(
    target: Classification | Regression = BINARY,
    tasks: tuple[str, ...] = ("a", "b"),
    bucket_s: float = DAY_S,
    **options: Any,
) -> ReportDict:
    return accumulated(target, tasks, bucket_s, tuple(options.items())).as_dict()


def full(task: str = "user-1", **options: Any) -> Any:
    alarm = {"task": task, "time_s": START_S, "labels": 40, "loss_before": 0.6, "loss_after": None}
    return {
        "title": "Delays",
        "run": {
            "source": "flights.csv",
            "events": 2000,
            "tasks": 2,
            "seconds": 4.0,
            "finished_s": START_S,
            "command": "reptide run flights.csv",
            "machine": "2 cores",
        },
        "evaluation": evaluation(tasks=(task, "other"), **options),
        "period": {
            "reported": [START_S + 10 * DAY_S, START_S + 30 * DAY_S],
            "chosen_on": [START_S, START_S + 9 * DAY_S],
        },
        "predictors": {"baseline": "one model for all"},
        "drift": {
            "detector": "Page-Hinkley",
            "alarms": 3,
            "tasks": 1,
            "bucket_s": DAY_S,
            "buckets": [{"start_s": START_S, "alarms": 1}, {"start_s": START_S + 3 * DAY_S, "alarms": 2}],
            "latest": [alarm],
        },
        "outcomes": {"PREDICTED": 1000, "SCORED": 900, "LATE": 0},
        "rejected": [{"reason": "label is not a class", "count": 3, "first": "flights.csv:17"}],
        "stages": [{"name": "adapt", "seconds": 1.0}],
        "settings": "[model]\nhidden = [64]",
        "versions": {"torch": "2.13.0"},
    }


def least(**options: Any) -> Any:
    """Only what must be given."""
    run = {"source": "memory", "events": 10, "tasks": 1, "seconds": 0.0}
    return {"title": "Smallest", "run": run, "evaluation": evaluation(**options)}


def quiet() -> Any:
    """Every section, but nothing happened in any of them."""
    report = full()
    report["evaluation"]["tasks"] |= {
        "scored": 0,
        "gaining": 0,
        "losing": 0,
        "quantiles": {},
        "most": [],
        "least": [],
    }
    report["drift"] |= {"alarms": 0, "tasks": 0, "buckets": [], "latest": []}
    return report | {"outcomes": {}, "rejected": [], "stages": [], "versions": {}}


EVERY_REPORT = [
    full(),
    quiet(),
    least(),
    least(target=Regression(-9, 9)),
    least(target=Classification(("a", "b", "c"))),
    least(n=0),
    least(n=3, days=1),
    least(days=3 / 24, bucket_s=900.0),
    least(days=20_000),
]


@pytest.mark.parametrize("report", EVERY_REPORT)
def test_every_page_is_well_formed_and_fetches_nothing(report: Any) -> None:
    text = render(report)
    outline = Outline(text)
    assert "://" not in text
    assert "url(" not in text
    assert "@import" not in text
    assert not {"script", "link", "img", "iframe", "object"} & set(outline.seen)
    assert not [a for a in outline.attributes if a[1] in {"src", "href", "srcset"} or a[1].startswith("on")]
    assert "nan" not in text.replace("finance", "").lower().split()


@pytest.mark.parametrize("report", EVERY_REPORT)
def test_every_page_is_drawn_alike_from_its_json(report: Any) -> None:
    assert render(json.loads(json.dumps(report, allow_nan=False))) == render(report)


def test_the_page_has_each_section() -> None:
    assert Outline(render(full())).within("h2") == [
        "Predictors compared",
        "Lift over time",
        "Learning and calibration",
        "Tasks",
        "Drift alarms",
        "What became of the events",
        "Throughput",
        "Settings and versions",
    ]


def test_sections_that_were_not_given_are_left_out() -> None:
    report = least(target=Regression(-9, 9))
    report["evaluation"]["tasks"] = None
    assert Outline(render(report)).within("h2") == [
        "Predictors compared",
        "Lift over time",
        "Learning",
    ]


def test_a_quiet_run_says_so() -> None:
    text = " ".join(Outline(render(quiet())).within("p"))
    for said in (
        "No alarm was raised.",
        "No event was refused.",
        "No task gains.",
        "None of 2 tasks has a scored label",
    ):
        assert said in text


def test_a_hostile_task_id_is_shown_as_text() -> None:
    outline = Outline(render(full(task=HOSTILE)))
    assert "script" not in outline.seen
    assert HOSTILE in outline.within("span")


def test_every_text_of_a_report_is_escaped() -> None:
    report = full(task=HOSTILE)
    report["title"] = report["settings"] = report["run"]["source"] = report["run"]["command"] = HOSTILE
    report["run"]["machine"] = report["drift"]["detector"] = HOSTILE
    report["outcomes"][HOSTILE] = 1
    report["versions"] = report["predictors"] = {HOSTILE: HOSTILE}
    report["rejected"] = [{"reason": HOSTILE, "count": 1, "first": HOSTILE}]
    report["stages"] = [{"name": HOSTILE, "seconds": 1.0}]
    report["evaluation"]["classes"] = [HOSTILE, HOSTILE]
    scores = report["evaluation"]["predictors"]
    scores[HOSTILE] = scores["baseline"]
    scores["served"]["per_class"][0]["name"] = HOSTILE
    outline = Outline(render(report))
    assert not {"script", "img"} & set(outline.seen)


def test_the_figures_of_the_evaluation_are_in_the_table() -> None:
    report = full()
    served = report["evaluation"]["predictors"]["served"]
    cells = Outline(render(report)).within("td")
    assert f"{served['log_loss']:.4f}" in cells
    assert f"{served['auc']:.4f}" in cells
    assert f"{100 * served['accuracy']:.1f}%" in cells


@pytest.mark.parametrize("target", [BINARY, Regression(-9, 9)])
def test_every_expert_stands_beside_what_was_served_with_its_loss_and_what_it_is(
    target: Classification | Regression,
) -> None:
    report = least(target=target)
    outline = Outline(render(report))
    names = [text for text in outline.within("b") if text in NAMES]
    assert names == ["served", "base", "recent", "theta", "adapted", "baseline"]
    metric = "rmse" if isinstance(target, Regression) else "log_loss"
    cells = outline.within("td")
    for name in PREDICTORS:
        assert f"{report['evaluation']['predictors'][name][metric]:.4f}" in cells
        assert DESCRIPTIONS[name] in outline.within("small")


def test_every_expert_has_a_curve_of_its_own_and_a_key_to_it() -> None:
    drawn = Outline(render(full())).attributes
    classes = {value for _, name, value in drawn if name == "class"}
    assert {f"{mark} {name}" for mark in ("line", "dot", "key") for name in PREDICTORS} <= classes
    styles = (resources.files("streams.pages.kit") / "page.css").read_text(encoding="utf-8")
    for name in PREDICTORS:
        for mark in (".line", ".dot", ".key"):
            assert f"{mark}.{name}" in styles, (mark, name)


def test_a_difference_within_its_interval_is_called_a_tie() -> None:
    report = full(noise=(1.5, 1.5, 1.5, 0.5, 0.5, 0.5))
    said = Outline(render(report)).within("small")
    assert "tie" in said
    assert "served is better" in said


def difference(metric: str, low: float | None, high: float | None) -> Any:
    return {
        "predictor": "theta",
        "against": "served",
        "metric": metric,
        "value": 0.02,
        "low": low,
        "high": high,
    }


@pytest.mark.parametrize(
    ("metric", "low", "high", "expected"),
    [
        ("log_loss", 0.01, 0.03, 1),
        ("log_loss", -0.03, -0.01, -1),
        ("log_loss", -0.01, 0.03, 0),
        ("auc", 0.01, 0.03, -1),
        ("auc", -0.03, -0.01, 1),
        ("rmse", None, None, None),
    ],
)
def test_losses_are_better_low_and_auc_high(
    metric: str, low: float | None, high: float | None, expected: int | None
) -> None:
    assert standing(difference(metric, low, high)) == expected


@pytest.mark.parametrize(
    ("low", "high", "value", "said"),
    [
        (0.01, 0.03, 0.02, "the mixture lowers log loss by 0.0200 nats a label"),
        (-0.03, -0.01, -0.02, "the mixture raises log loss by 0.0200 nats a label"),
        (-0.01, 0.03, 0.02, "No lift shown: +0.0200 nats a label"),
        (None, None, 0.02, "too few days for an interval"),
        (None, None, None, "No label has been scored yet."),
    ],
)
def test_the_verdict_says_what_the_interval_allows(
    low: float | None, high: float | None, value: float | None, said: str
) -> None:
    report = evaluation()
    report["differences"] = [difference("log_loss", low, high) | {"value": value}]
    assert said in verdict(report)


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ([START_S, START_S + DAY_S], "none of those labels is counted here"),
        ([START_S, START_S + 20 * DAY_S], "the figures are optimistic"),
        (None, "No setting was chosen by labels of this stream"),
    ],
)
def test_the_page_says_which_period_settings_were_chosen_on(chosen: list[float] | None, said: str) -> None:
    report = full()
    report["period"]["chosen_on"] = chosen
    text = " ".join(Outline(render(report)).within("p"))
    assert "Reported on labels of 11 Jan to 31 Jan 2013." in text
    assert said in text


def test_a_page_that_cannot_be_written_names_the_path(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"file/report\.html: "):
        write_report(tmp_path / "file" / "report.html", least())


def test_the_page_is_written_as_utf_8(tmp_path: Path) -> None:
    report = least() | {"title": "Größe ≥ 3 · 東京"}
    write_report(tmp_path / "report.html", report)
    assert "Größe ≥ 3 · 東京" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_every_outcome_of_the_engine_is_explained() -> None:
    assert set(OUTCOMES) == {outcome.name for outcome in Outcome}


@given(st.text(), st.text())
def test_any_text_comes_back_out_of_an_element(text: str, attribute: str) -> None:
    outline = Outline(element("p", text, title=attribute))
    newlines = text.replace("\r\n", "\n").replace("\r", "\n")
    assert "".join(outline.within("p")).replace("\r\n", "\n").replace("\r", "\n") == newlines
    assert outline.attributes == [("p", "title", attribute)]


def test_what_is_markup_already_is_not_escaped_again() -> None:
    assert join((element("b", "<"), "<")) == Markup("<b>&lt;</b>&lt;")


def test_an_axis_without_extent_gets_one() -> None:
    assert [tick.text for tick in linear_axis(3.0, 3.0, "").ticks] == ["2.6", "2.8", "3", "3.2", "3.4"]


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e9))
def test_ticks_lie_on_the_axis_and_are_few(low: float, width: float) -> None:
    axis = linear_axis(low, low + width, "")
    assert all(-1e-6 <= axis.share(tick.at) <= 1 + 1e-6 for tick in axis.ticks)
    assert len(axis.ticks) <= 6


@given(st.floats(-1e10, 1e11), st.floats(60, 1e11))
def test_calendar_ticks_lie_on_the_axis_and_are_few(low: float, width: float) -> None:
    axis = time_axis(low, low + width)
    assert len(axis.ticks) <= MOST_TICKS
    assert all(0 <= axis.share(tick.at) <= 1 for tick in axis.ticks)


@pytest.mark.parametrize(
    ("days", "texts"),
    [
        (0.25, ["1 Jan", "01:00", "02:00", "03:00", "04:00", "05:00", "06:00"][::3]),
        (5, ["1 Jan", "2 Jan", "3 Jan", "4 Jan", "5 Jan", "6 Jan"]),
        (365, ["Jan 2013", "Apr", "Jul", "Oct", "Jan 2014"]),
        (3650, ["2014", "2016", "2018", "2020", "2022"]),
    ],
)
def test_calendar_ticks_fall_on_round_times(days: float, texts: list[str]) -> None:
    assert [tick.text for tick in time_axis(START_S, START_S + days * DAY_S).ticks] == texts


def test_dates_beyond_the_calendar_are_shown_as_its_last_day() -> None:
    assert date(1e300) == "31 Dec 9999"
    assert period(START_S, START_S) == "1 Jan 2013"
    assert period(START_S - 1, START_S) == "31 Dec 2012 to 1 Jan 2013"


def test_amounts_in_words() -> None:
    assert [duration(s) for s in (0.312, 42, 200, 7500)] == ["0.31 s", "42 s", "3 min 20 s", "2 h 5 min"]
    assert [percent(s) for s in (0.5, 0.0001, 0.0, None)] == ["50.0%", "<0.1%", "0.0%", "\N{EN DASH}"]
