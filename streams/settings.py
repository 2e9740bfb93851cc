"""Every setting, as one frozen tree: TOML file < environment < flags. An unknown key is refused by its path.

`REPTIDE_INNER__LR=0.05` in the environment and `--set inner.lr=0.05` on the command line both set
`[inner] lr`. Relative paths in a file are relative to the file.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator

from streams.errors import SettingsError
from streams.examples.sections import Episodes, Examples
from streams.section import Section
from streams.setting_mistakes import described
from streams.setting_sources import Override, from_environment, from_flags

S = TypeVar("S", bound=Section)

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


class NumericFeature(Section):
    """A number, standardised."""

    encoder: Literal["numeric"]
    name: str
    optional: bool = False


class CategoryFeature(Section):
    """A value hashed and embedded."""

    encoder: Literal["category"]
    name: str
    buckets: int = 65_536
    embedding: int = 8


class CyclicFeature(Section):
    """A number on a circle."""

    encoder: Literal["cyclic"]
    name: str
    period: float


class TextFeature(Section):
    """Text as a bag of character n-grams."""

    encoder: Literal["text"]
    name: str
    buckets: int = 4096
    embedding: int = 32
    n: int = 3


Feature = Annotated[
    NumericFeature | CategoryFeature | CyclicFeature | TextFeature, Field(discriminator="encoder")
]


class Target(Section):
    """Either the classes of a label, or the range of a number."""

    classes: tuple[int | float | bool | str, ...] | None = None
    reserve: int = Field(0, ge=0)
    """How many classes theta and rows have room for: `classes` may be appended to until they are as many."""
    low: float | None = None
    high: float | None = None


class Model(Section):
    """The network behind the encoders: one of ours by its kind, or a builder `module:function`."""

    kind: Literal["mlp", "tabular", "transformer"] = "mlp"
    hidden: tuple[int, ...] = (64, 64)
    """Sizes of the hidden layers of an MLP."""
    network: str | None = None
    width: int = Field(64, ge=1)
    """Of an embedding: the outputs of the network where the learner compares or remembers examples."""
    adapts: Literal["head", "head+norms", "all"] = "head"
    wide: bool = True
    """Whether a linear model stands beside the network (wide and deep); in a stream, where steps are taken."""


class HistorySection(Section):
    """The task's own past among its features: of labels as they became known, of events, of numbers."""

    enabled: bool = True
    by: tuple[str, ...] | None = None
    """Categories within which labels are counted too; without it, the first four that are not the task's id."""
    numbers: tuple[str, ...] | None = None
    """Numbers held against the task's own; without it, the first sixteen."""
    slots: int = Field(32, ge=1)
    """Values of a category that are remembered: those seen last."""


class Inner(Section):
    """The inner loop."""

    steps: int = Field(5, ge=0)
    lr: Annotated[float, Field(gt=0, le=1e6)] | Literal["auto"] = "auto"
    """Auto: the trainer of a stream tries several on recent episodes, and the best belongs to each version."""
    clip: float = Field(1.0, gt=0)
    rates: Literal["fixed", "learned"] = "fixed"
    """Learned: a step size of its own for every number that adapts, a part of theta (Meta-SGD)."""
    proximal: float = Field(0.0, ge=0)
    """How strongly the inner loop is held near theta; `outer.rule = "implicit"` needs it above 0."""


class TaskMemory(Section):
    """What a task remembers."""

    support: int = Field(32, ge=1)
    balanced: bool = True
    pending: int = Field(64, ge=1)
    ttl_s: float = Field(30 * 86_400.0, gt=0)


class AdaptationPolicy(Section):
    """When a task adapts."""

    every: int = Field(16, ge=1)
    recent: int = Field(16, ge=0)
    refractory: int = Field(32, ge=0)


class Drift(Section):
    """The detector: `page_hinkley`, `periodic`, `never`, or `river.NAME` for one of river that is fed losses."""

    detector: str = "page_hinkley"
    options: dict[str, Any] = Field(default_factory=dict)


