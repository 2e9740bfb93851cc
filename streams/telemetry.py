"""Every metric of the program in one table, and the few calls that feed it.

Names follow Prometheus' practice: one prefix, base units as suffix, `_total` for what only rises. No label
names a task, and every label but topic and partition takes its values from a fixed set, so that the number
of series does not grow with the stream. A counter starts at 0, not at its first event.

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
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client import core as families

from engine.types import PREDICTORS, Float64, Outcome, Outcomes
from streams.errors import StoreError, Unavailable
from streams.stores.base import Swap

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
"""Of `Telemetry.exposition`."""

Operation = Literal["load", "swap", "adopt", "forgotten", "forget", "partitions", "theta", "confirm", "ping"]
"""What a worker asks of the store."""

OTHER = "other"
REASONS = (
    "malformed", "null_value", "too_large", "missing_task", "bad_task", "missing_id", "bad_id", "bad_time",
    "bad_feature", "unknown_class", "bad_label", "out_of_range", "wrong_partition", "damaged_row", OTHER,
)  # fmt: skip
"""Why a record became a dead letter, as `streams.wire` says it."""

OUTCOMES = {outcome.name.lower(): outcome for outcome in Outcome if outcome is not Outcome.EXPIRED}
"""What becomes of an event. Expiry becomes of an observation counted before, so it has a metric of its own."""

WALL_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600)
EVENT_TIME_S = (1, 10, 60, 600, 3600, 21_600, 86_400, 259_200, 604_800, 2_592_000, 7_776_000)
AT_ONCE = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16_384)
WEIGHT = (0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1)


class Labels(NamedTuple):
    """What tells the series of one metric apart."""

    names: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    """Everything that the one label may say; empty where only the deployment knows."""


NONE = Labels()
OUTCOME = Labels(("outcome",), tuple(OUTCOMES))
REASON = Labels(("reason",), REASONS)
PLACE = Labels(("topic", "partition"))
WHEN = Labels(("when",), ("before", "after"))
PREDICTOR = Labels(("predictor",), PREDICTORS)
RESULT = Labels(("result",), tuple(swap.value for swap in Swap))
OPERATION = Labels(("operation",), get_args(Operation))
VERDICT = Labels(("verdict",), ("published", "refused"))


class Metric(NamedTuple):
    """One line of the table."""

    name: str
    kind: Literal["counter", "gauge", "age", "summary", "histogram"]
    """An age is a gauge of the seconds that have passed, when it is read, since the moment that was set."""
    help: str
    labels: Labels = NONE
    buckets: tuple[float, ...] = ()


METRICS = (
    Metric("reptide_events_total", "counter",
           "Events folded, by what became of them.", OUTCOME),
    Metric("reptide_observations_expired_total", "counter",
           "Observations whose label did not come in time."),
    Metric("reptide_events_forgotten_total", "counter",
           "Events left out, since their task was to be forgotten."),
    Metric("reptide_tasks_forgotten_total", "counter",
           "Tasks forgotten, since a message without a value had their key."),
    Metric("reptide_events_skipped_total", "counter",
           "Events, for a trainer learned labels, that their topic no longer held when it was their turn."),
    Metric("reptide_dead_letters_total", "counter",
           "Records refused, by reason.", REASON),
    Metric("reptide_event_age_seconds", "histogram",
           "From the log's timestamp of an event to the end of its batch.", buckets=WALL_S),
    Metric("reptide_label_delay_seconds", "histogram",
           "Event time from a prediction to its label.", buckets=EVENT_TIME_S),
    Metric("reptide_consumer_lag_events", "gauge",
           "Events of an assigned partition not folded yet.", PLACE),
    Metric("reptide_batch_seconds", "histogram",
           "From the poll of a batch to the swap of its rows.", buckets=WALL_S),
    Metric("reptide_batch_events", "histogram",
           "Events of one batch.", buckets=AT_ONCE),
    Metric("reptide_adaptation_seconds", "histogram",
           "One inner loop, run over many tasks at once.", buckets=WALL_S),
    Metric("reptide_adaptation_tasks", "histogram",
           "Tasks adapted at once; the sum counts adaptations.", buckets=AT_ONCE),
    Metric("reptide_inner_loss", "summary",
           "Loss on the support set, before and after the inner loop.", WHEN),
    Metric("reptide_prediction_loss", "summary",
           "Prequential loss of each expert and as served; lift is theta's less the served one's.", PREDICTOR),
    Metric("reptide_adapted_weight_ratio", "histogram",
           "The adapted model's share in a prediction as served.", buckets=WEIGHT),
    Metric("reptide_drift_alarms_total", "counter",
           "Drift alarms."),
    Metric("reptide_not_finite_total", "counter",
           "Adaptations and predictions that were not finite and were not used."),
    Metric("reptide_row_swaps_total", "counter",
           "Conditional writes of rows; lost where another worker came first.", RESULT),
    Metric("reptide_row_bytes", "gauge",
           "One task's row."),
    Metric("reptide_store_seconds", "histogram",
           "One operation of the record store on a whole batch.", OPERATION, WALL_S),
    Metric("reptide_store_errors_total", "counter",
           "Operations of the record store that failed.", OPERATION),
    Metric("reptide_theta_version", "gauge",
           "Version of theta in use."),
    Metric("reptide_theta_age_seconds", "age",
           "Since the version of theta in use was published, or first used."),
    Metric("reptide_trainer_rounds_total", "counter",
           "Rounds of the outer loop, by the gate's verdict on the candidate.", VERDICT),
    Metric("reptide_trainer_labels_total", "counter",
           "Labels trained on; each counts once, however often it is trained on again."),
    Metric("reptide_trainer_labels_passed_over_total", "counter",
           "Lines of episodes that cannot be read, or are not of the task spec, and were not trained on."),
    Metric("reptide_trainer_heldout_loss", "gauge",
           "Loss on held-out tasks at the last round: of theta before it, of the candidate after.", WHEN),
)  # fmt: skip

FAMILIES: Mapping[str, Callable[..., Any]] = {
    "counter": families.CounterMetricFamily,
    "gauge": families.GaugeMetricFamily,
    "age": families.GaugeMetricFamily,
    "summary": families.SummaryMetricFamily,
    "histogram": families.HistogramMetricFamily,
}


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
