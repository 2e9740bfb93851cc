"""`reptide.Online`: what it serves is what `reptide run` serves, one event or many at a time, saved or not."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from torch import nn

import reptide
from engine.features.columns import Column
from reptide import Category, Classification, EngineError, Numeric, Online, Regression, ReptideError
from reptide.predictions import Probabilities
from streams.assembly.embedded import embedded
from streams.pages.run.evaluation import scores_of
from streams.program.embedded import run
from streams.settings.tree import load_settings

BEGIN_S = 1_700_000_000.0
LABELS_AFTER_S = 90.0
COLUMNS: list[Column] = [Numeric("amount"), Category("country")]
BOUGHT = Classification(("no", "yes"))

SETTINGS = """
[input]
path = "visits.parquet"
task = ["user"]
time = "at"
label = "bought"
label_time = "known"
id = "visit"
[target]
classes = ["no", "yes"]
[[features]]
encoder = "numeric"
name = "amount"
[[features]]
encoder = "category"
name = "country"
[outer]
every = 128
"""


def visits(rows: int = 400, tasks: int = 7) -> pl.DataFrame:
    """Visits a minute apart, labels known a minute and a half later; users differ in what makes them buy."""
    drawn = np.random.default_rng(5)
    user, amount = drawn.integers(0, tasks, rows), drawn.normal(size=rows)
    at = BEGIN_S + 60.0 * np.arange(rows)
    return pl.DataFrame(
        {
            "user": [f"u{n}" for n in user],
            "visit": [f"v{n}" for n in range(rows)],
            "at": at,
            "amount": amount,
            "country": [("nl", "de", "fr")[n] for n in drawn.integers(0, 3, rows)],
            "bought": np.where(amount * np.where(user % 2, 1, -1) > 0, "yes", "no"),
            "known": at + LABELS_AFTER_S,
        }
    )


def in_order(frame: pl.DataFrame) -> list[tuple[str, dict[str, Any]]]:
    """What happens, one after the other: each visit, and each label when it is known."""
    rows = frame.to_dicts()
    moments = [(row["at"], 1, "visit", row) for row in rows] + [
        (row["known"], 0, "label", row) for row in rows
    ]
    return [(what, row) for _, _, what, row in sorted(moments, key=lambda moment: moment[:2])]


def streamed(model: Online, events: list[tuple[str, dict[str, Any]]]) -> list[float]:
    """The probabilities of `yes` that were served."""
    served = []
    for what, row in events:
        if what == "visit":
            prediction = model.predict_one(row["user"], row, id=row["visit"], at=row["at"])
            assert isinstance(prediction, Probabilities)
            served.append(prediction["yes"])
        else:
            model.learn_one(row["user"], row["bought"], id=row["visit"], at=row["known"])
    return served


def online(**settings: Any) -> Online:
    return Online(COLUMNS, BOUGHT, settings={"outer.every": 128, **settings})


def test_what_is_served_is_what_a_run_of_the_same_events_serves(tmp_path: Path) -> None:
    frame = visits()
    frame.write_parquet(tmp_path / "visits.parquet")
    (tmp_path / "shop.toml").write_text(SETTINGS)
    program = embedded(load_settings(tmp_path / "shop.toml", {}))
    run(program, lambda progress: None)
    (scores,) = scores_of(program.outputs["scores"], program.engine.spec.problem.target)
    program.close()
    model = online()
    streamed(model, in_order(frame))
    assert model.report().version == program.trainer.store.current() > 3
    assert model.report().outcomes["scored"] == len(scores.labels.loss) == len(frame)
    means = scores.labels.loss.mean(axis=0)
    assert list(model.report().loss.values()) == pytest.approx(means.tolist(), abs=1e-6)


def test_many_at_once_are_served_what_one_after_the_other_is() -> None:
    frame = visits(300)
    one, many = online(), online()
    for start in range(0, len(frame), 50):
        part = frame[start : start + 50]
        each = [one.predict_one(r["user"], r, id=r["visit"], at=r["at"]) for r in part.iter_rows(named=True)]
        assert each == many.predict_many(part, task="user", id="visit", at="at")
        learned = [
            one.learn_one(r["user"], r["bought"], x=r, id=r["visit"], at=r["known"])
            for r in part.iter_rows(named=True)
        ]
        at_once = many.learn_many(part.to_dicts(), task="user", label="bought", id="visit", at="known")
        assert [told.loss for told in learned] == [told.loss for told in at_once]


def test_a_saved_model_goes_on_bit_for_bit(tmp_path: Path) -> None:
    events = in_order(visits())
    whole, first = online(), online()
    served = streamed(whole, events)
    before = streamed(first, events[:333])
    first.save(tmp_path / "shop")
    after = streamed(Online.load(tmp_path / "shop"), events[333:])
    assert before + after == served


def test_a_prediction_says_where_it_comes_from() -> None:
    model = online()
    streamed(model, in_order(visits()))
    served = model.predict_one("u1", {"amount": 2.0, "country": "nl"}, id="new", at=BEGIN_S + 1e6)
    assert isinstance(served, Probabilities)
    assert served.keys() == {"no", "yes"}
    assert sum(served.values()) == pytest.approx(1)
    assert served.likeliest == max(served, key=served.__getitem__)
    assert served.id == "new"
    assert served.version == model.report().version
    assert 0 <= served.weight <= 1
    for expert in (served.base, served.recent, served.theta, served.adapted):
        assert sum(expert.values()) == pytest.approx(1)


def test_without_an_id_the_prediction_names_one_that_its_label_carries() -> None:
    model = online()
    served = model.predict_one("ann", {"amount": 1, "country": "nl"})
    assert model.learn_one("ann", "yes", id=served.id).outcome == "scored"
    assert model.learn_one("ann", "yes", id=served.id).outcome == "repeated_label"
    assert model.learn_one("ann", "no", id=served.id).outcome == "corrected"


def test_a_label_with_features_and_no_prediction_before_is_learned_from() -> None:
    model = online()
    learned = model.learn_one("ann", "yes", x={"amount": 1, "country": "nl"})
    assert learned.outcome == "example"
    assert np.isnan(learned.loss)
    assert model.report().outcomes["example"] == 1


def test_a_number_is_served_where_the_target_is_one() -> None:
    model = Online([Numeric("amount")], Regression(0.0, 10.0))
    served = model.predict_one("ann", {"amount": 1}, at=1.0)
    assert isinstance(served, float)
    assert 0 <= served <= 10
    assert model.learn_one("ann", 4.0, id=served.id, at=2.0).loss == pytest.approx((served - 4.0) ** 2)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda m: m.predict_one("ann", {"country": "nl"}), "field 'amount' is missing"),
        (
            lambda m: m.predict_one("ann", {"amount": "many", "country": "nl"}),
            "expected a number, got 'many'",
        ),
        (lambda m: m.predict_one(None, {"amount": 1, "country": "nl"}), "no task"),
        (lambda m: m.predict_one("ann", {"amount": 1, "country": "nl"}, at="soon"), "bad_time"),
        (lambda m: m.learn_one("ann", "yes"), "give id or x"),
        (lambda m: m.learn_one("ann", "perhaps", id="v1"), "is none of"),
        (
            lambda m: m.predict_many([{"user": "ann"}], task="who"),
            "there is no field 'who'; there are 'user'",
        ),
        (lambda m: m.predict_many(["ann"], task="who"), "expected a frame of polars or pandas, or dicts"),
    ],
)
def test_what_cannot_be_used_is_said_and_changes_nothing(call: Callable[..., Any], said: str) -> None:
    model = online()
    with pytest.raises(EngineError, match=said):
        call(model)
    assert model.position == 0
    assert sum(model.report().outcomes.values()) == 0


def test_one_row_of_many_that_cannot_be_used_leaves_all_of_them_out() -> None:
    model = online()
    rows = [{"user": "ann", "amount": 1, "country": "nl"}, {"user": "bob", "amount": None, "country": "nl"}]
    with pytest.raises(EngineError, match="'bob'"):
        model.predict_many(rows, task="user")
    assert model.position == 0


def test_an_id_that_has_its_label_is_not_served_again() -> None:
    model = online()
    x = {"amount": 1, "country": "nl"}
    first = model.predict_one("ann", x, id="v1", at=1.0)
    assert model.predict_one("ann", x, id="v1", at=2.0) == first
    model.learn_one("ann", "yes", id="v1", at=3.0)
    with pytest.raises(EngineError, match="an id of its own"):
        model.predict_one("ann", x, id="v1", at=4.0)


def test_a_setting_that_is_none_is_refused_by_its_path() -> None:
    with pytest.raises(ReptideError, match=r"outer\.evry"):
        online(**{"outer.evry": 3})


def test_a_saved_model_that_was_damaged_is_refused(tmp_path: Path) -> None:
    model = online()
    model.predict_one("ann", {"amount": 1, "country": "nl"})
    model.save(tmp_path / "shop")
    with pytest.raises(ReptideError, match="save to a new folder"):
        model.save(tmp_path / "shop")
    content = (tmp_path / "shop" / "rows").read_bytes()
    (tmp_path / "shop" / "rows").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ReptideError, match="damaged: rows is not what was written"):
        Online.load(tmp_path / "shop")


def own_network(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, 8), nn.Tanh(), nn.Linear(8, outputs))


def test_a_network_of_ones_own_is_saved_by_name_or_refused(tmp_path: Path) -> None:
    model = Online(COLUMNS, BOUGHT, network=own_network)
    streamed(model, in_order(visits(100)))
    model.save(tmp_path / "named")
    x = {"amount": 1, "country": "nl"}
    loaded = Online.load(tmp_path / "named")
    assert loaded.predict_one("u1", x, at=BEGIN_S + 1e6) == model.predict_one("u1", x, at=BEGIN_S + 1e6)
    unnamed = Online(COLUMNS, BOUGHT, network=lambda inputs, outputs: own_network(inputs, outputs))
    with pytest.raises(ReptideError, match="by `def`"):
        unnamed.save(tmp_path / "unnamed")


def test_importing_the_package_imports_nothing_that_is_slow() -> None:
    code = "import sys, reptide; assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_name_of_the_package_is_there() -> None:
    for name in reptide.__all__:
        assert getattr(reptide, name).__name__ == name
    with pytest.raises(AttributeError, match=r"no attribute 'Offline'; it has Adapted, Category"):
        reptide.Offline  # noqa: B018
