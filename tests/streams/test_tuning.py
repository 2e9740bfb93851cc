"""`reptide tune`: what it finds, what it must not look at, and that it goes on where it was stopped."""

from __future__ import annotations

import re
from io import StringIO
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from rich.console import Console

from streams.assembly import embedded, learners
from streams.cli.tuning import tune
from streams.errors import InputError, SettingsError
from streams.program.embedded import run
from streams.settings.tree import Settings, load_settings
from streams.tuning import space
from streams.tuning.comparison import Judged, gain
from streams.tuning.journal import begun
from streams.tuning.part import first_part
from streams.tuning.search import Search
from streams.tuning.space import Choice, Rate, Whole, changed, space_of, standing, tried
from streams.tuning.written import write_settings

ROWS, SHARE, TOO_SMALL = 1200, 0.5, 1e-4

SETTINGS = f"""\
# what a stream looks like
title = "Tuned"
[input]
path = "events.parquet"
task = ["task"]
time = "time"
label = "label"
label_time = "known"
[target]
classes = [0, 1]
[model]
hidden = [8]
adapts = "all"
wide = false
[history]
enabled = false
[inner]
lr = {TOO_SMALL}   # far too small
steps = 20
[memory]
pending = 8
ttl_s = 1e6
[outer]
every = 200
support_rate = 1.0
[run]
directory = "state"
[[features]]
encoder = "numeric"
name = "a"
[[features]]
encoder = "numeric"
name = "b"
"""


def events() -> pl.DataFrame:
    """Twelve tasks, each with a line of its own between two classes."""
    rng = np.random.default_rng(3)
    x, task = rng.normal(size=(ROWS, 2)), rng.integers(0, 12, ROWS)
    time = np.arange(ROWS) * 10.0
    label = (x * rng.normal(size=(12, 2))[task]).sum(1) > 0
    return pl.DataFrame(
        {
            "task": [f"t{u}" for u in task],
            "time": time,
            "known": time + rng.uniform(1, 60, ROWS),
            "label": label.astype(int),
            "a": x[:, 0],
            "b": x[:, 1],
        }
    )


def shop(folder: Path, frame: pl.DataFrame | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (events() if frame is None else frame).write_parquet(folder / "events.parquet")
    (folder / "shop.toml").write_text(SETTINGS, encoding="utf-8")
    return folder / "shop.toml"


def tuned(config: Path, trials: int, flags: tuple[str, ...] = (), out: Path | None = None) -> str:
    console = Console(file=StringIO(), soft_wrap=True, markup=False)
    assert tune(config, load_settings(config, {}, flags), flags, out, SHARE, trials, 10.0, 1, console)
    return str(console.file.getvalue())  # type: ignore[attr-defined]


SPACE = space.SPACE


@pytest.fixture(autouse=True)
def rates_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space, "SPACE", {"inner.lr": Rate(0.05, 1.0)})


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    config = shop(tmp_path_factory.mktemp("tuned"))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(space, "SPACE", {"inner.lr": Rate(0.05, 1.0)})
        return config, tuned(config, 4)


def losses(said: str) -> list[tuple[str, str]]:
    return re.findall(r"trial \d+: (.*) \(\d+ s\)(.*)", said)


@pytest.mark.long
def test_a_better_rate_is_found_and_what_it_bought_is_said_with_its_interval(found: tuple[Path, str]) -> None:
    config, said = found
    written = config.with_name("shop.tuned.toml")
    assert float(load_settings(written, {}).inner.lr) > 100 * TOO_SMALL
    told = re.search(r"stand: loss ([\d.]+)[\s\S]*trials: ([\d.]+), better by ([\d.]+) ± ([\d.]+)", said)
    assert told
    stand, best, bought, half = map(float, told.groups())
    assert bought == pytest.approx(stand - best, abs=2e-4)
    assert bought > half > 0
    assert "95% interval over 12 tasks" in said
    assert "expect somewhat less" in said


@pytest.mark.long
def test_the_first_trial_is_the_settings_as_they_stand(found: tuple[Path, str]) -> None:
    _, said = found
    assert f"inner.lr={TOO_SMALL}" in losses(said)[0][1]


@pytest.mark.long
def test_what_is_written_keeps_the_comments_and_runs(found: tuple[Path, str]) -> None:
    config, _ = found
    written = config.with_name("shop.tuned.toml")
    assert written.read_text(encoding="utf-8").startswith("# what a stream looks like")
    settings = load_settings(written, {})
    assert settings.run.directory.name == "state-tuned"
    program = embedded.embedded(settings)
    totals = run(program, lambda _: None)
    program.close()
    assert totals.scored == ROWS


