"""What a run's page is made of: plain dicts, so that they can be kept as JSON and drawn again later.

Sections whose key is missing are left out. Times are seconds since the epoch, in UTC.
"""

from __future__ import annotations

from typing import NotRequired, TypedDict

from engine.evaluation.prequential.report import ReportDict


class Run(TypedDict):
    """What was streamed, and how long it took."""

    source: str
    """Files or topics, as the user named them."""
    events: int
    """In all, by every process that streamed a part."""
    streamed: NotRequired[int]
    """By the last process; `events` where it is not given."""
    tasks: int
    seconds: float
    """Wall-clock time of the last process."""
    finished_s: NotRequired[float]
    command: NotRequired[str]
    machine: NotRequired[str]


class Period(TypedDict):
    """Which labels are reported on, and which ones settings were chosen by; first and last time of each."""

    reported: tuple[float, float] | list[float]
    chosen_on: tuple[float, float] | list[float] | None
    """None says that settings were not chosen by labels of this stream."""


class AlarmCount(TypedDict):
    """Alarms in one stretch of time."""

    start_s: float
    alarms: int


class Alarm(TypedDict):
    """One drift alarm: mean losses of the adapted model before it and after the re-adaptation, if known."""

    task: str
    time_s: float
    labels: int
    """How many labels the task had learned from."""
    loss_before: NotRequired[float | None]
    loss_after: NotRequired[float | None]


class Drift(TypedDict):
    """What the drift detector did."""

    detector: str
    alarms: int
    tasks: int
    """How many tasks raised an alarm."""
    bucket_s: float
    buckets: list[AlarmCount]
    """In order of time; stretches without alarms may be left out."""
    latest: list[Alarm]


class Rejection(TypedDict):
    """Events refused for one reason."""

    reason: str
    count: int
    first: str
    """Where the first one is: file:line, or topic, partition and offset."""


class Stage(TypedDict):
    """Wall-clock time spent in one part of the program."""

    name: str
    seconds: float


class RunReport(TypedDict):
    """Everything the page shows."""

    title: str
    run: Run
    evaluation: ReportDict
    """`engine.evaluation.prequential.report.Report.as_dict()`."""
    period: NotRequired[Period]
    predictors: NotRequired[dict[str, str]]
    """One line on what each predictor is, by name; those of `PREDICTORS` are described already."""
    drift: NotRequired[Drift]
    outcomes: NotRequired[dict[str, int]]
    """How many events met each `engine.types.Outcome`, by its name."""
    rejected: NotRequired[list[Rejection]]
    stages: NotRequired[list[Stage]]
    settings: NotRequired[str]
    """As TOML."""
    versions: NotRequired[dict[str, str]]
