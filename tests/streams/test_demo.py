"""What the demonstration says at its end: a table that fits a terminal, and one sentence with the next step."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
from rich.console import Console

from streams.assembly.learners import LEARNERS, learner, problem_of
from streams.demo.embedded import REPORTED, comparison, flight_settings, outcome

PREDICTORS = (*REPORTED, "embedded")


def evaluation(low: float | None = -0.2860, high: float | None = -0.2317) -> Any:
    """Every predictor with that interval beside what was served; figures as wide as the flights have them."""
    gaps = [
        {"predictor": name, "against": "served", "metric": metric, "value": -0.2622, "low": low, "high": high}
        for name in PREDICTORS[1:]
        for metric in ("log_loss", "auc")
    ]
    scores = {name: {"log_loss": 0.4725, "auc": 0.7580} for name in PREDICTORS}
    return {
        "target": "binary",
        "labels": 249_504,
        "predictors": scores | {"theta": {"log_loss": 0.4946, "auc": 0.7321}},
        "differences": gaps,
    }


def printed(found: Any) -> list[str]:
    """The lines that a terminal of 80 columns shows."""
    console = Console(width=80)
    with console.capture() as capture:
        console.print(comparison(found, PREDICTORS))
    return capture.get().splitlines()


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (-0.2860, -0.2317, "\N{MINUS SIGN}0.2860 to \N{MINUS SIGN}0.2317 "),
        (-0.2860, 0.0317, "\N{MINUS SIGN}0.2860 to +0.0317, tie "),
    ],
)
def test_each_predictor_has_one_whole_line_a_metric_in_80_columns(low: float, high: float, said: str) -> None:
    lines = printed(evaluation(low, high))
    assert max(map(len, lines)) <= 80
    for name in PREDICTORS[1:]:
        rows = [line for line in lines if f" {name} " in line]
        assert len(rows) == 2, "log loss and AUC"
        for row in rows:
            assert said in row
            assert "\N{MINUS SIGN}0.2622 " in row
    assert len(lines) == 2 * len(PREDICTORS) + 6, "title, head and rules; no line more"


def test_without_an_interval_no_difference_is_shown() -> None:
    assert not any("0.2622" in line for line in printed(evaluation(None, None)))


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.0181, 0.0264, "0.4725, better than the 0.4946 of the shared model alone"),
        (-0.0181, 0.0264, "0.4725, a tie with the 0.4946"),
        (-0.0264, -0.0181, "0.4725, worse than the 0.4946"),
        (None, None, "0.4725, beside the 0.4946"),
    ],
)
def test_the_last_sentence_claims_what_the_interval_allows(
    low: float | None, high: float | None, said: str
) -> None:
    sentence = outcome(evaluation(low, high), Path("demo/report.html"))
    assert said in sentence
    assert "Open demo/report.html" in sentence
    assert "`reptide run`" in sentence


@pytest.mark.parametrize("name", sorted(LEARNERS))
def test_the_flights_may_be_served_by_any_learner(name: str, tmp_path: Path) -> None:
    settings = flight_settings(tmp_path, "ours", flags=[f"learner={name}"])
    assert isinstance(learner(settings, problem_of(settings)), cast(type, LEARNERS[name]))
