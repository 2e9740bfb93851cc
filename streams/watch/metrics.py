"""Every metric of the program in one table.

Names follow Prometheus' practice: one prefix, base units as suffix, `_total` for what only rises. No label
names a task, and every label but topic and partition takes its values from a fixed set, so that the number
of series does not grow with the stream. A counter starts at 0, not at its first event.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, get_args

from prometheus_client import core as families

from engine.types import PREDICTORS, Outcome
from streams.stores.base import Swap

Operation = Literal["load", "swap", "adopt", "forgotten", "forget", "partitions", "theta", "confirm", "ping"]
"""What a worker asks of the store."""


OTHER = "other"


REASONS = (
    "malformed", "null_value", "too_large", "missing_task", "bad_task", "missing_id", "bad_id", "bad_time",
    "bad_feature", "unknown_class", "bad_label", "out_of_range", "wrong_partition", "damaged_row", OTHER,
)  # fmt: skip
"""Why a record became a dead letter, as `streams.events.reading` and `streams.program.set_aside` say it."""


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
           "Lines of episodes that cannot be read, or are not of the stream spec, and were not trained on."),
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
