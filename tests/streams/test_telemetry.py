"""What an operator sees: real expositions, scraped from the real server and read by Prometheus' own parser."""

from __future__ import annotations

import math
import re
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from engine.stream.scan_arrays import blank_results
from engine.types import PREDICTORS, Outcome, Outcomes
from streams.errors import SettingsError, StoreError, Unavailable
from streams.events import reading
from streams.stores.base import Swap
from streams.watch.health import CLIENT_TIMEOUT_S, Health, HealthServer
from streams.watch.metrics import METRICS, OTHER, REASONS, Metric
from streams.watch.telemetry import Telemetry

UNITS = ("_total", "_seconds", "_bytes", "_ratio", "_events", "_tasks", "_loss", "_version")
"""Base units; where there is none, the thing counted. A loss is in the stream spec's own unit."""


def outcomes(codes: list[Outcome], **columns: Any) -> Outcomes:
    blank = blank_results(len(codes), 2, 3)._asdict() | {"adapted": np.zeros(len(codes), np.bool_)}
    return Outcomes(**(blank | {"code": np.array(codes, np.uint8)} | columns))


def samples(exposition: bytes) -> dict[str, float]:
    """Every sample, by name and labels as they are written."""
    return {
        sample.name
        + "".join(f" {name}={value}" for name, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(exposition.decode())
        for sample in family.samples
    }


def seen(telemetry: Telemetry) -> dict[str, float]:
    return samples(telemetry.exposition())


def buckets(telemetry: Telemetry, name: str) -> dict[float, float]:
    found = {key: value for key, value in seen(telemetry).items() if key.startswith(f"{name}_bucket le=")}
    return {float(key.rpartition("=")[2]): value for key, value in found.items()}


class TestTheTable:
    @pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
    def test_a_metric_has_the_prefix_a_help_text_and_a_base_unit(self, metric: Metric) -> None:
        assert metric.name.startswith("reptide_")
        assert metric.name.endswith(UNITS)
        assert re.fullmatch(r"[A-Z].{8,}\.", metric.help)

    @pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
    def test_total_is_the_suffix_of_counters_alone(self, metric: Metric) -> None:
        assert metric.name.endswith("_total") == (metric.kind == "counter")

    def test_no_label_grows_with_the_tasks(self) -> None:
        open_labels = {name for m in METRICS if not m.labels.values for name in m.labels.names}
        assert open_labels == {"topic", "partition"}

    @pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
    def test_buckets_are_those_of_a_histogram_and_rise(self, metric: Metric) -> None:
        assert bool(metric.buckets) == (metric.kind == "histogram")
        assert list(metric.buckets) == sorted(set(metric.buckets))

    def test_names_are_unique(self) -> None:
        assert len({metric.name for metric in METRICS}) == len(METRICS)

    def test_every_reason_that_the_wire_gives_has_a_series(self) -> None:
        given_there = set(re.findall(r" {4}([a-z_]+)  +\S", reading.__doc__))
        assert given_there == set(REASONS) - {OTHER}

    def test_help_and_kind_are_what_a_scrape_gets(self) -> None:
        families = {f.name: f for f in text_string_to_metric_families(Telemetry().exposition().decode())}
        for metric in METRICS:
            family = families[metric.name.removesuffix("_total")]
            assert family.documentation == metric.help
            assert family.type == ("gauge" if metric.kind == "age" else metric.kind)


class TestCounting:
    def test_everything_that_rises_begins_at_zero(self) -> None:
        first = seen(Telemetry())
        assert first["reptide_events_total outcome=scored"] == 0
        assert first["reptide_dead_letters_total reason=malformed"] == 0
        assert first["reptide_event_age_seconds_count"] == 0
        assert first["reptide_store_seconds_count operation=adopt"] == 0

    def test_events_are_counted_by_what_became_of_them(self) -> None:
        telemetry = Telemetry()
        codes = [Outcome.PREDICTED, Outcome.PREDICTED, Outcome.LATE, Outcome.DUPLICATE]
        for _ in range(2):
            telemetry.folded(outcomes(codes), np.full(4, math.nan), 0)
        counted = {key.rpartition("=")[2]: n for key, n in seen(telemetry).items() if "events_total" in key}
        assert {outcome: n for outcome, n in counted.items() if n} == {
            "predicted": 4, "late": 2, "duplicate": 2,
        }  # fmt: skip

    def test_alarms_expiries_and_what_was_not_finite_are_summed(self) -> None:
        telemetry = Telemetry()
        codes = [Outcome.PREDICTED] * 3
        columns = {"alarm": np.array([True, False, True]), "expired": np.array([0, 2, 3])}
        telemetry.folded(outcomes(codes, **columns), np.full(3, 0.5), 7)
        now = seen(telemetry)
        assert now["reptide_drift_alarms_total"] == 2
        assert now["reptide_observations_expired_total"] == 5
        assert now["reptide_not_finite_total"] == 7

    def test_lift_is_the_difference_of_two_mean_losses_over_scored_labels_alone(self) -> None:
        telemetry = Telemetry()
        loss = np.array([[1.1, 0.9, 0.9, 0.3, 0.4], [9.0] * 5, [0.9, 0.7, 0.5, 0.7, 0.6]])
        codes = [Outcome.SCORED, Outcome.ORPHAN, Outcome.SCORED]
        telemetry.folded(outcomes(codes, loss=loss), np.full(3, math.nan), 0)
        now = seen(telemetry)
        mean = {
            name: now[f"reptide_prediction_loss_sum predictor={name}"]
            / now[f"reptide_prediction_loss_count predictor={name}"]
            for name in PREDICTORS
        }
        expected = {"base": 1.0, "recent": 0.8, "theta": 0.7, "adapted": 0.5, "served": 0.5}
        assert mean == pytest.approx(expected)
        assert mean["theta"] - mean["served"] == pytest.approx(0.2)

    def test_label_delay_and_weight_leave_out_events_that_have_none(self) -> None:
        telemetry = Telemetry()
        codes = [Outcome.SCORED, Outcome.PREDICTED]
        waited, weight = np.array([90.0, math.nan]), np.array([math.nan, 0.25])
        telemetry.folded(outcomes(codes, waited_s=waited, loss=np.ones((2, 5))), weight, 0)
        assert buckets(telemetry, "reptide_label_delay_seconds")[60] == 0
        assert buckets(telemetry, "reptide_label_delay_seconds")[600] == 1
        assert seen(telemetry)["reptide_adapted_weight_ratio_count"] == 1
        assert seen(telemetry)["reptide_adapted_weight_ratio_sum"] == 0.25

    def test_no_event_is_younger_than_0_where_the_clock_of_this_machine_is_behind(self) -> None:
        telemetry = Telemetry()
        telemetry.batch(0.1, 3, np.array([-3600.0, 2.0, math.nan]))
        assert seen(telemetry)["reptide_event_age_seconds_count"] == 2
        assert seen(telemetry)["reptide_event_age_seconds_sum"] == 2.0

    def test_a_reason_that_is_not_in_the_table_counts_as_other(self) -> None:
        telemetry = Telemetry()
        telemetry.rejected(["bad_time", "task 17 is odd", "bad_time", "task 18 is odd"])
        dead = {key: n for key, n in seen(telemetry).items() if "dead_letters" in key and n}
        assert dead == {
            "reptide_dead_letters_total reason=bad_time": 2,
            "reptide_dead_letters_total reason=other": 2,
        }

    def test_events_of_forgotten_tasks_are_counted_apart(self) -> None:
        telemetry = Telemetry()
        telemetry.forgotten(3)
        telemetry.forgotten(4)
        assert seen(telemetry)["reptide_events_forgotten_total"] == 7

    def test_an_inner_loop_counts_its_tasks_and_its_loss(self) -> None:
        telemetry = Telemetry()
        telemetry.adapted(0.2, 32)
        telemetry.adapted(0.1, 8)
        telemetry.inner_loss(np.array([1.0, 3.0, math.nan, 5.0]), np.array([0.5, 1.5, 1.0, math.inf]))
        now = seen(telemetry)
        assert now["reptide_adaptation_seconds_sum"] == pytest.approx(0.3)
        assert (now["reptide_adaptation_tasks_sum"], now["reptide_adaptation_tasks_count"]) == (40, 2)
        assert (now["reptide_inner_loss_sum when=before"], now["reptide_inner_loss_sum when=after"]) == (4, 2)
        assert now["reptide_inner_loss_count when=before"] == now["reptide_inner_loss_count when=after"] == 2

    def test_swaps_are_counted_by_result(self) -> None:
        telemetry = Telemetry()
        telemetry.swapped([Swap.OK, Swap.LOST, Swap.OK, Swap.ALREADY])
        swaps = {key.rpartition("=")[2]: n for key, n in seen(telemetry).items() if "row_swaps" in key}
        assert swaps == {"ok": 2, "already": 1, "lost": 1}

    def test_a_round_of_the_trainer_is_counted_by_verdict(self) -> None:
        telemetry = Telemetry()
        telemetry.round(labels=100, published=True, before=0.5, after=0.4)
        telemetry.round(labels=60, published=False, before=0.4, after=0.6)
        now = seen(telemetry)
        assert now["reptide_trainer_rounds_total verdict=published"] == 1
        assert now["reptide_trainer_rounds_total verdict=refused"] == 1
        assert now["reptide_trainer_labels_total"] == 160
        assert now["reptide_trainer_heldout_loss when=before"] == 0.4
        assert now["reptide_trainer_heldout_loss when=after"] == 0.6

    def test_two_workers_in_one_process_count_apart(self) -> None:
        one, other = Telemetry(), Telemetry()
        one.rejected(["malformed"])
        assert seen(one)["reptide_dead_letters_total reason=malformed"] == 1
        assert seen(other)["reptide_dead_letters_total reason=malformed"] == 0

    def test_memory_of_the_process_is_shown(self) -> None:
        assert seen(Telemetry())["process_resident_memory_bytes"] > 1e6


class TestHistograms:
    @given(st.lists(st.floats(-10, 1e4) | st.sampled_from([0.001, 0.5, 1.0, 3600.0, math.nan, math.inf])))
    def test_a_bucket_counts_the_values_up_to_its_bound(self, ages: list[float]) -> None:
        telemetry = Telemetry()
        half = len(ages) // 2
        for part in (ages[:half], ages[half:]):
            telemetry.batch(1.0, len(part), np.array(part, np.float64))
        kept = [max(age, 0.0) for age in ages if math.isfinite(age)]
        found = buckets(telemetry, "reptide_event_age_seconds")
        assert found == {bound: sum(age <= bound for age in kept) for bound in found}
        assert found[math.inf] == seen(telemetry)["reptide_event_age_seconds_count"] == len(kept)
        assert seen(telemetry)["reptide_event_age_seconds_sum"] == pytest.approx(sum(kept))

    def test_a_batch_counts_once_however_many_events_it_has(self) -> None:
        telemetry = Telemetry()
        telemetry.batch(0.3, 4096, np.zeros(0))
        now = seen(telemetry)
        assert (now["reptide_batch_seconds_count"], now["reptide_batch_seconds_sum"]) == (1, 0.3)
        assert (now["reptide_batch_events_count"], now["reptide_batch_events_sum"]) == (1, 4096)


class TestGauges:
    def test_a_gauge_is_not_shown_before_it_is_known(self) -> None:
        assert not any(key.startswith(("reptide_theta", "reptide_row_bytes")) for key in seen(Telemetry()))

    def test_theta_grows_older_until_a_new_version_is_in_use(self) -> None:
        now_s = 1000.0
        telemetry = Telemetry(clock=lambda: now_s)
        telemetry.theta(3, published_s=940.0)
        assert seen(telemetry)["reptide_theta_age_seconds"] == 60
        now_s = 1100.0
        assert seen(telemetry)["reptide_theta_age_seconds"] == 160
        telemetry.theta(4, published_s=1099.0)
        assert (seen(telemetry)["reptide_theta_version"], seen(telemetry)["reptide_theta_age_seconds"]) == (
            4,
            1,
        )

    def test_a_partition_that_was_revoked_shows_no_lag(self) -> None:
        telemetry = Telemetry()
        telemetry.lag({("clicks", 0): 5, ("clicks", 1): 7})
        telemetry.lag({("clicks", 1): 3})
        lag = {key: n for key, n in seen(telemetry).items() if "lag" in key}
        assert lag == {"reptide_consumer_lag_events partition=1 topic=clicks": 3}

    def test_row_bytes_are_the_last_ones_set(self) -> None:
        telemetry = Telemetry()
        telemetry.row_bytes(100)
        telemetry.row_bytes(9216)
        assert seen(telemetry)["reptide_row_bytes"] == 9216


class TestTheStore:
    def test_an_operation_is_timed(self) -> None:
        telemetry = Telemetry()
        with telemetry.store_seconds("load"):
            pass
        now = seen(telemetry)
        assert now["reptide_store_seconds_count operation=load"] == 1
        assert 0 < now["reptide_store_seconds_sum operation=load"] < 1
        assert now["reptide_store_errors_total operation=load"] == 0

    @pytest.mark.parametrize("error", [StoreError, Unavailable])
    def test_a_failure_is_timed_counted_and_passed_on(self, error: type[Exception]) -> None:
        telemetry = Telemetry()
        with pytest.raises(error, match="away"), telemetry.store_seconds("swap"):
            raise error("the store is away")
        assert seen(telemetry)["reptide_store_errors_total operation=swap"] == 1
        assert seen(telemetry)["reptide_store_seconds_count operation=swap"] == 1


class Clock:
    def __init__(self) -> None:
        self.now_s = 50.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def health(clock: Clock) -> Health:
    return Health(("store", "lag"), bound_s=60, clock=clock)


@pytest.fixture
def server(health: Health) -> Iterator[HealthServer]:
    telemetry = Telemetry()
    telemetry.row_bytes(9216)
    with HealthServer(health, telemetry.exposition, port=0) as server:
        yield server


def get(server: HealthServer, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(
            f"http://127.0.0.1:{server.port}{path}", timeout=CLIENT_TIMEOUT_S / 2
        ) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refusal:
        with refusal:
            return refusal.code, refusal.read().decode()


class TestTheServer:
    def test_metrics_are_scraped_as_prometheus_reads_them(self, server: HealthServer) -> None:
        status, text = get(server, "/metrics")
        assert status == 200
        assert samples(text.encode())["reptide_row_bytes"] == 9216

    def test_the_content_type_names_the_text_format(self, server: HealthServer) -> None:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=10) as answer:
            assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"

    def test_a_process_is_healthy_while_its_loop_makes_progress(
        self, server: HealthServer, health: Health, clock: Clock
    ) -> None:
        clock.now_s += 60
        assert get(server, "/healthz") == (200, "ok\n")
        clock.now_s += 15
        assert get(server, "/healthz") == (503, "loop: no progress for 75 s, the bound is 60 s\n")
        health.alive()
        assert get(server, "/healthz") == (200, "ok\n")

    def test_a_process_is_ready_only_when_every_condition_is_said_to_hold(
        self, server: HealthServer, health: Health
    ) -> None:
        assert get(server, "/readyz") == (503, "store: not known yet\nlag: not known yet\n")
        health.say("store", True, "answers")
        health.say("lag", False, "12000 events, the bound is 10000")
        assert get(server, "/readyz") == (503, "lag: 12000 events, the bound is 10000\n")
        health.say("lag", True, "8000 events, the bound is 10000")
        assert get(server, "/readyz") == (200, "ok\n")

    def test_a_condition_that_fails_later_is_named_again(self, server: HealthServer, health: Health) -> None:
        health.say("store", True, "answers")
        health.say("lag", True, "none")
        health.say("store", False, "redis://shop:6379 does not answer")
        assert get(server, "/readyz") == (503, "store: redis://shop:6379 does not answer\n")
        assert get(server, "/healthz")[0] == 200

    def test_what_a_stuck_loop_last_said_does_not_make_it_ready(
        self, server: HealthServer, health: Health, clock: Clock
    ) -> None:
        health.say("store", True, "answers")
        health.say("lag", True, "none")
        clock.now_s += 61
        assert get(server, "/readyz") == (503, "loop: no progress for 61 s, the bound is 60 s\n")

    def test_a_condition_nobody_declared_is_refused(self, health: Health) -> None:
        with pytest.raises(KeyError, match="no condition 'stroe'; there are store, lag"):
            health.say("stroe", True, "answers")

    def test_another_path_names_the_three(self, server: HealthServer) -> None:
        assert get(server, "/") == (404, "/metrics, /healthz or /readyz\n")

    def test_a_query_changes_nothing(self, server: HealthServer) -> None:
        assert get(server, "/healthz?verbose=1") == (200, "ok\n")

    def test_a_silent_client_holds_up_nobody(self, server: HealthServer) -> None:
        with socket.create_connection(("127.0.0.1", server.port)):
            assert get(server, "/healthz") == (200, "ok\n")

    def test_closing_waits_for_no_client(self, health: Health) -> None:
        server = HealthServer(health, Telemetry().exposition, port=0)
        with socket.create_connection(("127.0.0.1", server.port)):
            get(server, "/healthz")  # so the client before it was accepted
            began = time.monotonic()
            server.close()
        assert time.monotonic() - began < CLIENT_TIMEOUT_S / 2

    def test_a_port_in_use_is_refused_in_one_sentence(self, server: HealthServer, health: Health) -> None:
        with pytest.raises(
            SettingsError, match=rf"127\.0\.0\.1:{server.port}: Address already in use; choose"
        ):
            HealthServer(health, Telemetry().exposition, port=server.port)

    def test_closing_frees_the_port_at_once(self, health: Health) -> None:
        with HealthServer(health, Telemetry().exposition, port=0) as first:
            get(first, "/healthz")
            port = first.port
        with HealthServer(health, Telemetry().exposition, port=port) as second:
            assert get(second, "/healthz") == (200, "ok\n")
