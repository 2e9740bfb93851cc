"""Settings of where events come from and state is kept: input, run, kafka, redis, service."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator

from streams.settings.base import Section

ADDRESS = r"^([^\s:/@\[\]]+|\[[0-9A-Fa-f:.]+\])(:\d{1,5})?$"
"""host, host:port, or [v6]:port."""


FOR_EVER_S = 100 * 365 * 86_400.0
"""How long a file can be replayed, and a log without retention."""


class Input(Section):
    """The table that is replayed as a stream: a CSV, JSONL or Parquet file, and the meaning of its columns."""

    path: Path
    task: tuple[str, ...] = Field(min_length=1)
    """Column or columns that name the task."""
    time: str
    """Event time of the observation."""
    label: str | None = None
    label_time: str | None = None
    """When the label becomes known; without it, right after the observation."""
    id: str | None = None
    """Without it, the row number."""


class Run(Section):
    """The process. Theta is adopted where rounds fall due."""

    directory: Path = Path("reptide-state")
    batch: int = Field(4096, ge=1)
    seed: int = Field(0, ge=0)
    device: str = "cpu"
    """Where tensor calls run: "cpu", "cuda", "cuda:1"."""
    max_gib: float = Field(64.0, gt=0)
    most_tasks: int = Field(0, ge=0)
    """How many tasks are remembered from one round to the next; where there are more, those seen least, and longest
    ago, are forgotten. 0: all. (In Redis rows expire instead: `redis.ttl_s`.)"""
    durable: bool = True
    """Whether every batch is on disk before the next begins; off, a power cut may cost the last seconds."""


class Kafka(Section):
    """Where `worker`, `trainer` and `produce` find their topics."""

    bootstrap: tuple[str, ...] = Field(min_length=1)
    """Brokers to begin with, as host:port."""
    inputs: tuple[str, ...] = Field(("events",), min_length=1, max_length=2)
    """One topic for observations and labels; or two, observations first, with as many partitions each."""
    outputs: str | None = None
    """What the names of output topics begin with; the name of the stream and a dot where it is not given."""
    group: str | None = None
    """Consumer group of the workers; stream and row fingerprint where it is not given."""
    client: Literal["confluent", "kafka-python"] = "confluent"
    dataschema: str | None = None
    """An event whose `ce_dataschema` is another one is refused."""
    keys: Literal["task", "other"] = "task"
    """What the keys of events are: the task's id; or something else that keeps the events of a task together, as the
    user does whose tasks are many. The first event of a task then decides where the others belong."""
    tombstones: Literal["dead-letter", "forget"] = "dead-letter"
    """What a message without a value is: a dead letter, or the forgetting of the task that its key names, as by
    `reptide forget`."""
    expired: Literal["fail", "skip"] = "fail"
    """What to do where the log no longer holds the next event: stop, or go on with the oldest it has."""
    clock_skew_s: float = Field(3600.0, ge=0)
    """An event that takes place longer than this after the timestamp of its message is refused (bad_time), so that
    one clock that runs ahead moves no task's time."""
    group_protocol: Literal["classic", "consumer"] = "classic"
    """Who shares out the partitions: the members ("classic"), or the brokers ("consumer", KIP-848; Apache Kafka 4 or
    newer), where a worker that joins or leaves holds up no other."""
    session_timeout_s: float = Field(45.0, ge=6)
    """How long the group waits for a worker that is not heard of; of "classic", with "consumer" brokers say it."""
    group_instance_id: str | None = Field(None, pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,248}$")
    """Makes a worker a static member of the group (KIP-345), under a name that no other worker has: one that is
    started again within the session timeout takes its partitions back, and nobody has them meanwhile."""
    delivery_timeout_s: float = Field(120.0, gt=0)
    """How long outputs may wait for their acknowledgement, before their batch is folded and sent again."""
    security: dict[str, SecretStr] = Field(default_factory=dict)
    """TLS and SASL, such as sasl_plain_password: see `streams.logs.kafka.security`."""

    @model_validator(mode="after")
    def _a_key_names_whom_to_forget(self) -> Self:
        if self.tombstones == "forget" and self.keys == "other":
            raise ValueError(
                'tombstones = "forget" needs keys = "task": other keys do not say whom to forget'
            )
        return self

    @model_validator(mode="after")
    def _brokers_that_share_out_decide(self) -> Self:
        if self.group_protocol == "consumer":
            if self.client != "confluent":
                raise ValueError(
                    'group_protocol = "consumer" needs client = "confluent": kafka-python does not speak it'
                )
            if "session_timeout_s" in self.model_fields_set:
                raise ValueError(
                    'session_timeout_s has no effect with group_protocol = "consumer": the brokers\' '
                    "group.consumer.session.timeout.ms decides"
                )
        return self

    @field_validator("security", mode="before")
    @classmethod
    def _yes_and_no_are_texts(cls, tree: Any) -> Any:
        """As in the environment: `ssl_check_hostname = false` is "false"."""
        if not isinstance(tree, dict):
            return tree
        return {
            name: str(value).lower() if isinstance(value, bool) else value for name, value in tree.items()
        }


