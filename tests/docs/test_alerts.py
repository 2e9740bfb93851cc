"""Alerts, dashboard and runbook speak of metrics that exist, with labels that exist, and of each other."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from streams.watch.metrics import METRICS, Metric

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "deploy" / "prometheus"
RUNBOOK = (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8")

FUNCTIONS = {"sum", "max", "rate", "increase", "deriv", "histogram_quantile"}
WORDS = {"by", "and", "or", "unless", "ignoring", "group_left"}
SUFFIXES = {
    "counter": ("",), "gauge": ("",), "age": ("",),
    "summary": ("_sum", "_count"), "histogram": ("_sum", "_count", "_bucket"),
}  # fmt: skip
SAMPLES: dict[str, Metric] = {m.name + suffix: m for m in METRICS for suffix in SUFFIXES[m.kind]}
GIVEN = {"le", "instance", "job"}
"""Labels that Prometheus and the exposition add."""


class Alert(NamedTuple):
    name: str
    text: str
    expression: str


def read_rules() -> list[Alert]:
    """The rules as they are written here: one block an alert, its expression indented under `expr: |`."""
    text = (PROMETHEUS / "rules.yml").read_text(encoding="utf-8")
    blocks = text.split("      - alert: ")[1:]
    expressions = [re.findall(r"^ {8}expr: \|\n((?: {10}.+\n)+)", block, re.MULTILINE) for block in blocks]
    return [
        Alert(block.split("\n")[0], block, expression)
        for block, (expression,) in zip(blocks, expressions, strict=True)
    ]


ALERTS = read_rules()
PANELS = json.loads((ROOT / "deploy" / "grafana" / "reptide.json").read_text(encoding="utf-8"))["panels"]
EXPRESSIONS = {alert.name: alert.expression for alert in ALERTS} | {
    f"{panel['title']} {target['refId']}": target["expr"] for panel in PANELS for target in panel["targets"]
}
every_alert = pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
every_expression = pytest.mark.parametrize("expression", EXPRESSIONS.values(), ids=EXPRESSIONS)


def is_balanced(expression: str) -> bool:
    """Whether every bracket, outside of text in quotes, closes the one opened last."""
    opened: list[str] = []
    for mark in re.sub(r'"[^"]*"', "", expression):
        if mark in "([{":
            opened.append({"(": ")", "[": "]", "{": "}"}[mark])
        elif mark in ')]}"' and (not opened or opened.pop() != mark):
            return False
    return not opened


@every_expression
def test_brackets_and_quotes_are_balanced(expression: str) -> None:
    assert is_balanced(expression)


@pytest.mark.parametrize("wrong", ["sum(x", "sum(x[5m)]", 'x{a="b}', "x)"])
def test_a_bracket_that_is_not_closed_would_be_seen(wrong: str) -> None:
    assert not is_balanced(wrong)


@every_expression
def test_every_word_is_a_metric_of_the_table_or_of_the_query_language(expression: str) -> None:
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]|\b(?:by|ignoring) \([^)]*\)|\boffset \w+", "", expression)
    words = set(re.findall(r"[A-Za-z_]\w*", bare))
    assert words - FUNCTIONS - WORDS <= {*SAMPLES, "up"}
    assert words & {*SAMPLES, "up"}


@every_expression
def test_every_label_matched_is_one_of_its_metric(expression: str) -> None:
    for name, matchers in re.findall(r"(\w+)\{([^}]*)\}", expression):
        for label, value in re.findall(r'(\w+)=~?"([^"]*)"', matchers):
            if name != "up":
                assert (label,) == SAMPLES[name].labels.names
                assert value in SAMPLES[name].labels.values


@every_expression
def test_every_label_grouped_by_is_one_of_a_metric_there(expression: str) -> None:
    named = [SAMPLES[word] for word in re.findall(r"\w+", expression) if word in SAMPLES]
    known = GIVEN.union(*(metric.labels.names for metric in named))
    for group in re.findall(r"\b(?:by|ignoring) \(([^)]*)\)", expression):
        assert set(group.split(", ")) <= known


@every_expression
def test_what_only_rises_is_read_as_a_rate(expression: str) -> None:
    """The value itself falls to 0 when a process starts again; of a new series, that it is above 0 may be asked."""
    is_new = re.sub(r"\((\w+) > 0 unless \1 offset \w+\)", "", expression)
    for before, word, after in re.findall(r"(\w*\(?)\b(reptide_\w+)(?:\{[^}]*\})?(\[\w+\])?", is_new):
        rises = SAMPLES[word].kind in ("counter", "summary", "histogram")
        assert rises == (before in ("rate(", "increase("))
        assert bool(after) == (before in ("rate(", "increase(", "deriv("))


@every_alert
def test_an_alert_has_a_severity_a_summary_and_its_section_of_the_runbook(alert: Alert) -> None:
    assert re.search(r"^ {10}severity: (page|ticket)$", alert.text, re.MULTILINE)
    assert re.search(r'^ {10}summary: "[A-Z{].{10,}\."$', alert.text, re.MULTILINE)
    assert f"runbook: docs/runbook.md#{alert.name.lower()}\n" in alert.text


def test_every_alert_is_seen_to_fire_and_a_step_earlier_not_to() -> None:
    """`make check-deploy` has promtool run them."""
    tests = yaml.safe_load((PROMETHEUS / "rules.test.yml").read_text(encoding="utf-8"))["tests"]
    fires = set()
    for test in tests:
        fired = {
            (one["alertname"], minutes(one["eval_time"])): "exp_alerts" in one
            for one in test["alert_rule_test"]
        }
        for name, at in [asked for asked, fires_then in fired.items() if fires_then]:
            assert fired[name, at - minutes(test["interval"])] is False
            fires.add(name)
    assert fires == {alert.name for alert in ALERTS}


def minutes(duration: str) -> int:
    return int(duration.removesuffix("m"))


def test_every_alert_has_a_section_and_every_section_an_alert() -> None:
    assert re.findall(r"^## (.+)$", RUNBOOK, re.MULTILINE) == [alert.name for alert in ALERTS]


def test_every_section_says_what_it_means_what_to_look_at_and_what_to_do() -> None:
    for section in RUNBOOK.split("\n## ")[1:]:
        assert re.findall(r"^\*\*(.+?)\.\*\* .{20,}", section, re.MULTILINE) == ["Means", "Look at", "Do"]


def test_every_metric_of_the_runbook_exists() -> None:
    names = {*SAMPLES, *(metric.name for metric in METRICS)}
    assert set(re.findall(r"reptide_\w+", RUNBOOK)) <= names


def test_every_link_within_the_runbook_leads_to_a_section() -> None:
    assert set(re.findall(r"\(#(\w+)\)", RUNBOOK)) <= {alert.name.lower() for alert in ALERTS}


def test_every_job_that_an_alert_watches_is_scraped() -> None:
    scraped = re.findall(r"job_name: (\S+)", (PROMETHEUS / "prometheus.yml").read_text(encoding="utf-8"))
    watched = set(re.findall(r'job="([^"]+)"', " ".join(EXPRESSIONS.values())))
    assert watched == set(scraped)


def test_the_scrape_configuration_loads_the_rules() -> None:
    assert "rule_files:\n  - rules.yml\n" in (PROMETHEUS / "prometheus.yml").read_text(encoding="utf-8")
