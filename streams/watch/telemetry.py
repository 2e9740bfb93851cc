"""The few calls that feed the metrics (`streams.watch.metrics`), and how they are collected.

Values are held here in numpy and handed to `prometheus_client` when it collects: an array of 4,096 ages is one
`bincount`, where `Histogram.observe` would be 4,096 calls under a lock.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import accumulate
from threading import Lock
from typing import Any

import numpy as np
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client import core as families

from engine.types import PREDICTORS, Float64, Outcome, Outcomes
from streams.errors import StoreError, Unavailable
from streams.stores.base import Swap
from streams.watch.metrics import FAMILIES, METRICS, OTHER, OUTCOMES, REASONS, Metric, Operation

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
"""Of `Telemetry.exposition`."""


class Telemetry:
    """The metrics of one worker or trainer. Any thread may read them; it sees each call whole or not at all."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        """`clock` gives seconds since the epoch; it is read when an age is."""
        self._clock = clock
        self._lock = Lock()
        self._series = {metric.name: _Series(metric) for metric in METRICS}
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)  # memory, CPU, open files

    def folded(self, outcomes: Outcomes, weight: Float64, not_finite: int) -> None:
        """Count one fold; `weight` [N] is the adapted model's as served, NaN where nothing was served."""
        codes = np.bincount(outcomes.code, minlength=len(Outcome))
        scored = outcomes.loss[outcomes.code == Outcome.SCORED]
        with self._lock:
            for name, code in OUTCOMES.items():
                self._add("reptide_events_total", codes[code], name)
            self._add("reptide_observations_expired_total", outcomes.expired.sum())
            self._add("reptide_drift_alarms_total", outcomes.alarm.sum())
            self._add("reptide_not_finite_total", not_finite)
            self._observe("reptide_label_delay_seconds", outcomes.waited_s)
            self._observe("reptide_adapted_weight_ratio", weight)
            for name, loss in zip(PREDICTORS, scored.T, strict=True):
                self._observe("reptide_prediction_loss", loss, name)

    def batch(self, seconds: float, events: int, ages_s: Float64) -> None:
        """Count one batch and how long it took; `ages_s` of those events whose log says when it took them.

        No age is below 0, as it would be where this machine's clock is behind the log's: a sum must not go back.
        """
        with self._lock:
            self._observe("reptide_batch_seconds", seconds)
            self._observe("reptide_batch_events", events)
            self._observe("reptide_event_age_seconds", np.maximum(ages_s, 0.0))

    def rejected(self, reasons: Iterable[str]) -> None:
        """Count dead letters; a reason that the table does not know counts as `other`."""
        with self._lock:
            for reason, count in Counter(reasons).items():
                self._add("reptide_dead_letters_total", count, reason if reason in REASONS else OTHER)

    def forgotten(self, events: int) -> None:
        """Count events that were left out, since their task was to be forgotten."""
        with self._lock:
            self._add("reptide_events_forgotten_total", events)

    def forgot(self, tasks: int) -> None:
        """Count tasks that a message without a value has forgotten."""
        with self._lock:
            self._add("reptide_tasks_forgotten_total", tasks)

    def skipped(self, events: int) -> None:
        """Set how many events the log no longer held, since the process started."""
        with self._lock:
            self._set("reptide_events_skipped_total", events)

    def adapted(self, seconds: float, tasks: int) -> None:
        """Count one inner loop over many tasks at once."""
        with self._lock:
            self._observe("reptide_adaptation_seconds", seconds)
            self._observe("reptide_adaptation_tasks", tasks)

    def inner_loss(self, before: Float64, after: Float64) -> None:
        """Count the loss of tasks on their support sets, before and after the inner loop."""
        finite = np.isfinite(before) & np.isfinite(after)
        with self._lock:
            self._observe("reptide_inner_loss", before[finite], "before")
            self._observe("reptide_inner_loss", after[finite], "after")

    @contextmanager
    def store_seconds(self, operation: Operation) -> Iterator[None]:
        """Time what is done inside; a store that fails is counted as well."""
        started = time.perf_counter()
        try:
            yield
        except (StoreError, Unavailable):
            with self._lock:
                self._add("reptide_store_errors_total", 1, operation)
            raise
        finally:
            with self._lock:
                self._observe("reptide_store_seconds", time.perf_counter() - started, operation)

    def swapped(self, results: Sequence[Swap]) -> None:
        """Count the conditional writes of one batch."""
        with self._lock:
            for swap in Swap:
                self._add("reptide_row_swaps_total", results.count(swap), swap.value)

    def lag(self, events: Mapping[tuple[str, int], int]) -> None:
        """Set the lag of every partition assigned, by topic and partition; one revoked since is no longer shown."""
        shown: dict[tuple[str, ...], float] = {
            (topic, str(partition)): float(lag) for (topic, partition), lag in events.items()
        }
        with self._lock:
            self._series["reptide_consumer_lag_events"].replace(shown)

    def row_bytes(self, size: int) -> None:
        """Set the size of one task's row."""
        with self._lock:
            self._set("reptide_row_bytes", size)

    def theta(self, version: int, published_s: float) -> None:
        """Set the version of theta in use, and when it was published: seconds since the epoch, NaN for none yet."""
        with self._lock:
            self._set("reptide_theta_version", version)
            self._set("reptide_theta_age_seconds", published_s)

    def round(self, labels: int, published: bool, before: float, after: float) -> None:
        """Count one round of the trainer, and set the loss on held-out tasks, of theta and of the candidate."""
        with self._lock:
            self._add("reptide_trainer_rounds_total", 1, "published" if published else "refused")
            self._add("reptide_trainer_labels_total", labels)
            self._set("reptide_trainer_heldout_loss", before, "before")
            self._set("reptide_trainer_heldout_loss", after, "after")

    def passed_over(self) -> None:
        """Count a line of episodes that was not trained on."""
        with self._lock:
            self._add("reptide_trainer_labels_passed_over_total", 1)

    def exposition(self) -> bytes:
        """Everything as Prometheus reads it."""
        return generate_latest(self._registry)

    def collect(self) -> list[families.Metric]:
        """Hand every metric to `prometheus_client`; this object is its collector."""
        with self._lock:
            return [series.family(self._clock()) for series in self._series.values()]

    def _add(self, name: str, count: float, *labels: str) -> None:
        self._series[name].add(labels, count)

    def _set(self, name: str, value: float, *labels: str) -> None:
        self._series[name].set(labels, value)

    def _observe(self, name: str, values: Float64 | float, *labels: str) -> None:
        self._series[name].observe(labels, np.atleast_1d(values))


