"""Every setting, as one frozen tree: TOML file < environment < flags. An unknown key is refused by its path.

`REPTIDE_INNER__LR=0.05` in the environment and `--set inner.lr=0.05` on the command line both set
`[inner] lr`. Relative paths in a file are relative to the file.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from pydantic import Field, ValidationError, model_validator

from streams.errors import SettingsError
from streams.settings.base import ImportString, Section
from streams.settings.examples import Episodes, Examples
from streams.settings.features import Feature
from streams.settings.learning import (
    AdaptationPolicy,
    Drift,
    Hedge,
    HistorySection,
    Inner,
    Model,
    Outer,
    Target,
    TaskMemory,
)
from streams.settings.mistakes import described
from streams.settings.overrides import Override, from_environment, from_flags
from streams.settings.places import Input, Kafka, Redis, Run, Service

S = TypeVar("S", bound=Section)


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
    learner: Literal["gradient", "prototype", "matching", "memory", "snail", "transformer"] | ImportString = (
        "gradient"
    )
    """How a task adapts: by steps of `[inner]`, or in one pass over its embedded examples; or your own."""
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
