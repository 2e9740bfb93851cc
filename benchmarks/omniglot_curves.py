"""Accuracy over training time, of the learners that `benchmarks.omniglot --json` wrote figures of, as one picture.

python -m benchmarks.omniglot_curves FILE.json ... --svg docs/omniglot.svg
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import escape

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 760, 420, 52, 130, 16, 44
COLOURS = ("#1f5fa8", "#c2571a", "#2c8a4b", "#8a3b8f", "#a8892b", "#b3334f", "#3a8f96", "#666666", "#5b4bb5")
KEY = re.compile(r"omniglot\.(.+)\.after_([0-9.]+)_min")

Curve = list[tuple[float, float]]


def curves_in(files: Sequence[Path]) -> dict[str, Curve]:
    """Accuracy (percent) by minutes of training, for each learner."""
    curves: dict[str, Curve] = {}
    for file in files:
        for key, value in json.loads(file.read_text()).items():
            if found := KEY.fullmatch(key):
                curves.setdefault(found[1], []).append((float(found[2]), float(value)))
    return {name: sorted(points) for name, points in curves.items()}


def drawn(curves: dict[str, Curve]) -> str:
    """The picture as SVG; each line is labelled at its end, the labels kept apart."""
    longest = max(points[-1][0] for points in curves.values())
    low = min(points[1][1] for points in curves.values()) // 10 * 10  # what comes before is cut off below

    def x(minutes: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * minutes / longest

    def y(percent: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (percent - low) / (100 - low)

    parts = [f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>']
    parts.append(f'<clipPath id="plot"><rect width="{WIDTH}" height="{HEIGHT - BOTTOM}"/></clipPath>')
    for percent in range(int(low), 101, 5):
        parts.append(f'<path d="M{LEFT} {y(percent):.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        parts.append(_text(LEFT - 8, y(percent) + 4, str(percent), "end"))
    for minutes in range(0, int(longest) + 1, 5):
        parts.append(_text(x(minutes), HEIGHT - BOTTOM + 18, str(minutes), "middle"))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, "minutes of training on one core", "middle"))
    parts.append(_text(LEFT, TOP - 3, "5-way 1-shot accuracy (%), classes not trained on", "start"))
    ends = sorted(curves, key=lambda name: -curves[name][-1][1])
    lowest = TOP - 6.0
    for name, colour in zip(ends, COLOURS, strict=False):
        path = "L".join(f"{x(minutes):.1f} {y(percent):.1f}" for minutes, percent in curves[name])
        parts.append(
            f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="1.8" clip-path="url(#plot)"/>'
        )
        last, best = curves[name][-1]
        lowest = max(lowest + 14, y(best) + 4)
        parts.append(_text(x(last) + 6, lowest, f"{name} {best:.1f}", "start", colour))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        f'font-size="12">{"".join(parts)}</svg>\n'
    )


def _text(x: float, y: float, text: str, anchor: str, colour: str = "#333") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{escape(text)}</text>'


def main() -> None:
    """Draw the files that were named."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--svg", type=Path, required=True, help="where to draw")
    asked = parser.parse_args()
    asked.svg.write_text(drawn(curves_in(asked.files)))


if __name__ == "__main__":
    main()
