"""A version of theta is read back as it was written, or refused; it is written once, and whole."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save
from torch import Tensor

from engine.features.columns import Category, Numeric
from engine.features.encoder import Features
from engine.learners.fingerprint import theta_fingerprint
from engine.learners.gradient import GradientLearner
from engine.stream.spec import StreamSpec
from engine.targets import Classification
from engine.types import Meta
from streams.errors import CheckpointError
from streams.logs.memory import Crash
from streams.program.theta import ThetaCache
from streams.stores.checkpoints import DirectoryMeta
from streams.stores.memory import MemoryMeta
from streams.stores.sealed import _seal as seal_of
from streams.stores.sealed import apart, seal_in, sealed, unsealed
from streams.stores.versions import Checkpoint, MetaStore
from tests.faults.model import SPEC, bits, engine
from tests.varied import varied


def checkpoint(version: int = 1, seed: int = 0, spec: StreamSpec = SPEC) -> Checkpoint:
    params = engine().learner.init(seed)
    trainer = {
        "optimizer.Adam:1.0.weight:step": torch.tensor(3.0),
        "statistics.count": torch.ones(2).double(),
    }
    return Checkpoint(
        version,
        theta_fingerprint(GradientLearner(spec.problem)),
        params,
        trainer,
        {"position": 12, "through": 64, "step": 3},
    )


def same(one: Checkpoint, other: Checkpoint) -> bool:
    tensors = bits(one.params) == bits(other.params) and bits(one.trainer) == bits(other.trainer)
    rest = (one.version, one.fingerprint, one.numbers) == (other.version, other.fingerprint, other.numbers)
    return tensors and rest


@pytest.fixture(params=["memory", "directory"])
def versions(request: pytest.FixtureRequest, tmp_path: Path) -> MetaStore:
    return MemoryMeta() if request.param == "memory" else DirectoryMeta(tmp_path)


class TestEveryMetaStore:
    def test_there_is_no_version_at_first(self, versions: MetaStore) -> None:
        assert versions.current() == 0
        with pytest.raises(CheckpointError, match="version 1"):
            versions.load(1)

    def test_a_version_is_read_back_as_it_was_written(self, versions: MetaStore) -> None:
        assert versions.publish(checkpoint())
        assert versions.current() == 1
        assert same(versions.load(1), checkpoint())

    def test_only_the_next_version_is_published(self, versions: MetaStore) -> None:
        assert not versions.publish(checkpoint(2))
        assert versions.publish(checkpoint(1))
        assert not versions.publish(checkpoint(1, seed=1))
        assert not versions.publish(checkpoint(3))
        assert same(versions.load(1), checkpoint(1))

    def test_older_versions_stay(self, versions: MetaStore) -> None:
        for version in range(1, 12):
            assert versions.publish(checkpoint(version, seed=version))
        assert versions.current() == 11
        assert same(versions.load(9), checkpoint(9, seed=9))


@pytest.mark.parametrize("moment", ["fsync", "link"])
@pytest.mark.parametrize("seed", [0, 1], ids=["same content", "other content"])
def test_of_two_trainers_at_once_the_first_to_finish_wins_and_its_version_stays(
    moment: str, seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = DirectoryMeta(tmp_path), DirectoryMeta(tmp_path)
    effect, won = getattr(os, moment), []

    def other_comes_first(*arguments: Any) -> None:
        monkeypatch.setattr(os, moment, effect)
        with monkeypatch.context() as another_process:
            another_process.setattr(os, "getpid", lambda: 1)
            won.append(second.publish(checkpoint(seed=seed)))
        effect(*arguments)

    monkeypatch.setattr(os, moment, other_comes_first)
    won.append(first.publish(checkpoint()))
    assert won == [True, False]
    assert same(first.load(1), checkpoint(seed=seed))


# Crashes


@pytest.fixture
def published(tmp_path: Path) -> DirectoryMeta:
    versions = DirectoryMeta(tmp_path)
    versions.publish(checkpoint(1))
    return versions


@pytest.mark.parametrize("nth", range(4))
def test_a_crash_at_any_moment_of_publishing_leaves_the_previous_version_or_the_new_one(
    published: DirectoryMeta, nth: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments = iter(range(nth, -10, -1))

    def dying(effect: Any) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            if next(moments) == 0:
                raise Crash(effect.__name__)
            return effect(*arguments)

        return call

    with monkeypatch.context() as patched:
        for name in ("fsync", "link"):
            patched.setattr(os, name, dying(getattr(os, name)))
        try:
            done = published.publish(checkpoint(2, seed=2))
        except Crash:
            done = False
    restarted = DirectoryMeta(published.directory)
    assert done == (nth == 3)  # three effects: synced, linked, its name synced
    linked = nth >= 2
    assert restarted.current() == (2 if linked else 1)
    assert same(restarted.load(1), checkpoint(1))
    assert restarted.publish(checkpoint(2, seed=2)) != linked
    assert same(restarted.load(2), checkpoint(2, seed=2))


# Damage


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> DirectoryMeta:
    versions = DirectoryMeta(tmp_path_factory.mktemp("theta"))
    versions.publish(checkpoint())
    return versions


def usable(versions: DirectoryMeta) -> bool:
    """Whether another process loads version 1, and then it must be as it was; what is refused is refused by name."""
    try:
        loaded = DirectoryMeta(versions.directory).load(1)
    except CheckpointError as error:
        assert "version" in str(error)
        assert "\n" not in str(error)
        return False
    assert same(loaded, checkpoint())
    return True


def with_content(path: Path, content: bytes | None) -> bytes:
    """Replace a file's content; returns what it was."""
    before = path.read_bytes()
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    return before


