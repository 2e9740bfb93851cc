"""Settings of how theta and the tasks learn: target, network, inner and outer loop, memory, policy, drift, hedge."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from streams.settings.base import Section


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
    compile: bool = False
    """Whether steps of a network other than the default are compiled, once for a machine; needs a C++ compiler."""


class TaskMemory(Section):
    """What a task remembers."""

    support: int = Field(32, ge=1)
    balanced: bool = True
    pending: int = Field(64, ge=1)
    ttl_s: float = Field(30 * 86_400.0, gt=0)
    precision: Literal["single", "half"] = "single"
    """Half: numbers are rounded when they come, to eight significant bits, and a stored row is a third shorter."""
    exact: tuple[str, ...] = ()
    """Numbers that half precision leaves as they come: those that hardly differ beside what they have in common."""


class AdaptationPolicy(Section):
    """When a task adapts."""

    every: int = Field(16, ge=1)
    recent: int = Field(16, ge=0)
    refractory: int = Field(32, ge=0)


class Drift(Section):
    """The detector: `page_hinkley`, `periodic`, `never`, one of river as `river.NAME`, or `module:class`."""

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