class _Series:
    """The numbers of one metric by label values: a vector [1], or of a distribution the sum and then its buckets."""

    def __init__(self, metric: Metric) -> None:
        self.metric = metric
        self._bounds = np.array(metric.buckets, np.float64)
        known = [(value,) for value in metric.labels.values] if metric.labels.names else [()]
        # What rises begins at 0, so that its first step shows as one; a gauge begins when it is known.
        started = () if metric.kind in ("gauge", "age") else known
        width = 1 if metric.kind == "counter" else len(metric.buckets) + 2
        self._numbers: dict[tuple[str, ...], Float64] = {labels: np.zeros(width) for labels in started}

    def add(self, labels: tuple[str, ...], count: float) -> None:
        """Let a counter rise."""
        self._numbers[labels][0] += count

    def set(self, labels: tuple[str, ...], value: float) -> None:
        """Set one series of a gauge, or the moment that an age is since."""
        self._numbers[labels] = np.array([value], np.float64)

    def replace(self, values: Mapping[tuple[str, ...], float]) -> None:
        """Set every series of a gauge; those that are not named are gone."""
        self._numbers = {labels: np.array([value]) for labels, value in values.items()}

    def observe(self, labels: tuple[str, ...], values: Float64) -> None:
        """Count values [V]. What is not finite is left out; below 0, which clocks that disagree give, is 0."""
        kept = np.maximum(values[np.isfinite(values)], 0)
        held = self._numbers[labels]
        held[0] += kept.sum()
        held[1:] += np.bincount(np.searchsorted(self._bounds, kept), minlength=len(self._bounds) + 1)

    def family(self, now_s: float) -> Any:
        """Everything, as `prometheus_client` takes it."""
        family = FAMILIES[self.metric.kind](
            self.metric.name, self.metric.help, labels=self.metric.labels.names
        )
        for labels, held in self._numbers.items():
            family.add_metric(labels, *self._arguments(held.tolist(), now_s))
        return family

    def _arguments(self, held: list[float], now_s: float) -> tuple[Any, ...]:
        first, *counts = held
        if self.metric.kind == "age":
            return (now_s - first,)
        if self.metric.kind == "summary":
            return counts[0], first
        if self.metric.kind == "histogram":
            bounds = [*map(str, self._bounds.tolist()), "+Inf"]
            return list(zip(bounds, accumulate(counts), strict=True)), first
        return (first,)
