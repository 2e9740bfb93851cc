"""Detectors, learners and columns of one's own, by import string: what the settings may name, and what is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.checks.promises import CheckFailed
from engine.checks.suite import promises_kept
from engine.features.columns import Encoded, Numeric
from engine.learners.base import TakesSteps
from engine.learners.gradient import GradientLearner
from engine.learners.prototype import PrototypeLearner
from engine.types import EngineError
from reptide import Classification, Online
from streams.assembly import learners, parts
from streams.errors import SettingsError
from streams.settings.tree import Settings, load_settings
from tests.faults.shop import run_to_the_end, shop

HERE = "tests.streams.test_plug_ins"
DOCUMENT = Path(__file__).parents[2] / "docs/your-model.md"


class Often:
    """A detector: an alarm at every `every`-th label."""

    width = 1

    def __init__(self, every: int = 5) -> None:
        if every < 1:
            raise ValueError("every must be positive")
        self.every = every

    def update(self, state: Any, losses: Any) -> Any:
        state += 1
        alarms = state[:, 0] >= self.every
        state[alarms] = 0
        return alarms


class Forgetful(Often):
    """Breaks a promise: it keeps its count beside the state."""

    count = 0

    def update(self, state: Any, losses: Any) -> Any:
        self.count += 1
        return np.full(len(losses), self.count % 7 == 0)


class Short(PrototypeLearner):
    """A learner: as one of ours, embedded in four numbers."""

    def __init__(self, problem: Any) -> None:
        super().__init__(problem, 4)


class Stepping(GradientLearner):
    """A learner that takes steps."""


class Refusing(Short):
    """A learner that is not for these tasks."""

    def __init__(self, problem: Any) -> None:
        raise EngineError("it needs three classes")


class Growing(Short):
    """Breaks a promise: padding leaves a trace."""

    def fast_of(self, meta: Any, support: Any) -> Any:
        fast = super().fast_of(meta, support)
        return {"sums": fast["sums"], "counts": fast["counts"] + support.y.sum(1, keepdim=True)}


@dataclass(frozen=True)
class Times:
    """A column: a number, multiplied."""

    name: str
    by: float = 2.0
    width = 1

    def encode(self, values: Sequence[Any]) -> Encoded:
        x, faults = Numeric(self.name).encode(values)
        return Encoded(x * np.float32(self.by), faults)


class Root(Numeric):
    """Breaks a promise: the root of a negative number is NaN."""

    def encode(self, values: Sequence[Any]) -> Encoded:
        x, faults = super().encode(values)
        with np.errstate(invalid="ignore"):
            return Encoded(np.sqrt(x), faults)


class Undeclared(Often):
    """A column that is no dataclass."""

    encode = None

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name


def feature(encoder: str, **options: Any) -> str:
    return "features=" + json.dumps([{"encoder": encoder, "name": "a", **options}])


def settings(folder: Path, *flags: str) -> Settings:
    shop(folder, 60)
    return load_settings(folder / "shop.toml", {}, ["drift.options={}", *flags])


def test_a_detector_is_made_with_its_options(tmp_path: Path) -> None:
    options = [f"drift.detector={HERE}:Often", 'drift.options={"every": 3}']
    made = parts.stream_spec(settings(tmp_path, *options)).detector
    assert (type(made).__name__, vars(made)) == ("Often", {"every": 3})


def test_a_learner_is_made_of_the_problem(tmp_path: Path) -> None:
    own = settings(tmp_path, f"learner={HERE}:Short")
    made = learners.learner(own, learners.problem_of(own))
    assert (type(made).__name__, made.fast_shapes["sums"], made.problem.wide) == ("Short", (2, 4), False)


def test_a_learner_of_ones_own_that_takes_steps_goes_with_a_rule_that_is_made_of_them(tmp_path: Path) -> None:
    own = settings(tmp_path, f"learner={HERE}:Stepping", "outer.rule=reptile")
    assert isinstance(learners.learner(own, learners.problem_of(own)), TakesSteps)


def test_a_column_is_made_with_the_other_keys_of_its_feature(tmp_path: Path) -> None:
    made = learners.problem_of(settings(tmp_path, feature(f"{HERE}:Times", by=3.0))).features
    assert made.encode([{"a": 2}, {"a": "two"}]).x.tolist() == [[6.0], [0.0]]
    assert made.schema() == [{"encoder": "Times", "name": "a", "by": 3.0}]


def test_a_column_given_in_python_has_an_import_string_or_is_refused() -> None:
    assert learners.encoder_of(Times("a")) == f"{Times.__module__}:Times"
    with pytest.raises(
        SettingsError, match="field 'a': no encoder is a Undeclared; for a column of your own"
    ):
        learners.encoder_of(Undeclared("a"))  # type: ignore[arg-type]


def test_check_runs_the_conformance_checks_of_each(tmp_path: Path) -> None:
    own = settings(tmp_path, f"learner={HERE}:Short", f"drift.detector={HERE}:Often")
    spec = parts.stream_spec(own)
    kept = list(promises_kept(spec, learners.learner(own, spec.problem)))
    assert {"tasks_do_not_share_a_detector", "padding_with_weight_zero_changes_nothing"} <= set(kept)


def test_the_programs_of_the_document_keep_every_promise_and_run_in_a_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "my_shop"
    package.mkdir()
    for block in re.findall(r"```python\n(# my_shop/(\w+\.py)\n.*?)```", DOCUMENT.read_text(), re.DOTALL):
        (package / block[1]).write_text(block[0])
        lines = [
            line for line in block[0].splitlines() if line and not line.lstrip().startswith(("#", '"""'))
        ]
        assert len(lines) <= 15
        assert len([line for line in lines if line.startswith(("import ", "from "))]) <= 3
    monkeypatch.syspath_prepend(tmp_path)
    own = settings(tmp_path, "learner=my_shop.learners:Means", "drift.detector=my_shop.drift:Jump",
                   feature("my_shop.columns:Log"))  # fmt: skip
    spec = parts.stream_spec(own)
    assert list(promises_kept(spec, learners.learner(own, spec.problem)))
    assert run_to_the_end(own).rows
    columns = [import_module("my_shop.columns").Log("a")]
    Online(columns, Classification(("x", "y"))).save(tmp_path / "saved")
    assert Online.load(tmp_path / "saved").engine.spec.problem.features.columns == tuple(columns)


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        (f"drift.detector={HERE}:Forgetful", "the same losses raised other alarms the second time"),
        (feature(f"{HERE}:Root"), r"fields \['a'\] are encoded as numbers that no row may hold"),
        (f"learner={HERE}:Growing", "examples of weight 0 change what a task adapts to"),
    ],
)
def test_a_stream_refuses_what_breaks_a_promise_before_its_first_event(
    tmp_path: Path, flag: str, said: str
) -> None:
    own = settings(tmp_path, flag)
    with pytest.raises(CheckFailed, match=said):
        spec = parts.stream_spec(own)
        parts.stream_engine(own, spec, learners.learner(own, spec.problem))


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["drift.detector=often"], "drift.detector: no 'often'; there are page_hinkley, periodic, never, river.NAME, "
         "and your own as module:class"),
        (["drift.detector=nowhere:Often"], "drift.detector: cannot import 'nowhere:Often': No module named"),
        ([f"drift.detector={HERE}:Seldom"], f"drift.detector: cannot import '{HERE}:Seldom': module"),
        ([f"drift.detector={HERE}:HERE"], f"'{HERE}:HERE' must be `module:name`, a function or a class"),
        ([f"drift.detector={HERE}:Often", 'drift.options={"evry": 3}'],
         f"drift.detector: '{HERE}:Often' does not take drift.options = {{'evry': 3}}: "),
        ([f"drift.detector={HERE}:Often", 'drift.options={"every": 0}'], "every must be positive"),
        (["drift.detector=builtins:dict"], "makes a dict without width; it needs width, update: see docs"),
        (["learner=nowhere:Short"], "learner: cannot import 'nowhere:Short': No module named"),
        ([f"learner={HERE}:Refusing"], f"learner: '{HERE}:Refusing' refuses: it needs three classes"),
        ([f"learner={HERE}:settings"], "settings' cannot be made: "),
        (["learner=builtins:repr"], "makes a str without problem, fast_shapes, learned, init, adapt, adapt_"),
        ([f"learner={HERE}:Short", "outer.rule=reptile"], "outer.rule: 'reptile' moves theta by inner"),
        ([feature("nowhere:Times")], "features: field 'a': cannot import 'nowhere:Times': No module named"),
        ([feature(f"{HERE}:Times", bye=1)], "Times' does not take the options = {'name': 'a', 'bye': 1}: "),
        ([feature(f"{HERE}:Undeclared")], "must be a dataclass whose fields are texts, numbers or lists"),
        ([feature("builtins:dict")], "makes a dict without name, width, encode"),
        (["learner=often"], 'learner: takes "gradient" or "prototype" or "matching" or "memory" or "snail" or '
         '"transformer" or text that matches ^[\\w.]+:[\\w.]+$, got "often"'),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_one_sentence_that_names_the_setting(
    tmp_path: Path, flags: list[str], said: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        own = settings(tmp_path, *flags)
        learners.learner(own, parts.stream_spec(own).problem)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