@given(st.integers(0, 10**6), st.integers(1, 255))
def test_a_byte_changed_anywhere_in_the_tensors_is_refused(
    intact: DirectoryMeta, place: int, change: int
) -> None:
    (path,) = intact.directory.iterdir()
    content = bytearray(path.read_bytes())
    size = len(apart(bytes(content))[1])
    content[len(content) - size + place % size] ^= change
    before = with_content(path, bytes(content))
    assert not usable(intact)
    with_content(path, before)


@given(st.integers(0, 10**6), st.integers(1, 255))
def test_a_byte_changed_anywhere_in_the_description_is_refused_unless_it_says_the_same(
    intact: DirectoryMeta, place: int, change: int
) -> None:
    (path,) = intact.directory.iterdir()
    content = bytearray(path.read_bytes())
    size = len(content) - len(apart(bytes(content))[1])
    content[place % size] ^= change
    before = with_content(path, bytes(content))
    usable(intact)
    with_content(path, before)


@pytest.mark.parametrize("kept", [None, 0, 1, 8, 100, 1000, -1])
def test_a_version_cut_short_or_missing_is_refused(intact: DirectoryMeta, kept: int | None) -> None:
    (path,) = intact.directory.iterdir()
    before = path.read_bytes()
    with_content(path, None if kept is None else before[:kept])
    assert not usable(intact)
    path.write_bytes(before)
    assert usable(intact)


def test_a_version_that_a_release_of_before_wrote_again_is_refused_and_not_chosen(
    intact: DirectoryMeta,
) -> None:
    (path,) = intact.directory.iterdir()
    again = path.with_suffix(".json")
    again.write_bytes(b"{}")
    with pytest.raises(
        CheckpointError, match=r"written twice, as 00000001\.theta by this release and as 00000001\.json"
    ):
        DirectoryMeta(intact.directory).load(1)
    again.unlink()
    assert usable(intact)


# Size


def of_tables(buckets: int) -> Checkpoint:
    """A version of a theta with two tables that no event has touched, and what its trainer keeps beside them."""
    columns = tuple(Category(name, buckets=buckets) for name in ("city", "shop"))
    learner = GradientLearner(varied(SPEC, features=Features(columns), history=None).problem)
    sums = {f"sums.{n}": torch.full_like(v, 0.1) for n, v in learner.init(0).items() if n.startswith("0.")}
    return Checkpoint(1, theta_fingerprint(learner), learner.init(0), sums)


def size_of(version: Checkpoint) -> int:
    return sum(map(len, sealed(version)))


def test_buckets_that_were_never_met_cost_next_to_nothing() -> None:
    few, many = of_tables(64), of_tables(16_384)
    plain = sum(value.nbytes for value in (*many.params.values(), *many.trainer.values()))
    assert plain > 2_500_000
    assert size_of(many) - size_of(few) < plain / 100
    assert same(unsealed(*sealed(many)), many)


def test_one_bucket_that_is_met_costs_about_its_own_numbers() -> None:
    before, after = of_tables(16_384), of_tables(16_384)
    after.params["0.embeddings.0.weight"][77] = torch.randn(8)
    assert size_of(after) - size_of(before) < 100


BITS = st.sampled_from([0, 1, 0x80000000, 0x7FC00000, 0x7FC00001, 0x7F800000, 0x3F800000]) | st.integers(
    0, 2**32 - 1
)
"""Of a number of 32 bits: both zeros, several that are no number, and any other."""