@pytest.mark.long
def test_it_says_how_far_it_looked(found: tuple[Path, str]) -> None:
    config, said = found
    end = f"the first {ROWS:,} of {2 * ROWS:,} events, to {config.with_name('events.parquet')}, row "
    assert end in said
    assert "nothing after it was looked at" in said


@pytest.mark.long
def test_nothing_beyond_its_part_changes_anything(tmp_path: Path, found: tuple[Path, str]) -> None:
    config, said = found
    cut = int(2 * ROWS * SHARE)
    settings = load_settings(config, {})
    log = embedded.input_log(settings, learners.problem_of(settings), None)
    log.seek(cut - 1)
    ((last,),) = (part.records for part in log.poll(1))
    beyond = pl.col("time") > last.time
    frame = events().with_columns(
        label=pl.when(pl.col("known") > last.time).then(1 - pl.col("label")).otherwise("label"),
        a=pl.when(beyond).then(1e6).otherwise("a"),
        task=pl.when(beyond).then(pl.lit("another")).otherwise("task"),
    )
    poisoned = shop(tmp_path / "poisoned", frame)
    assert losses(tuned(poisoned, 4)) == losses(said)
    assert (
        load_settings(poisoned.with_name("shop.tuned.toml"), {}).inner
        == load_settings(config.with_name("shop.tuned.toml"), {}).inner
    )
    within = pl.when(pl.col("known") <= last.time).then(1 - pl.col("label")).otherwise("label")
    other = shop(tmp_path / "other", events().with_columns(label=within, a=pl.col("a") + 1))
    assert losses(tuned(other, 2)) != losses(said)[:2]


@pytest.mark.long
def test_a_second_start_tries_only_what_is_left(found: tuple[Path, str]) -> None:
    config, said = found
    again = tuned(config, 5)
    assert "4 trials are there from before" in again
    assert len(losses(said)) == 4
    assert len(losses(again)) == 1
    assert losses(tuned(config, 5)) == []


def test_other_settings_are_another_search(tmp_path: Path) -> None:
    config = shop(tmp_path)
    settings = load_settings(config, {})
    part = first_part(settings, SHARE)
    names = {
        Search(each, part, config.parent).name
        for each in (settings, changed(settings, {"inner.steps": 3}), changed(settings, {"hedge.share": 0.1}))
    }
    assert len(names) == 3
    assert Search(settings, first_part(settings, 0.6), config.parent).name not in names


@pytest.mark.long
def test_ctrl_c_leaves_what_was_found_to_be_used_and_gone_on_from(tmp_path: Path) -> None:
    config = shop(tmp_path)
    settings = load_settings(config, {})
    search = Search(settings, first_part(settings, SHARE), tmp_path / "kept")
    shown: list[int] = []

    def show(number: int, *_: object) -> None:
        shown.append(number)
        if len(shown) == 2:
            raise KeyboardInterrupt

    assert not search.run(search.journal(), 9, 600.0, 1, show)
    best = search.best(search.journal())
    assert best is not None
    assert best.trials == 2
    search.journal().suggest(search.space)  # a trial whose process was killed
    assert search.journal().ended() == 2
    assert search.run(search.journal(), 3, 600.0, 1, show)
    assert len(shown) == 3


def test_time_that_is_up_ends_the_search(tmp_path: Path) -> None:
    config = shop(tmp_path)
    settings = load_settings(config, {})
    search = Search(settings, first_part(settings, SHARE), tmp_path / "kept")
    assert search.run(search.journal(), 9, 0.5, 1, lambda *_: None)
    assert search.best(search.journal()) is None
    assert search.journal().ended() == 0


def test_where_nothing_is_better_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space, "SPACE", {"inner.lr": Choice((TOO_SMALL,))})
    config = shop(tmp_path, events()[:300])
    assert "nothing is written" in tuned(config, 2)
    assert not config.with_name("shop.tuned.toml").exists()


def test_a_part_too_small_to_train_in_is_refused_with_the_way_out(tmp_path: Path) -> None:
    settings = load_settings(shop(tmp_path), {})
    with pytest.raises(SettingsError, match="a larger --share"):
        first_part(settings, 0.01)


FEATURES = [{"encoder": "numeric", "name": "a"}]


def settings_of(tmp_path: Path, *flags: str) -> Settings:
    return load_settings(shop(tmp_path), {}, flags)


