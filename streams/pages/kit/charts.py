"""A small chart kit that draws SVG: axes, lines, bars, dots, and values that show on hover without a script.

Positions are percentages of the plot area, so that a chart takes any width while its type keeps its size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, log10
from typing import NamedTuple

from streams.pages.kit.markup import Markup, element, join
from streams.pages.kit.phrases import MINUS

PLANE = 1000
"""Lines and bars are drawn in a square of this side, stretched over the plot area."""


class Tick(NamedTuple):
    """A place on an axis and what is written there."""

    at: float
    text: str


class Point(NamedTuple):
    """In the units of the axes."""

    x: float
    y: float


class Bar(NamedTuple):
    """From `left` to `right`, from zero to `height`."""

    left: float
    right: float
    height: float


class Readout(NamedTuple):
    """What shows while the pointer is between `left` and `right`; a guide is drawn in the middle."""

    left: float
    right: float
    text: str


@dataclass(frozen=True)
class Axis:
    """One direction of a plot; `label` names the quantity and its unit."""

    low: float
    high: float
    ticks: Sequence[Tick]
    label: str

    def share(self, value: float) -> float:
        """Return where the value lies, 0 at `low` and 1 at `high`."""
        return (value - self.low) / (self.high - self.low)


@dataclass(frozen=True)
class Frame:
    """The two axes of a plot."""

    x: Axis
    y: Axis

    def left(self, x: float) -> str:
        """Distance from the left edge, in percent."""
        return f"{100 * self.x.share(x):.3f}%"

    def top(self, y: float) -> str:
        """Distance from the top edge, in percent."""
        return f"{100 * (1 - self.y.share(y)):.3f}%"

    def at(self, x: float, y: float) -> str:
        """Coordinates in the plane, for a path."""
        return f"{PLANE * self.x.share(x):.1f} {PLANE * (1 - self.y.share(y)):.1f}"


def linear_axis(low: float, high: float, label: str, intervals: int = 5, unit: str = "") -> Axis:
    """Round numbers at about `intervals` steps, a power of ten times 1, 2 or 5 apart.

    >>> [tick.text for tick in linear_axis(0, 0.23, "loss").ticks]
    ['0', '0.05', '0.1', '0.15', '0.2']
    """
    if not low < high:
        low, high = low - 0.5, high + 0.5
    power = 10.0 ** floor(log10((high - low) / intervals))
    step = next(power * m for m in (1, 2, 5, 10) if power * m * intervals >= (high - low) * (1 - 1e-9))
    digits = max(0, ceil(-log10(step) - 1e-9))
    places = [i * step for i in range(ceil(low / step - 1e-9), floor(high / step + 1e-9) + 1)]
    return Axis(low, high, [Tick(at, _plain(at, digits) + unit) for at in places], label)


def line(frame: Frame, points: Sequence[Point], name: str) -> Markup:
    """A line through the points, for the plane; `name` is the predictor, which style gives its colour."""
    path = "M" + "L".join(frame.at(*point) for point in points)
    return element("path", d=path, class_=f"line {name}")


def band(frame: Frame, low: Sequence[Point], high: Sequence[Point], name: str) -> Markup:
    """The area between two lines over the same places, for the plane: an interval around a line."""
    path = "M" + "L".join(frame.at(*point) for point in (*low, *reversed(high))) + "Z"
    return element("path", d=path, class_=f"band {name}")


def dots(frame: Frame, points: Sequence[Point], name: str) -> Markup:
    """A dot on each point."""
    return join(
        element("circle", cx=frame.left(x), cy=frame.top(y), r=3, class_=f"dot {name}") for x, y in points
    )


def bars(frame: Frame, drawn: Sequence[Bar], name: str) -> Markup:
    """Bars standing on zero, for the plane, which cuts those that leave it."""
    path = "".join(
        f"M{frame.at(bar.left, 0)}L{frame.at(bar.left, bar.height)}"
        f"L{frame.at(bar.right, bar.height)}L{frame.at(bar.right, 0)}Z"
        for bar in drawn
    )
    return element("path", d=path, class_=f"bar {name}")


def level(frame: Frame, y: float) -> Markup:
    """A line across the plot at `y`."""
    return element("line", x1="0", x2="100%", y1=frame.top(y), y2=frame.top(y), class_="level")


def readouts(frame: Frame, values: Sequence[Readout]) -> Markup:
    """Strips that show their text, at the top right of the plot, while the pointer is over them."""
    return join(_readout(frame, value) for value in values)


def chart(frame: Frame, plane: Sequence[Markup], above: Sequence[Markup], describes: str) -> Markup:
    """Return the plot: a grid, what is drawn in the plane, what lies above it, and the axes.

    `describes` is what a screen reader says.
    """
    stretched = element(
        "svg",
        *plane,
        viewBox=f"0 0 {PLANE} {PLANE}",
        preserveAspectRatio="none",
        width="100%",
        height="100%",
    )
    drawn = element("svg", _grid(frame), stretched, *above, class_="chart", role="img", aria_label=describes)
    return join(
        (
            element("p", frame.y.label, class_="axis y"),
            drawn,
            element("p", frame.x.label, class_="axis x"),
        )
    )


def _grid(frame: Frame) -> Markup:
    rows = (join((level(frame, tick.at), _row_label(frame, tick))) for tick in frame.y.ticks)
    columns = (
        element("text", tick.text, x=frame.left(tick.at), y="100%", dy="20", text_anchor=_anchor(frame, tick))
        for tick in frame.x.ticks
    )
    return element("g", *rows, *columns, class_="grid")


def _anchor(frame: Frame, tick: Tick) -> str:
    # At the right edge a centred label would leave the page.
    return "end" if frame.x.share(tick.at) > 0.96 else "middle"


def _row_label(frame: Frame, tick: Tick) -> Markup:
    return element("text", tick.text, x="0", y=frame.top(tick.at), dx="-10", dy="4", text_anchor="end")


def _readout(frame: Frame, value: Readout) -> Markup:
    middle = frame.left((value.left + value.right) / 2)
    width = 100 * (frame.x.share(value.right) - frame.x.share(value.left))
    return element(
        "g",
        element("rect", x=frame.left(value.left), y="0", width=f"{width:.3f}%", height="100%"),
        element("line", x1=middle, x2=middle, y1="0", y2="100%"),
        element("text", value.text, x="100%", y="0", dy="-10", text_anchor="end"),
        class_="readout",
    )


def _plain(value: float, digits: int) -> str:
    text = f"{round(value, digits) + 0.0:,.{digits}f}".replace("-", MINUS)
    return text.rstrip("0").rstrip(".") if digits else text
