"""The chart as it is written: its values are those of its schema, and what it says of settings is so."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from streams.settings.places import Kafka, Run, Service
from tests.deploy.command_line import ROOT, command_of, example, not_settings, settings_of

CHART = ROOT / "deploy/helm/reptide"
WRITTEN = (CHART / "values.yaml").read_text(encoding="utf-8")
VALUES = yaml.safe_load(WRITTEN)
SCHEMA = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
README = (ROOT / "deploy/README.md").read_text(encoding="utf-8")
TEXTS = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in [*CHART.rglob("*.*"), ROOT / "deploy/README.md", ROOT / "deploy/docker/Dockerfile"]
}


def names(values: dict[str, Any], schema: dict[str, Any], at: str = "") -> tuple[set[str], set[str]]:
    """The paths of all values, and of all that the schema knows."""
    given, known = set(), set()
    for name in values.keys() | schema.get("properties", {}).keys() - {"global"}:
        path, inner = f"{at}{name}", schema.get("properties", {}).get(name, {})
        given |= {path} & {f"{at}{key}" for key in values}
        known |= {path} & {f"{at}{key}" for key in schema.get("properties", {})}
        if "properties" in inner:
            more = names(values.get(name, {}), inner, f"{path}.")
            given, known = given | more[0], known | more[1]
    return given, known


def test_the_schema_knows_every_value_and_no_other() -> None:
    given, known = names(VALUES, SCHEMA)
    assert given == known


def test_every_group_of_values_is_described() -> None:
    for name in VALUES:
        assert WRITTEN.split(f"\n{name}:")[0].splitlines()[-1].startswith("#"), name


@pytest.mark.parametrize("name", TEXTS)
def test_every_variable_that_it_names_is_a_setting(name: str) -> None:
    variables = set(re.findall(r"REPTIDE_[A-Z]+__[A-Z_]+\b", TEXTS[name])) - {"REPTIDE_SECTION__NAME"}
    assert not_settings(dict.fromkeys(variables, "0")) == []


def test_the_example_of_a_settings_file_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of(example(), {}, tmp_path, monkeypatch)
    assert settings.kafka is not None
    assert settings.redis is not None


def test_the_defaults_that_it_speaks_of_are_those_of_the_settings() -> None:
    assert f"run.batch ({Run().batch:,})" in WRITTEN
    assert f"service.ready_lag ({Service().ready_lag:,})" in WRITTEN
    assert VALUES["keda"]["lagThreshold"] < Service().ready_lag
    assert VALUES["keda"]["maxReplicas"] == VALUES["topics"]["partitions"]
    assert VALUES["worker"]["terminationGracePeriodSeconds"] > Kafka(bootstrap=("k:1",)).session_timeout_s


def test_every_command_of_the_readme_is_one() -> None:
    lines = "".join(re.findall(r"```sh\n(.*?)```", README, re.DOTALL)).splitlines()
    started = [re.search(r"(?:exec .* -- reptide|run .* reptide:\S+) (.+)$", line) for line in lines]
    commands = [command_of(match[1].split()) for match in started if match]
    assert {("worker",), ("trainer",), ("topics", "check"), ("tail",)} == set(commands)


@pytest.mark.parametrize(
    "wrong", ["wroker reptide.toml", "worker --partitions 2 reptide.toml", "topics create"]
)
def test_a_command_that_is_none_would_be_seen(wrong: str) -> None:
    with pytest.raises(AssertionError, match=wrong.split()[0]):
        command_of(wrong.split())


def test_a_variable_that_is_none_would_be_seen() -> None:
    assert not_settings({"REPTIDE_SERVICE__PROT": "1", "REPTIDE_SERVICE__PORT": "1"}) == [
        "REPTIDE_SERVICE__PROT"
    ]
