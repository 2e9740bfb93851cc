"""Examples in a folder of images: FOLDER/CLASS/image.png, or FOLDER/TASK/CLASS/image.png."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from warnings import catch_warnings, simplefilter

import numpy as np
from PIL import ExifTags, Image

from engine.features.encoder import Features
from engine.features.pixels import Pixels
from engine.types import Float32
from streams.errors import InputError
from streams.events.record import Record
from streams.laboratory.source import ONE_TASK, Source, example

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What puts an image upright, by its EXIF orientation."""

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp"}


class Found(NamedTuple):
    """An image, and what its folders say of it."""

    path: Path
    task: str
    label: str


def read_images(folder: Path, side: int, channels: int) -> Source:
    """Read every image, scaled to a square; what is no image by its suffix is passed over.

    Raises:
        InputError: a folder has no images or an image cannot be read; names it.

    """
    found = list(_found(folder))
    x = np.stack([_pixels(image.path, side, channels) for image in found])

    def records() -> Iterator[Record]:
        """Every image, folder by folder."""
        return (example(i, one.task, one.label, 0.0, {}, i + 1) for i, one in enumerate(found))

    return Source(str(folder), "image", records, Features((Pixels("image", side, channels),)), False, x)


def _found(folder: Path) -> Iterator[Found]:
    """Images of classes, or of classes of tasks; which of the two, the first folder tells."""
    outer = _folders(folder)
    nested = bool(_folders(outer[0])) if outer else False
    for one in outer:
        for label in _folders(one) if nested else [one]:
            images = sorted(path for path in label.iterdir() if path.suffix.lower() in SUFFIXES)
            if not images or _folders(label):
                raise InputError(
                    f"{label}: expected images of one class and no folders; put them as {folder}/CLASS/ or as "
                    f"{folder}/TASK/CLASS/, all at one depth"
                )
            yield from (Found(path, one.name if nested else ONE_TASK, label.name) for path in images)
        if nested and not _folders(one):
            raise InputError(f"{one}: a task without folders of classes, beside tasks that have some")
    if not outer:
        raise InputError(f"{folder}: no folders in it; put images as {folder}/CLASS/ or {folder}/TASK/CLASS/")


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _pixels(path: Path, side: int, channels: int) -> Float32:
    """One image as a stored row [W], channel by channel, from 0 to 1."""
    try:
        with catch_warnings():
            simplefilter("ignore", UserWarning)  # of what lies beside the pixels
            with Image.open(path) as image:
                shown = _as_shown(image).convert("RGB" if channels == 3 else "L")
        scaled = shown.resize((side, side), Image.Resampling.BOX)
        pixels = np.asarray(scaled, np.float32).reshape(side, side, channels)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: cannot be read as an image ({error}); mend it or take it out") from error
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)).reshape(-1) / np.float32(255)


def _upright(image: Image.Image) -> Image.Image:
    """The image turned as its EXIF data say, where they can be read."""
    try:
        turn = TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # what a camera wrote beside sound pixels may be anything
        turn = None
    return image if turn is None else image.transpose(turn)


def _as_shown(image: Image.Image) -> Image.Image:
    """The image as a viewer shows it: upright, transparency on white, 16 bits of grey as 8.

    Raises:
        ValueError: its numbers have no known range.

    """
    image = _upright(image)
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError("pixels of 32 bits, whose range is not known: save it with 8 or 16")
    if not image.has_transparency_data:
        return image
    white = Image.new("RGBA", image.size, "white")
    white.alpha_composite(image.convert("RGBA"))
    return white
