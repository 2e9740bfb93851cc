"""Own examples: read alike from every kind of source, split without a leak, and refused in a sentence."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from engine.episodes.task_source import ClassEpisodes, Examples
from engine.evaluation.episodic.evaluate import tasks_of
from engine.features.columns import Numeric
from engine.features.encoder import Features
from engine.learners.prototype import PrototypeLearner
from engine.targets import Classification
from engine.types import Batch, EngineError, Fast, Params
from streams.errors import InputError, ReptideError, SettingsError
from streams.laboratory.assembled import Laboratory, laboratory
from streams.laboratory.images import _pixels
from streams.laboratory.splits import split
from streams.settings.examples import Episodes
from streams.settings.tree import load_settings

CLASSES = "abcdefghijklmno"

TABLE = """
[examples]
path = "{path}"
task = ["user"]
label = "bought"
time = "at"
[episodes]
shots = 2
queries = 2
{episodes}
[target]
classes = ["no", "yes"]
[[features]]
encoder = "numeric"
name = "price"
"""


def visits(users: int = 10, each: int = 6) -> pl.DataFrame:
    rng = np.random.default_rng(0)
    return pl.DataFrame(
        {
            "user": [f"u{i // each}" for i in range(users * each)],
            "at": np.arange(users * each) * 60.0,
            "price": rng.normal(size=users * each),
            "bought": ["yes" if i % 2 else "no" for i in range(users * each)],
        }
    )


def opened(folder: Path, text: str) -> Laboratory:
    config = folder / "settings.toml"
    config.write_text(text, encoding="utf-8")
    return laboratory(load_settings(config, {}))


def refusal(folder: Path, text: str) -> str:
    with pytest.raises((ReptideError, EngineError)) as caught:
        opened(folder, text)
    return str(caught.value)


def of_arrays(folder: Path, more: str = "ways = 2\nshots = 1", **arrays: Any) -> str:
    np.savez(folder / "own.npz", **arrays)
    return f'[examples]\npath = "own.npz"\n[episodes]\nqueries = 1\n{more}\n'


def drawings(folder: Path, *names: str, each: int = 3) -> Path:
    rng = np.random.default_rng(1)
    for name in names:
        (folder / name).mkdir(parents=True)
        for i in range(each):
            pixels = rng.integers(0, 256, (9, 7, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    return folder


def of_folder(folder: Path, more: str = "") -> str:
    return f'[examples]\npath = "{folder.name}"\nside = 4\n{more}\n[episodes]\nways = 2\nshots = 1\nqueries = 1\n'


# What is read


def test_a_table_is_the_same_examples_in_every_format(tmp_path: Path) -> None:
    table = visits()
    table.write_csv(tmp_path / "own.csv")
    table.write_parquet(tmp_path / "own.parquet")
    table.write_ndjson(tmp_path / "own.jsonl")
    read = [
        opened(tmp_path, TABLE.format(path=f"own.{suffix}", episodes="")).labelled.examples
        for suffix in ("csv", "parquet", "jsonl")
    ]
    for other in read[1:]:
        for column, same in zip(read[0], other, strict=True):
            np.testing.assert_array_equal(column, same)
    np.testing.assert_array_equal(read[0].task, np.arange(60) // 6)
    np.testing.assert_array_equal(read[0].y, np.arange(60) % 2)
    np.testing.assert_array_equal(read[0].time_s, np.arange(60) * 60.0)


def test_the_rows_of_an_event_log_are_examples_and_those_that_a_stream_refuses_are_left_out(
    tmp_path: Path,
) -> None:
    table = visits().with_columns(
        bought=pl.when(pl.int_range(60) == 3).then(pl.lit("maybe")).otherwise("bought")
    )
    table.write_csv(tmp_path / "own.csv")
    text = TABLE.format(path="own.csv", episodes="temporal = true").replace("[examples]", "[input]")
    found = opened(tmp_path, text).labelled
    assert len(found.examples.y) == 59
    assert "maybe" in found.refused[0].detail


def test_an_example_without_a_label_is_passed_over(tmp_path: Path) -> None:
    table = visits().with_columns(bought=pl.when(pl.int_range(60) > 1).then("bought"))
    table.write_parquet(tmp_path / "own.parquet")
    found = opened(tmp_path, TABLE.format(path="own.parquet", episodes="")).labelled
    assert len(found.examples.y) == 58
    assert "(2 without a label passed over)" in found.said


def test_arrays_of_numbers_and_of_images_bring_their_own_features(tmp_path: Path) -> None:
    y = np.repeat(list(CLASSES), 3)
    numbers = opened(tmp_path, of_arrays(tmp_path, x=np.arange(90.0).reshape(45, 2), y=y))
    assert numbers.problem.features == Features((Numeric("x0"), Numeric("x1")))
    np.testing.assert_array_equal(numbers.labelled.examples.y, np.repeat(np.arange(15), 3))
    images = np.random.default_rng(0).integers(0, 256, (45, 4, 4, 3), dtype=np.uint8)
    coloured = opened(tmp_path, of_arrays(tmp_path, x=images, y=y)).labelled.examples.x
    np.testing.assert_array_equal(coloured[1], images[1].transpose(2, 0, 1).reshape(-1) / np.float32(255))


def test_images_of_a_folder_are_scaled_to_squares_and_their_folders_are_classes(tmp_path: Path) -> None:
    drawings(tmp_path / "own", *CLASSES)
    found = opened(tmp_path, of_folder(tmp_path / "own", "channels = 3")).labelled
    assert found.examples.x.shape == (45, 3 * 4 * 4)
    assert 0 <= found.examples.x.min() < found.examples.x.max() <= 1
    np.testing.assert_array_equal(found.examples.y, np.repeat(np.arange(15), 3))


def test_folders_of_folders_are_tasks_and_whole_tasks_are_held_out(tmp_path: Path) -> None:
    drawings(tmp_path / "own", *(f"{task}/{label}" for task in "pqrstuvwxy" for label in "ab"))
    found = opened(tmp_path, of_folder(tmp_path / "own"))
    tasks = [set(part.task.tolist()) for part in found.parts if part is not None]
    assert [len(one) for one in tasks] == [7, 1, 2]
    assert len(set.union(*tasks)) == 10


# What is kept apart


def test_no_task_and_where_there_is_one_task_no_class_is_in_two_parts() -> None:
    rng = np.random.default_rng(0)
    x, many = np.zeros((400, 1), np.float32), rng.integers(0, 20, 400)
    by_task = split(Examples(x, (many % 2).astype(np.float32), many, np.zeros(400)), Episodes(), seed=3)
    by_class = split(Examples(x, many.astype(np.float32), many * 0, np.zeros(400)), Episodes(ways=2), seed=3)
    for parts in (
        [set(part.task) for part in by_task if part],
        [set(part.y) for part in by_class if part],
    ):
        assert [len(part) for part in parts] == [14, 2, 4]
        assert len(set.union(*parts)) == 20


# What is done to episodes


def test_noise_moves_numbers_by_their_own_scale_and_leaves_the_ids_of_categories(tmp_path: Path) -> None:
    visits().with_columns(price=pl.col("price") * 1000, shop=pl.lit("x")).write_parquet(
        tmp_path / "own.parquet"
    )
    more = '\n[[features]]\nencoder = "category"\nname = "shop"\n'
    plain = opened(tmp_path, TABLE.format(path="own.parquet", episodes="") + more)
    noisy = opened(
        tmp_path, TABLE.format(path="own.parquet", episodes='augment = ["noise"]\nnoise = 0.5') + more
    )
    moved = (
        noisy.taught().draw(40, seed=0, step=0).support.x - plain.taught().draw(40, seed=0, step=0).support.x
    )
    assert not moved[..., 1].any()
    assert 400 < moved[..., 0].std() < 600


@pytest.mark.parametrize("name", ["rotate", "shift", "mixup"])
def test_an_augmentation_that_does_not_go_with_the_features_is_refused(tmp_path: Path, name: str) -> None:
    visits().write_parquet(tmp_path / "own.parquet")
    text = TABLE.format(path="own.parquet", episodes=f'augment = ["{name}"]')
    of_categories = text.replace('"numeric"\nname = "price"', '"category"\nname = "user"')
    assert f"'{name}'" in refusal(tmp_path, of_categories)


def test_images_may_be_turned_shifted_and_blended(tmp_path: Path) -> None:
    drawings(tmp_path / "own", *CLASSES)
    found = opened(
        tmp_path, of_folder(tmp_path / "own") + 'augment = ["rotate", "shift", "mixup", "permute"]\n'
    )
    one, again = (found.taught().draw(3, seed=0, step=5) for _ in range(2))
    assert torch.equal(one.query.x, again.query.x)


# What is refused


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.drop("price"), "no column 'price'"),
        (lambda t: t.drop("bought"), "no column 'bought'"),
        (lambda t: t.with_columns(bought=pl.lit("maybe")), "row 1: label 'maybe' is none of"),
        (lambda t: t.with_columns(bought=pl.lit(float("nan"))), "row 1: label nan is none of"),
        (lambda t: t.with_columns(price=pl.lit("dear")), "row 1: field 'price': expected a number"),
        (lambda t: t.with_columns(at=pl.lit("soon")), "row 1: time: expected seconds since the epoch"),
        (lambda t: t.with_columns(bought=pl.lit(None, pl.String)), "no example that could be read"),
        (lambda t: t.with_columns(user=pl.lit("ann")), "too few to hold 2 out"),
    ],
)
def test_a_table_that_cannot_be_trained_on_is_refused(
    tmp_path: Path, change: Callable[..., Any], said: str
) -> None:
    change(visits()).write_parquet(tmp_path / "own.parquet")
    assert said in refusal(tmp_path, TABLE.format(path="own.parquet", episodes=""))


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"x": np.zeros((4, 1))}, "no array 'y'; the arrays are x"),
        ({"x": np.zeros((4, 1)), "y": np.zeros(3)}, "the shapes are"),
        ({"x": np.zeros((0, 1)), "y": np.zeros(0)}, "at least 1"),
        ({"x": np.zeros((4, 2, 3)), "y": np.arange(4)}, "images must be square"),
        ({"x": np.full((4, 2, 2), 7.0), "y": np.arange(4)}, "from 0 to 1"),
        ({"x": np.array([[0.0], [np.nan]]), "y": np.arange(2)}, "not finite in 1 rows, the first is row 2"),
        ({"x": np.array([["a"]]), "y": np.arange(1)}, "must hold numbers"),
        ({"x": np.zeros((3, 1)), "y": np.array([0.0, 1.0, np.nan])}, "row 3: label nan"),
        ({"x": np.zeros((3, 1)), "y": np.zeros(3)}, "the labels are no classes"),
        ({"x": np.array([[None]]), "y": np.zeros(1)}, "cannot be read as a NumPy archive"),
        ({"x": np.zeros((8, 1)), "y": np.arange(8)}, "too few examples"),
    ],
)
def test_arrays_that_do_not_go_together_are_refused(
    tmp_path: Path, arrays: dict[str, npt.NDArray[np.float64]] | dict[str, npt.NDArray[Any]], said: str
) -> None:
    text = of_arrays(tmp_path, **arrays)
    assert said in refusal(tmp_path, text)


def test_arrays_are_not_taken_for_what_a_column_derived_from_numbers_makes_of_them(tmp_path: Path) -> None:
    feature = '[[features]]\nname = "x"\nencoder = "tests.streams.test_plug_ins:Root"\n'
    text = of_arrays(tmp_path, x=np.arange(40.0).reshape(40, 1), y=np.arange(40) % 4)
    assert 'each with encoder = "numeric"' in refusal(tmp_path, text + feature)


def test_a_pickle_is_never_opened(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return sys.exit, ("opened",)

    text = of_arrays(tmp_path, x=np.array([Bomb()], object), y=np.zeros(1))
    assert "cannot be read" in refusal(tmp_path, text)


def test_an_image_that_is_none_is_named(tmp_path: Path) -> None:
    drawings(tmp_path / "own", "a", "b")
    (tmp_path / "own" / "b" / "1.png").write_bytes(b"not an image")
    assert str(tmp_path / "own" / "b" / "1.png") in refusal(tmp_path, of_folder(tmp_path / "own"))


@pytest.mark.parametrize("empty", ["", "c", "a/deep"])
def test_a_folder_that_is_not_as_it_should_be_is_named(tmp_path: Path, empty: str) -> None:
    if empty:
        drawings(tmp_path / "own", "a", "b")
    (tmp_path / "own" / empty).mkdir(parents=True)
    said = refusal(tmp_path, of_folder(tmp_path / "own"))
    assert "FOLDER" not in said
    assert str(tmp_path / "own") in said
    assert "CLASS" in said


def test_images_without_pillow_name_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawings(tmp_path / "own", "a", "b")
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.delitem(sys.modules, "streams.laboratory.images", raising=False)
    with pytest.raises(InputError, match=r"\.\[images\]"):
        opened(tmp_path, of_folder(tmp_path / "own"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[examples]\npath = "none.csv"\n[episodes]\nways = 2\n', "no file or folder"),
        ('[examples]\npath = "own.csv"\nlabel = "bought"\n[episodes]\nways = 2\n', "features: "),
        (TABLE.format(path="own.csv", episodes="ways = 2"), "leave [target] out"),
        (TABLE.format(path="own.csv", episodes="temporal = true").replace('time = "at"', ""), "no times"),
        (TABLE.format(path="own.csv", episodes="held_out = 0.6\nvalidation = 0.4"), "nothing to train on"),
        (TABLE.format(path="own.csv", episodes="") + "[outer]\nmomentum = 0.9", "'Adam' takes no momentum"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(tmp_path: Path, text: str, said: str) -> None:
    visits().write_csv(tmp_path / "own.csv")
    assert said in refusal(tmp_path, text)


# What would go wrong later


@pytest.mark.parametrize(
    ("name", "said"),
    [("with_dropout", "two forward passes over the same rows differ"), ("with_batch_norm", "changes the buffers"),
     ("of_wrong_sizes", "checking that")],
)  # fmt: skip
def test_a_network_that_mixes_tasks_or_draws_numbers_is_refused(tmp_path: Path, name: str, said: str) -> None:
    visits().write_parquet(tmp_path / "own.parquet")
    network = f'[model]\nnetwork = "tests.streams.test_examples:{name}"\n'
    assert said in refusal(tmp_path, TABLE.format(path="own.parquet", episodes="") + network)


def with_dropout(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, 8), nn.Dropout(), nn.Linear(8, outputs))


def with_batch_norm(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, 8), nn.BatchNorm1d(8), nn.Linear(8, outputs))


def of_wrong_sizes(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs + 1, 8), nn.Linear(8, outputs))


@pytest.mark.parametrize(
    ("episodes", "said"),
    [
        ("steps = [10, 5]", "steps must rise"),
        ("judged_shots = [3, 3]", "judged_shots must be different"),
        ("judged_shots = [0]", "judged_shots must be different"),
        ("held_out = 0.9\nvalidation = 0.09", "they leave nothing to train on"),
    ],
)
def test_what_an_evaluation_would_refuse_is_refused_before_training(
    tmp_path: Path, episodes: str, said: str
) -> None:
    visits().write_parquet(tmp_path / "own.parquet")
    assert said in refusal(tmp_path, TABLE.format(path="own.parquet", episodes=episodes))


@pytest.mark.parametrize("learner", ["matching", "snail", "transformer"])
def test_more_shots_than_a_stream_would_keep_are_adapted_on(tmp_path: Path, learner: str) -> None:
    visits(each=30).write_parquet(tmp_path / "own.parquet")
    text = TABLE.format(path="own.parquet", episodes="judged_shots = [2, 20]").replace(
        "shots = 2\n", "shots = 20\n"
    )
    found = opened(tmp_path, f'learner = "{learner}"\n{text}[memory]\nsupport = 4\n')
    support = found.held_out(20).draw(2, seed=0, step=0).support
    assert support.x.shape[1] >= 20
    assert found.learner.adapt(found.learner.init(0), support)


class OfEight(PrototypeLearner):
    def adapt_differentiably(self, meta: Params, support: Batch, *, second_order: bool) -> Fast:
        if support.x.shape[1] > 8:
            raise EngineError(f"{support.x.shape[1]} examples are more than 8")
        return super().adapt_differentiably(meta, support, second_order=second_order)


def test_the_largest_of_uneven_support_sets_is_tried_before_training(tmp_path: Path) -> None:
    users = pl.concat([visits(users=20), visits(users=1, each=60).with_columns(user=pl.lit("busy"))])
    users.write_parquet(tmp_path / "own.parquet")
    text = TABLE.format(path="own.parquet", episodes="balanced = true").replace("shots = 2", "shots = 5")
    said = refusal(tmp_path, f'learner = "{__name__}:OfEight"\n{text}')
    assert "with 5 shots: 10 examples are more than 8" in said


def test_a_number_has_no_classes_to_balance(tmp_path: Path) -> None:
    visits().with_columns(bought=pl.col("price")).write_parquet(tmp_path / "own.parquet")
    text = TABLE.format(path="own.parquet", episodes="balanced = true")
    assert "no classes to balance" in refusal(
        tmp_path, text.replace('classes = ["no", "yes"]', "low = -9\nhigh = 9")
    )


def test_labels_that_are_all_one_class_are_refused(tmp_path: Path) -> None:
    visits().with_columns(bought=pl.lit("yes")).write_parquet(tmp_path / "own.parquet")
    assert "every label is 'yes'" in refusal(tmp_path, TABLE.format(path="own.parquet", episodes=""))


def test_episodes_of_classes_may_come_from_an_event_log(tmp_path: Path) -> None:
    visits(users=5, each=12).write_parquet(tmp_path / "own.parquet")
    text = TABLE.format(path="own.parquet", episodes="ways = 2").replace("[examples]", "[input]")
    found = opened(tmp_path, text.replace('[target]\nclasses = ["no", "yes"]', ""))
    assert isinstance(found.problem.target, Classification)
    assert found.problem.target.exchangeable
    assert "held out 24 of 4 classes" in found.said


def test_domains_are_held_out_by_two_so_that_an_interval_can_count_them(tmp_path: Path) -> None:
    visits(users=4, each=12).write_parquet(tmp_path / "own.parquet")
    text = TABLE.format(path="own.parquet", episodes="ways = 2")
    said = refusal(tmp_path, text.replace('[target]\nclasses = ["no", "yes"]', ""))
    assert "of 4 tasks, too few to hold 2 out and have 2 left to train on" in said


def test_domains_of_which_one_alone_has_enough_examples_are_no_interval() -> None:
    y, task = np.repeat(np.arange(6.0), [9, 9, 9, 2, 2, 2]), np.repeat([0, 1], [27, 6])
    one = ClassEpisodes(Examples(np.zeros((33, 1), np.float32), y, task, np.zeros(33)), 2, 3, 2)
    with pytest.raises(EngineError, match="all episodes are of one task"):
        tasks_of(one, 50, 0)


@pytest.mark.parametrize("learner", ["gradient", "prototype"])
def test_a_network_may_keep_whole_numbers(tmp_path: Path, learner: str) -> None:
    visits().write_parquet(tmp_path / "own.parquet")
    network = '[model]\nnetwork = "tests.streams.test_examples:with_an_index"\n'
    found = opened(
        tmp_path, f'learner = "{learner}"\n' + TABLE.format(path="own.parquet", episodes="") + network
    )
    assert not found.learner.init(0)["1.1.order"].is_floating_point()


class Reordered(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("order", torch.arange(width).flip(0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[..., self.get_buffer("order")]


def with_an_index(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, 8), Reordered(8), nn.Linear(8, outputs))


@pytest.mark.parametrize("flag", ["run.device=gpu", "run.device=cuda:99", "run.seed=-1", "inner.lr=1e30"])
def test_settings_that_cannot_be_used_are_named(tmp_path: Path, flag: str) -> None:
    visits().write_parquet(tmp_path / "own.parquet")
    config = tmp_path / "settings.toml"
    config.write_text(TABLE.format(path="own.parquet", episodes=""), encoding="utf-8")
    with pytest.raises(SettingsError, match=flag.partition("=")[0]):
        laboratory(load_settings(config, {}, (flag,)))


# Files as they are found


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x93NUMPY", b"no archive"])
def test_a_damaged_archive_is_refused_in_a_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "own.npz").write_bytes(content)
    text = '[examples]\npath = "own.npz"\n[episodes]\nways = 2\n'
    assert "cannot be read as a NumPy archive: " in refusal(tmp_path, text)


@settings(deadline=None, max_examples=60)
@given(place=st.integers(0, 1800), value=st.integers(0, 255))
def test_an_archive_with_any_byte_changed_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, place: int, value: int
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    text = of_arrays(folder, x=np.eye(12), y=np.arange(12) % 4)
    damaged = bytearray((folder / "own.npz").read_bytes())
    damaged[place % len(damaged)] = value
    (folder / "own.npz").write_bytes(damaged)
    with suppress(ReptideError):
        opened(folder, text)


def one_image(folder: Path, image: Image.Image, suffix: str = "png", **more: Any) -> np.ndarray:
    image.save(folder / f"image.{suffix}", **more)
    return _pixels(folder / f"image.{suffix}", 4, 1)


def test_what_is_transparent_is_white(tmp_path: Path) -> None:
    alpha = np.zeros((4, 4), np.uint8)
    alpha[1] = 255
    ink = Image.merge("LA", (Image.new("L", (4, 4)), Image.fromarray(alpha)))
    seen = one_image(tmp_path, ink).reshape(4, 4)
    assert seen[1].tolist() == [0, 0, 0, 0]
    assert (seen[[0, 2, 3]] == 1).all()


def test_sixteen_bits_of_grey_keep_their_scale(tmp_path: Path) -> None:
    grey = Image.fromarray(np.full((4, 4), 0x8000, np.uint16))
    np.testing.assert_allclose(one_image(tmp_path, grey), 128 / 255)


def test_a_photograph_is_turned_as_its_camera_was_held(tmp_path: Path) -> None:
    upright = np.zeros((4, 4), np.uint8)
    upright[0] = 255
    turned = Image.fromarray(np.rot90(upright).copy())
    exif = turned.getexif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    assert one_image(tmp_path, turned, exif=exif).reshape(4, 4)[0].min() > 0.9


@pytest.mark.parametrize("place", range(18))
def test_what_a_camera_wrote_wrongly_beside_sound_pixels_is_passed_over(tmp_path: Path, place: Any) -> None:
    image = Image.new("L", (4, 4), 255)
    exif = image.getexif()
    exif[0x0112], exif[0x010F] = 6, "camera"
    damaged = bytearray(exif.tobytes())
    damaged[-place - 1] ^= 0xFF
    damaged[6 + place] ^= 0xFF
    assert one_image(tmp_path, image, "jpg", exif=bytes(damaged)).min() > 0.9


def test_numbers_without_a_range_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="range is not known"):
        one_image(tmp_path, Image.fromarray(np.zeros((4, 4), np.float32)), "tif")