class Redis(Section):
    """Where rows and versions of theta live."""

    url: SecretStr
    """redis://user:password@host:port/0, or rediss:// for TLS; with Sentinels without host and port."""
    cluster: bool = False
    sentinels: tuple[Annotated[str, Field(pattern=ADDRESS)], ...] = ()
    """Sentinels that are asked for the master, as host:port; with `service`. TLS is as in the URL."""
    service: str | None = Field(None, min_length=1)
    """The name under which Sentinels watch the master, as `sentinel monitor` gives it."""
    sentinel_user: str | None = None
    sentinel_password: SecretStr | None = None
    """User and password to the Sentinels, where they ask for them."""
    wait_replicas: int = Field(0, ge=0)
    """How many replicas must have what was written before offsets are committed and an adopted theta is used. Where
    they have not within half of `timeout_s`, a worker waits, says so, and commits nothing."""
    ttl_s: int = Field(0, ge=0)
    """A row not written for so long is dropped; 0 keeps rows for ever."""
    packed: bool = False
    """Whether rows are written without their zeros, which takes less memory, the less a task has remembered yet. They
    are read either way, but not by workers from before there was this choice: set it once none of those is left."""
    timeout_s: float = Field(5.0, gt=0)
    tombstone_s: float = Field(FOR_EVER_S, gt=0)
    """How long a task that was forgotten is not taken up again: longer than the log keeps its events; by default for
    ever (a hundred years)."""
    tasks: int = Field(0, ge=0)
    """How many tasks to expect; with it, the memory they need is checked at the start."""

    @model_validator(mode="after")
    def _sentinels_and_service_go_together(self) -> Self:
        if bool(self.sentinels) != bool(self.service):
            raise ValueError("sentinels and service go together: set both, or neither")
        if self.cluster and self.sentinels:
            raise ValueError(
                "a cluster fails over by itself: set cluster, or sentinels and service, not both"
            )
        return self


class Service(Section):
    """The long-running processes."""

    durability_lag_s: float = Field(2.0, ge=0)
    """How long after a write the store may still forget it: 2 under Redis' `appendfsync everysec`, 0 under
    `always`. Offsets are committed, and versions of theta shown, only after it."""
    budget_s: float = Field(0.25, gt=0, le=60)
    """How long one batch should take; the size of batches follows, as far as their fixed cost lets it."""
    publish_every_s: float = Field(5.0, gt=0)
    """The trainer publishes a version no more often. How fresh theta is hangs on it, and not what theta is taught."""
    host: str = "127.0.0.1"
    """Where /metrics, /healthz and /readyz are served."""
    port: int | None = Field(None, ge=0, le=65_535)
    """Nothing is served where it is not given; 0 takes a free port."""
    ready_lag: int = Field(100_000, ge=0)
    """A worker further behind is not ready."""
