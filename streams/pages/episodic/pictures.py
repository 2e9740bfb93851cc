"""Episodes drawn as images, each inside the page: a row adapted on, and a row that was predicted.

Portable Network Graphics (ISO/IEC 15948), section 5: a signature and three chunks, of which one holds the rows.
"""

from __future__ import annotations

import struct
import zlib
from base64 import b64encode

from engine.evaluation.episodic.report import DrawnEpisode, Image
from streams.pages.kit.markup import Markup, element

GREY, COLOUR = 0, 2
"""Colour types of the standard, for one channel and for three."""


def episode_figure(episode: DrawnEpisode, number: int) -> Markup:
    """One episode; what was predicted wrongly is marked, and says both classes."""
    right = sum(image["predicted"] == image["label"] for image in episode["query"])
    title = f"Episode {number}: {right} of the {len(episode['query'])} queries shown are right"
    return element(
        "figure",
        element("figcaption", element("h3", title)),
        _row("adapted on", episode, episode["support"]),
        _row("predicted", episode, episode["query"]),
        class_="episode",
    )


def png(image: Image, side: int, channels: int) -> bytes:
    """Encode a square image of one channel, or of three."""
    planes = [image["pixels"][c * side * side : (c + 1) * side * side] for c in range(channels)]
    rows = [
        b"\0" + bytes(plane[row * side + column] for column in range(side) for plane in planes)
        for row in range(side)
    ]
    header = struct.pack(">IIBBBBB", side, side, 8, GREY if channels == 1 else COLOUR, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(b"".join(rows), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*part) for part in parts)


def _row(name: str, episode: DrawnEpisode, images: list[Image]) -> Markup:
    drawn = (_tile(image, episode["side"], episode["channels"]) for image in images)
    return element("div", element("span", name, class_="row"), *drawn, class_="images")


def _tile(image: Image, side: int, channels: int) -> Markup:
    source = "data:image/png;base64," + b64encode(png(image, side, channels)).decode("ascii")
    drawn = element("svg", element("image", href=source, width="100%", height="100%"), class_="pixels")
    kind, said = _caption(image)
    return element("span", drawn, element("small", said), class_=f"tile {kind}")


def _caption(image: Image) -> tuple[str, str]:
    """How a tile is marked, and what stands beneath it; classes count from 1."""
    label, predicted = image["label"] + 1, image["predicted"]
    if predicted is None:
        return "given", f"class {label}"
    if predicted == image["label"]:
        return "right", f"✓ {label}"
    return "wrong", f"✗ {predicted + 1}, is {label}"


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
