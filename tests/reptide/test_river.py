"""River's own evaluation runs on the adapters, and finds what the record of the model itself says."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from river import datasets, evaluate, metrics

from reptide import Classification, Numeric, OnlineClassifier, OnlineRegressor, Regression

FIELDS = ("empty_server_form_handler", "popup_window", "https")


def phishing(rows: int = 300) -> list[tuple[dict[str, Any], bool]]:
    """A data set that river ships, of three tenants, a second apart."""
    return [
        ({**x, "tenant": n % 3, "at": dt.datetime.fromtimestamp(n, dt.UTC)}, y)
        for n, (x, y) in enumerate(datasets.Phishing().take(rows))
    ]


def classifier() -> OnlineClassifier:
    return OnlineClassifier(
        [Numeric(name) for name in FIELDS], Classification((False, True)), task="tenant", time="at",
        settings={"outer.every": 128},
    )  # fmt: skip


@pytest.mark.parametrize("delay", [None, dt.timedelta(seconds=5)])
def test_progressive_validation_finds_what_the_model_records(delay: dt.timedelta | None) -> None:
    model = classifier()
    found = evaluate.progressive_val_score(
        phishing(), model, metrics.LogLoss(), moment="at" if delay else None, delay=delay
    )
    report = model.online.report()
    assert report.outcomes["scored"] == 300
    assert found.get() == pytest.approx(report.loss["served"], abs=1e-6)
    assert report.loss["served"] < report.loss["base"]


def test_observations_of_the_same_fields_have_a_label_each() -> None:
    model, x = classifier(), phishing(1)[0][0]
    for y in (True, False):
        model.predict_proba_one(x)
        model.predict_proba_one(x)
        model.learn_one(x, y)
        model.learn_one(x, y)
    assert model.online.report().outcomes["scored"] == 4
    model.learn_one(x, True)
    assert model.online.report().outcomes["example"] == 1


def test_a_regressor_is_evaluated_too() -> None:
    model = OnlineRegressor([Numeric("clouds"), Numeric("humidity")], Regression(0.0, 100.0), task="station")
    pairs = [
        ({"clouds": n % 7, "humidity": n % 5, "station": n % 2}, float(10 * (n % 2) + n % 7))
        for n in range(120)
    ]
    found = evaluate.progressive_val_score(pairs, model, metrics.MSE())
    assert found.get() == pytest.approx(model.online.report().loss["served"], rel=1e-5)
