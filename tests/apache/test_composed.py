"""The compose file's processes, with its very settings: flights come, and every panel and alert finds its series."""

from __future__ import annotations

import json
import math
import re
import shutil
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import polars as pl
import pytest

from streams.demo.table import write_flights
from tests.apache.composed_processes import DEADLINE_S, LOOK_S, Composed
from tests.deploy.composed import SERVED
from tests.docs.test_alerts import ALERTS, PANELS, SAMPLES
from tests.kafka_brokers import jars

FLIGHTS = 4000
"""Of a part; at the compose file's rate it takes a quarter of a minute."""
QUERIES = {
    f"{panel['title']} {target['refId']}": target["expr"] for panel in PANELS for target in panel["targets"]
}
NEEDED = ("prometheus", "redis-server", "redis-cli", "wget")

pytestmark = [
    pytest.mark.skipif(
        shutil.which(program) is None,
        reason=f"{program} is missing: apt-get install prometheus redis-server wget",
    )
    for program in NEEDED
]


@pytest.fixture(scope="module")
def composed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Composed]:
    """Everything but Grafana, once two parts of load were sent: at the second, theta has learned from the first."""
    jars()
    with Composed(tmp_path_factory.mktemp("composed")) as composed:
        table = composed.path("flights", "/var/lib/reptide/flights.parquet")
        write_flights(table)
        flights = pl.read_parquet(table)
        flights[:FLIGHTS].write_parquet(table)
        composed.up("flights")
        composed.up("prometheus")
        composed.healthy("prometheus")
        eventually(composed, 'reptide_trainer_rounds_total{verdict="published"} > 0')
        composed.completed("flights")
        flights[FLIGHTS : 2 * FLIGHTS].write_parquet(table)
        composed.again("flights")
        composed.completed("flights")
        flights[: 2 * FLIGHTS].write_parquet(table)
        yield composed


def ask(composed: Composed, what: str, **parameters: str) -> Any:
    """What Prometheus answers."""
    address = composed.address("prometheus", "9090")
    with urlopen(f"http://{address}/api/v1/{what}?{urlencode(parameters)}", timeout=10) as answer:
        return json.load(answer)["data"]


def values(composed: Composed, expression: str) -> list[float]:
    """What a query comes to, without what is no number."""
    found = [float(series["value"][1]) for series in ask(composed, "query", query=expression)["result"]]
    return [value for value in found if math.isfinite(value)]


def eventually(composed: Composed, expression: str) -> list[float]:
    """The same, waited for: rates begin with the second scrape."""
    deadline = time.monotonic() + DEADLINE_S
    while not (found := values(composed, expression)):
        assert time.monotonic() < deadline, f"no data for {expression}"
        time.sleep(LOOK_S)
    return found


@pytest.mark.parametrize("panel", QUERIES)
def test_every_panel_of_the_dashboard_has_data(composed: Composed, panel: str) -> None:
    assert eventually(composed, QUERIES[panel])


def test_what_was_served_is_better_than_theta_alone(composed: Composed) -> None:
    lift = QUERIES["Lift: loss of theta less loss as served A"]
    assert eventually(composed, f"({lift}) > 0")


def test_every_event_is_folded_once_and_none_is_refused(composed: Composed) -> None:
    flights = pl.read_parquet(composed.path("flights", "/var/lib/reptide/flights.parquet"))
    sent = len(flights) + flights["landed"].count()
    folded = 'sum(reptide_events_total{outcome!="duplicate"})'
    deadline = time.monotonic() + DEADLINE_S
    while values(composed, folded) != [sent]:
        assert time.monotonic() < deadline, (values(composed, folded), sent)
        time.sleep(LOOK_S)
    assert values(composed, "sum(reptide_dead_letters_total)") == [0]


def test_every_process_with_metrics_is_scraped(composed: Composed) -> None:
    assert eventually(composed, "up") == [1.0] * len(SERVED)


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_every_alert_is_evaluated_on_series_that_are_there_and_is_quiet(
    composed: Composed, alert: Any
) -> None:
    (rule,) = [rule for rule in _rules(composed) if rule["name"] == alert.name]
    assert (rule["health"], rule.get("lastError", "")) == ("ok", "")
    assert rule["state"] != "firing"
    ask(composed, "query", query=alert.expression)
    for name in {word for word in re.findall(r"\w+", alert.expression) if word in SAMPLES}:
        assert ask(composed, "query", query=name)["result"], name


def _rules(composed: Composed) -> list[dict[str, Any]]:
    """All of them, once each was evaluated."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        rules = [rule for group in ask(composed, "rules")["groups"] for rule in group["rules"]]
        if rules and all(rule["health"] != "unknown" for rule in rules):
            return rules
        assert time.monotonic() < deadline, rules
        time.sleep(LOOK_S)


def test_a_worker_that_is_gone_is_missed_and_the_other_goes_on(composed: Composed) -> None:
    gone = composed.address("worker-1", "9464")
    assert composed.stop("worker-1") == 0
    watched = 'ALERTS{alertname="ReptideWorkerDown"}'
    deadline = time.monotonic() + DEADLINE_S
    while not (found := ask(composed, "query", query=watched)["result"]):
        assert time.monotonic() < deadline
        time.sleep(LOOK_S)
    assert [series["metric"]["instance"] for series in found] == [gone]
    composed.healthy("worker-2")