class Hedge(Section):
    """The mixture of the experts: base rate, recent labels, theta, the adapted model."""

    share: float = Field(0.0, ge=0, lt=1)


class Outer(Section):
    """The outer loop. Rounds fall due after 64 events, then ever further apart, up to `every` events."""

    rule: Literal["fomaml", "maml", "reptile", "implicit", "pooled"] = "fomaml"
    """`fomaml` and `maml` are backpropagation, right for every learner, and differ only for gradient steps."""
    every: int = Field(4096, ge=1)
    batch: int = Field(128, ge=1)
    """Labels of one step."""
    replays: float = Field(0.5, ge=0)
    """How often each label is trained on again, out of the last 16,384; more often while there are few. Then
    `batch` labels take 1 + replays steps, so a stream is never slowed by more than those."""
    optimizer: str = "Adam"
    """Of the network; tables of buckets and the linear part take Adagrad."""
    lr: float = Field(1e-3, gt=0)
    tables_lr: float = Field(0.2, gt=0)
    """Adagrad's rate for embeddings and weights of buckets."""
    linear_lr: float = Field(0.05, gt=0)
    """And for weights of numbers."""
    betas: tuple[float, float] | None = None
    """Of Adam and its like; torch's own where not given. The paper's Reptile takes [0.0, 0.999]."""
    momentum: float | None = Field(None, ge=0, lt=1)
    """Of SGD and RMSprop; torch's own where not given."""
    weight_decay: float = Field(0.0, ge=0)
    clip: float = Field(10.0, ge=1, le=10)
    warmup: int = Field(0, ge=0)
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    steps: int = Field(0, ge=0)
    support_rate: float = Field(0.25, ge=0, le=1)
    """Share of episodes that the outer rule is given; every label trains theta to be good unadapted."""
    held_out: float = Field(0.02, ge=0, lt=1)
    """Share of tasks, by a hash of their id, that judge new versions and are never trained on; of under 40, none."""
    keep_gib: float = Field(1.0, ge=0)
    """Room for versions of theta that were adopted, in Redis or on disk: as far back as they reach, a rebuild is
    exact. The oldest go first; what a restart needs is always kept."""