def test_the_range_of_every_setting_holds_the_value_that_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(space, "SPACE", {
        "inner.lr": Rate(0.05, 1.0), "memory.support": Whole(8, 16), "hedge.share": Choice((0.01,)),
        "outer.nothing": Whole(1, 2), "nowhere.at_all": Whole(1, 2),
    })  # fmt: skip
    settings = settings_of(tmp_path, "memory.support=64")
    held = space_of(settings, 1000)
    assert held == {
        "inner.lr": FloatDistribution(TOO_SMALL, 1.0, log=True),
        "memory.support": IntDistribution(8, 64, log=True),
        "hedge.share": CategoricalDistribution((0.01, 0.0)),
    }
    assert standing(settings, held) == {"inner.lr": TOO_SMALL, "memory.support": 64, "hedge.share": 0.0}


def test_a_setting_that_is_no_number_is_left_alone() -> None:
    assert Rate(0.1, 1.0).holding("auto") is None
    assert Whole(1, 2).holding(0) is None


def test_steps_are_tried_only_where_a_task_adapts_by_steps(tmp_path: Path) -> None:
    assert space_of(settings_of(tmp_path, "learner=prototype"), 1000) == {}


def test_every_default_of_classes_can_be_tried_but_for_the_step_size_and_no_share_for_a_regression(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(space, "SPACE", SPACE)
    plain = Settings.model_validate({"target": {"classes": [0, 1]}, "features": FEATURES})
    assert set(SPACE) - set(space_of(plain, 100_000)) == {"inner.lr"}
    numbers = Settings.model_validate({"target": {"low": 0, "high": 1}, "features": FEATURES})
    assert set(space_of(plain, 100_000)) - set(space_of(numbers, 100_000)) == {"hedge.share"}


def test_what_is_tried_is_what_is_written_down() -> None:
    stand = {"inner.lr": 0.123456, "outer.lr": 0.001}
    assert tried({"inner.lr": 0.123456, "outer.lr": 0.00123456}, stand) == {
        "inner.lr": 0.123456,
        "outer.lr": 0.00123,
    }


def test_the_interval_is_over_tasks_and_with_few_tasks_over_blocks_of_time() -> None:
    rng = np.random.default_rng(0)
    offset, difference = np.arange(400), rng.normal(0.5, 1, 400)
    zero = np.zeros(400)
    for tasks, over in ((40, "40 tasks"), (4, "20 blocks of time")):
        task = offset % tasks
        bought = gain(Judged(offset, difference, task), Judged(offset, zero, task))
        groups = task if tasks == 40 else offset // 20
        means = np.array([difference[groups == g].mean() for g in np.unique(groups)])
        assert bought.over == over
        assert bought.estimate.mean == pytest.approx(difference.mean())
        assert bought.estimate.error == pytest.approx(means.std(ddof=1) / len(means) ** 0.5)
        assert bought.is_beyond_chance


def test_only_labels_that_both_scored_are_compared() -> None:
    one = Judged(np.array([1, 5, 7]), np.array([1.0, 2.0, 3.0]), np.zeros(3, np.int64))
    other = Judged(np.array([5, 7, 9]), np.array([0.5, 0.5, 9.0]), np.zeros(3, np.int64))
    bought = gain(one, other)
    assert bought.labels == 2
    assert bought.estimate.mean == pytest.approx((1.5 + 2.5) / 2)


def test_a_file_written_elsewhere_finds_the_same_table_and_takes_its_flags(tmp_path: Path) -> None:
    config = shop(tmp_path / "here")
    out = tmp_path / "there" / "new.toml"
    values = {"outer.replays": 3, "hedge.share": 0.01}
    write_settings(config, out, values, load_settings(config, {}).run.directory)
    written = out.read_text(encoding="utf-8").replace("replays = 3", "")
    out.write_text(written, encoding="utf-8")
    settings = load_settings(out, {})
    assert settings.input is not None
    assert settings.input.path.resolve() == (tmp_path / "here" / "events.parquet").resolve()
    assert settings.run.directory.resolve() == (tmp_path / "here" / "state-tuned").resolve()
    assert settings.hedge.share == 0.01


@pytest.mark.parametrize("content", [b"\xff\xfe\n{}\n", b'{"op_code": 0, "wor\n{}\n', b"[]\n"])
def test_a_damaged_journal_is_named_with_the_way_out(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "journal.jsonl").write_bytes(content)
    with pytest.raises(
        InputError, match=r"journal\.jsonl is damaged .* move it away, and the search begins anew"
    ):
        begun(tmp_path / "journal.jsonl", "shop", 0)