@st.composite
def tables(draw: st.DrawFn) -> Tensor:
    """Rows that are alike, and any number of others."""
    width, count = draw(st.integers(0, 5)), draw(st.integers(0, 700))
    table = np.tile(np.array(draw(st.lists(BITS, min_size=width, max_size=width)), np.uint32), (count, 1))
    others = draw(st.lists(st.integers(0, count - 1), max_size=8)) if count else []
    for place in others:
        table[place] = draw(st.lists(BITS, min_size=width, max_size=width))
    if draw(st.booleans()):  # so many that it is written as it is
        table ^= np.random.default_rng(count).integers(0, 2**32, table.shape, np.uint32)
    found = torch.from_numpy(table.view(np.float32))
    return found.double() if draw(st.booleans()) else found


@given(tables(), tables())
def test_any_table_comes_back_bit_for_bit(one: Tensor, other: Tensor) -> None:
    version = Checkpoint(1, "", {"table": one, "part": other[: len(other) // 2]}, {"sums.table": other})
    again = unsealed(*sealed(version))
    assert bits(again.params) == bits(version.params)
    assert bits(again.trainer) == bits(version.trainer)


KINDS = (
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
    torch.uint8, torch.bool,
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_value_of_any_type_that_safetensors_knows_comes_back(kind: torch.dtype) -> None:
    values = {
        "one": torch.tensor([[0, 1], [1, 0]]).to(kind),
        "none": torch.zeros(0, 3, dtype=kind),
        "single": torch.ones((), dtype=kind),
    }
    version = Checkpoint(
        1, "", values, {"turned": values["one"].t(), "part": values["one"][1:], "same": values["one"]}
    )
    again = unsealed(*sealed(version))
    for before, after in ((version.params, again.params), (version.trainer, again.trainer)):
        assert {n: (v.dtype, v.tolist()) for n, v in before.items()} == {
            n: (v.dtype, v.tolist()) for n, v in after.items()
        }


def test_a_value_of_another_type_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"version 1 of theta .*complex128.*another type"):
        sealed(Checkpoint(1, "", {"wave": torch.zeros(2, dtype=torch.complex128)}, {}))


def test_a_version_of_before_whose_tables_were_written_whole_and_compressed_is_read() -> None:
    version = of_tables(1024)
    tensors = {f"params.{name}": value for name, value in version.params.items()}
    plain = save({**tensors, **{f"trainer.{name}": value for name, value in version.trainer.items()}})
    content = zlib.compress(plain, 1)
    described = {"version": 1, "fingerprint": version.fingerprint, "bytes": len(plain), "numbers": {}}
    head = json.dumps({**described, "blake2b": seal_of(content, described)}).encode()
    assert same(unsealed(head, content), version)


def sealed_again(head: bytes, content: bytes, **changed: Any) -> tuple[bytes, bytes]:
    """A version with a seal that fits, described otherwise."""
    described = json.loads(head)
    described.pop("blake2b")
    described |= changed
    return json.dumps({**described, "blake2b": seal_of(content, described)}).encode(), content


def test_a_version_of_before_that_was_compressed_is_read_and_gone_on_from(tmp_path: Path) -> None:
    head, content = sealed(checkpoint())
    head, compressed = sealed_again(head, zlib.compress(content, 0), bytes=len(content))
    (tmp_path / "00000001.json").write_bytes(head)
    (tmp_path / f"00000001-{seal_in(head):.16}.safetensors.z").write_bytes(compressed)
    versions = DirectoryMeta(tmp_path)
    assert same(versions.load(1), checkpoint())
    assert versions.publish(checkpoint(2, seed=2))
    assert {path.name for path in versions.files(1)} < {path.name for path in tmp_path.iterdir()}
    versions.drop({1})
    assert versions.missing([1, 2]) == {1}


TABLE = "params.0.embeddings.0.weight"


@pytest.mark.parametrize(
    "rows",
    [
        {TABLE: 0},
        {TABLE: -1},
        {TABLE: 5},
        {TABLE: 10**12},
        {TABLE: 10**30},
        {TABLE: 1e3},
        {TABLE: "9"},
        {TABLE: True},
        {"x": 9},
        [],
        7,
        None,
    ],
)
def test_tables_whose_parts_do_not_fit_are_refused_before_they_are_made(rows: object) -> None:
    version = of_tables(1024)
    version.params["0.embeddings.0.weight"][77] = torch.randn(8)
    head, content = sealed(version)
    with pytest.raises(
        ValueError, match=r"parts of a table do not fit|are said to take more|is of another program"
    ):
        unsealed(*sealed_again(head, content, rows=rows))


@pytest.mark.parametrize("size", [0, 1, 100, -1, 10**12])
def test_what_says_another_size_than_it_has_is_refused_before_it_is_decompressed_further(size: int) -> None:
    head, content = sealed(checkpoint())
    with pytest.raises(ValueError, match=r"its tensors (do not take|are said to take)"):
        unsealed(*sealed_again(head, zlib.compress(content), bytes=size))


def test_a_few_bytes_that_would_become_gigabytes_are_refused() -> None:
    head, _ = sealed(checkpoint())
    with pytest.raises(ValueError, match="its tensors do not take the 1,000 bytes"):
        unsealed(*sealed_again(head, zlib.compress(bytes(10**8)), bytes=1_000))


def test_a_version_too_large_to_be_read_back_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.stores.sealed.MOST_BYTES", 1000)
    with pytest.raises(CheckpointError, match=r"takes [12],\d+ bytes, more than 1,000; choose fewer buckets"):
        DirectoryMeta(tmp_path).publish(checkpoint())
    assert list(tmp_path.iterdir()) == []


# Use


def test_a_version_of_another_problem_is_refused_in_one_sentence() -> None:
    versions = MemoryMeta()
    other = varied(SPEC, features=Features((Numeric("a"), Numeric("c"))))
    versions.publish(checkpoint(spec=other))
    sentence = r"^version 1 of theta was trained for problem \w+, this one is \w+: .*$"
    with pytest.raises(CheckpointError, match=sentence):
        ThetaCache(engine(), versions).get(1)


def test_classes_in_another_order_are_another_problem() -> None:
    swapped = varied(SPEC, target=Classification(("y", "x")))
    assert theta_fingerprint(GradientLearner(swapped.problem)) != theta_fingerprint(
        GradientLearner(SPEC.problem)
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_version_that_is_not_finite_is_refused_by_the_name_of_the_tensor(value: float) -> None:
    versions = MemoryMeta()
    params = engine().learner.init(0)
    name = list(params)[-1]
    params[name] = torch.full_like(params[name], value)
    versions.publish(replace(checkpoint(), params=params))
    with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
        ThetaCache(engine(), versions).get(1)


NAME = "1.network.0.weight"


@pytest.mark.parametrize("beside", ["", f"latest.{NAME}", f"sums.{NAME}"])
@pytest.mark.parametrize("of", [lambda value: value[:1].clone(), lambda value: value.double()])
def test_a_version_whose_values_have_another_shape_or_type_is_refused_by_the_name_of_the_tensor(
    beside: str, of: Callable[[Tensor], Tensor]
) -> None:
    versions, sound = MemoryMeta(), checkpoint()
    other = {beside or NAME: of(sound.params[NAME])}
    params, trainer = (sound.params, other) if beside else ({**sound.params, **other}, {})
    versions.publish(replace(sound, params=params, trainer={**sound.trainer, **trainer}))
    with pytest.raises(CheckpointError, match=f"'{beside or NAME}' is torch.float.* of shape .*; restore"):
        ThetaCache(engine(), versions).get(1)


def test_a_version_that_lacks_a_value_is_refused_by_its_name() -> None:
    versions, sound = MemoryMeta(), checkpoint()
    versions.publish(replace(sound, params={n: v for n, v in sound.params.items() if n != NAME}))
    with pytest.raises(CheckpointError, match=f"'{NAME}' is missing"):
        ThetaCache(engine(), versions).get(1)


@pytest.mark.parametrize(
    ("name", "numbers", "lengths"),
    [
        ("prior", [0.5, 0.5], "5"),
        ("prior", None, "5"),
        ("prior", ["a"] * 5, "5"),
        ("calibration", [1.0, 0.0], "0 or 1 or 3"),
        ("calibration", [1.0, 0.0, float("nan")], "0 or 1 or 3"),
        ("calibration", [1.0, 0.0, 10**400], "0 or 1 or 3"),
        ("calibration", "abc", "0 or 1 or 3"),
    ],
)
def test_a_prior_or_calibration_of_another_length_or_of_no_numbers_is_refused(
    name: str, numbers: object, lengths: str
) -> None:
    versions = MemoryMeta()
    versions.publish(replace(checkpoint(), numbers={name: numbers}))
    with pytest.raises(CheckpointError, match=f"has a {name} that is not {lengths} finite numbers; restore"):
        ThetaCache(engine(), versions).get(1)


def test_version_0_is_no_theta() -> None:
    assert ThetaCache(engine(), MemoryMeta()).get(0).version == 0


def test_going_back_and_forth_between_versions_gives_each_as_it_is() -> None:
    versions = MemoryMeta()
    for version in (1, 2):
        versions.publish(checkpoint(version, seed=version))
    theta = ThetaCache(engine(), versions)
    for version in (1, 2, 1):
        meta: Meta = theta.get(version)
        assert meta.version == version
        assert bits(meta.params) == bits(checkpoint(seed=version).params)