class Run(Section):
    """The process. Theta is adopted where rounds fall due."""

    directory: Path = Path("reptide-state")
    batch: int = Field(4096, ge=1)
    seed: int = Field(0, ge=0)
    device: str = "cpu"
    """Where tensor calls run: "cpu", "cuda", "cuda:1"."""
    max_gib: float = Field(64.0, gt=0)
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
    client: Literal["kafka-python", "confluent"] = "kafka-python"
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
    session_timeout_s: float = Field(45.0, ge=6)
    group_instance_id: str | None = Field(None, pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,248}$")
    """Makes a worker a static member of the group (KIP-345), under a name that no other worker has: one that is
    started again within the session timeout takes its partitions back, and nobody has them meanwhile."""
    delivery_timeout_s: float = Field(120.0, gt=0)
    """How long outputs may wait for their acknowledgement, before their batch is folded and sent again."""
    security: dict[str, SecretStr] = Field(default_factory=dict)
    """TLS and SASL, such as sasl_plain_password: see `streams.logs.security`."""

    @model_validator(mode="after")
    def _a_key_names_whom_to_forget(self) -> Self:
        if self.tombstones == "forget" and self.keys == "other":
            raise ValueError(
                'tombstones = "forget" needs keys = "task": other keys do not say whom to forget'
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
    """How long one batch should take; the size of batches follows."""
    publish_every_s: float = Field(5.0, gt=0)
    """The trainer publishes a version no more often."""
    host: str = "127.0.0.1"
    """Where /metrics, /healthz and /readyz are served."""
    port: int | None = Field(None, ge=0, le=65_535)
    """Nothing is served where it is not given; 0 takes a free port."""
    ready_lag: int = Field(100_000, ge=0)
    """A worker further behind is not ready."""


class Settings(Section):
    """The whole tree."""

    title: str = "Reptide"
    stream: str = Field("reptide", pattern=r"^[A-Za-z0-9._-]{1,64}$")
    """Names the stream in Redis keys, topics and the consumer group."""
    input: Input | None = None
    """The file that `run` replays and `produce` sends."""
    examples: Examples | None = None
    """Where `meta-train` and `evaluate` find labelled examples; the rows of [input] where it is not given."""
    episodes: Episodes | None = None
    """How they are cut into episodes; without it `meta-train` takes those that the stream would have cut."""
    features: tuple[Feature, ...]
    target: Target
    learner: Literal["gradient", "prototype", "matching", "memory", "snail", "transformer"] = "gradient"
    """How a task adapts: by steps of `[inner]`, or in one pass over its embedded examples."""
    model: Model = Model()
    history: HistorySection = HistorySection()
    inner: Inner = Inner()
    memory: TaskMemory = TaskMemory()
    policy: AdaptationPolicy = AdaptationPolicy()
    drift: Drift = Drift()
    hedge: Hedge = Hedge()
    outer: Outer = Outer()
    run: Run = Run()
    kafka: Kafka | None = None
    redis: Redis | None = None
    service: Service = Service()

    @model_validator(mode="before")
    @classmethod
    def _examples_may_say_it(cls, tree: Any) -> Any:
        """Images and arrays are their own features, and N-way episodes have classes of their own."""
        if isinstance(tree, dict) and "examples" in tree:
            return {"features": (), "target": {}, **tree}
        if isinstance(tree, dict) and isinstance(tree.get("episodes"), dict) and "ways" in tree["episodes"]:
            return {"target": {}, **tree}
        return tree

    @model_validator(mode="after")
    def _columns_are_read(self) -> Self:
        if not self.features and (self.examples is None or self.input is not None):
            raise ValueError("name at least one column in [[features]]")
        return self


def load_settings(path: Path, environment: Mapping[str, str], flags: Sequence[str] = ()) -> Settings:
    """Read a TOML file, then the environment, then `section.key=value` flags.

    Raises:
        SettingsError: unreadable file, unknown key, or wrong value; names the path of each, and where it stands.
    """
    try:
        tree: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise SettingsError(f"cannot read settings from {path}: {why}") from error
    overrides = [*from_environment(environment), *from_flags(flags)]
    for override in overrides:
        _set(tree, override)
    return _anchored(validated(tree, str(path), overrides), path.parent)


def validated(tree: Mapping[str, Any], where: str, overrides: Sequence[Override] = ()) -> Settings:
    """Settings from a plain tree; every mistake is named by its path, and by what set it, the file `where` else."""
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        raise SettingsError(described(error.errors(), Settings, where, overrides)) from None


def required(section: S | None, name: str) -> S:
    """A section that a command cannot do without.

    Raises:
        SettingsError: it is not there.

    """
    if section is None:
        raise SettingsError(f"{name}: this command needs the section [{name}]")
    return section


def values_of(flags: Sequence[str]) -> dict[str, Any]:
    """What `section.key=value` flags set, by the path of each setting."""
    return {".".join(override.keys): override.value for override in from_flags(flags)}


def _set(tree: dict[str, Any], override: Override) -> None:
    *sections, name = override.keys
    for key in sections:
        inner = tree.setdefault(key, {})
        if not isinstance(inner, dict):
            raise SettingsError(f"{override.source}: {'.'.join(override.keys)}: {key} is not a section")
        tree = inner
    tree[name] = override.value


def _anchored(settings: Settings, folder: Path) -> Settings:
    """Relative paths, made relative to the settings file."""
    source = settings.input and settings.input.model_copy(update={"path": folder / settings.input.path})
    examples = settings.examples and settings.examples.model_copy(
        update={"path": folder / settings.examples.path}
    )
    run = settings.run.model_copy(update={"directory": folder / settings.run.directory})
    return settings.model_copy(update={"input": source, "examples": examples, "run": run})
