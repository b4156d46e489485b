"""A picture of lines and points, as SVG; nothing is drawn that was not measured or computed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 760, 460
LEFT, RIGHT, TOP, BOTTOM = 64, 190, 44, 52
COLOURS = ("#64748b", "#d97706", "#2563eb", "#059669", "#be123c")
FONT = "font-family='system-ui, sans-serif'"


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One line of a picture."""

    name: str
    points: Sequence[tuple[float, float]]
    """(x, y), x rising."""
    colour: int
    """Index into `COLOURS`."""
    is_bound: bool = False
    """Computed, not measured: dashed and without marks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Axes:
    """What is drawn against what; both axes are logarithmic."""

    title: str
    x: str
    y: str


def svg(axes: Axes, series: Sequence[Series]) -> str:
    """The picture; raises ValueError where there is nothing to draw, or a value is not above 0."""
    points = [point for each in series for point in each.points]
    if not points or min(min(point) for point in points) <= 0:
        raise ValueError("a picture with logarithmic axes needs points above 0")
    xs, ys = _ticks([x for x, _ in points]), _ticks([y for _, y in points])
    scale = _Scale(xs[0], xs[-1], ys[0], ys[-1])
    return "\n".join(
        [
            f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {HEIGHT}' {FONT}>",
            f"<rect width='{WIDTH}' height='{HEIGHT}' fill='white'/>",
            _text(LEFT, 24, axes.title, size=16),
            *_grid(scale, xs, ys),
            _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12, axes.x, anchor="middle"),
            _text(LEFT, TOP - 4, axes.y, size=11),
            *(part for each in series for part in _line(scale, each)),
            *(part for row, each in enumerate(series) for part in _legend(row, each)),
            "</svg>\n",
        ]
    )


@dataclass(frozen=True, slots=True)
class _Scale:
    """From values to places."""

    x_min: float
    x_max: float
    y_min: float
    y_max: float

    def x(self, value: float) -> float:
        share = math.log(value / self.x_min) / math.log(self.x_max / self.x_min)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        share = math.log(value / self.y_min) / math.log(self.y_max / self.y_min)
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)


def _ticks(values: Sequence[float]) -> list[float]:
    """1, 2, 5, 10, ... around all values; two at least."""
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values))) + 1
    steps = [digit * 10.0**power for power in range(low, high + 1) for digit in (1, 2, 5)]
    first = max(index for index, step in enumerate(steps) if step <= min(values) * (1 + 1e-9))
    last = min(index for index, step in enumerate(steps) if step >= max(values) * (1 - 1e-9))
    return steps[first : max(last, first + 1) + 1]


def _grid(scale: _Scale, xs: Sequence[float], ys: Sequence[float]) -> Iterator[str]:
    for x in xs:
        at = scale.x(x)
        yield _path([(at, TOP), (at, HEIGHT - BOTTOM)], "#e2e8f0")
        yield _text(at, HEIGHT - BOTTOM + 18, f"{x:g}", anchor="middle", size=12)
    for y in ys:
        at = scale.y(y)
        yield _path([(LEFT, at), (WIDTH - RIGHT, at)], "#e2e8f0")
        yield _text(LEFT - 8, at + 4, f"{y:g}", anchor="end", size=12)


def _line(scale: _Scale, series: Series) -> Iterator[str]:
    places = [(scale.x(x), scale.y(y)) for x, y in series.points]
    colour = COLOURS[series.colour]
    yield _path(places, colour, width=2, is_dashed=series.is_bound)
    if not series.is_bound:
        yield from (
            f"<circle cx='{x:.1f}' cy='{y:.1f}' r='3.5' fill='{colour}'/>" for x, y in places
        )


def _legend(row: int, series: Series) -> Iterator[str]:
    x, y = WIDTH - RIGHT + 16, TOP + 14 + 22 * row
    yield _path([(x, y - 4), (x + 26, y - 4)], COLOURS[series.colour], 2, series.is_bound)
    yield _text(x + 34, y, series.name, size=12)


def _path(
    places: Sequence[tuple[float, float]], colour: str, width: int = 1, is_dashed: bool = False
) -> str:
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    dashes = " stroke-dasharray='6 4'" if is_dashed else ""
    return (
        f"<polyline points='{points}' fill='none' stroke='{colour}' "
        f"stroke-width='{width}'{dashes}/>"
    )


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: int = 13) -> str:
    place = f"x='{x:.1f}' y='{y:.1f}' text-anchor='{anchor}' font-size='{size}'"
    return f"<text {place} fill='#0f172a'>{escape(text)}</text>"
