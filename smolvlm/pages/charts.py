"""Curves as inline SVG: real text, colours from the page's own variables, so that one drawing serves light and dark."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH, HEIGHT = 720, 250
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 12, 40


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """One line of a chart."""

    label: str
    points: tuple[tuple[float, float], ...]
    css_class: str
    """Which of the page's line styles draws it."""


def line_chart(curves: Sequence[Curve], *, x_label: str, y_label: str, from_zero: bool = True) -> Markup | None:
    """Return a chart, or None where no curve has two points.

    Args:
        curves: drawn in order, the last on top.
        x_label: what the horizontal axis counts, with its unit.
        y_label: what the vertical axis measures, with its unit.
        from_zero: whether the vertical axis begins at 0 (no value may be below it then).
    """
    points = [point for curve in curves if len(curve.points) > 1 for point in curve.points]
    if not points:
        return None
    x_ticks = ticks(min(x for x, _ in points), max(x for x, _ in points))
    lowest = 0.0 if from_zero else min(y for _, y in points)
    y_ticks = ticks(lowest, max(y for _, y in points))
    left, right = min(x for x, _ in points), max(x for x, _ in points)
    low, high = min(lowest, y_ticks[0]), max(y_ticks[-1], max(y for _, y in points))

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - left) / ((right - left) or 1)
        up = (y - low) / ((high - low) or 1)
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    parts = [
        Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">').format(WIDTH, HEIGHT, y_label)
    ]
    for value in y_ticks:
        _, y = place(left, value)
        parts.append(
            Markup('<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(LEFT, WIDTH - RIGHT, y, y)
        )
        parts.append(
            Markup('<text x="{}" y="{:.1f}" text-anchor="end">{}</text>').format(LEFT - 8, y + 4, _number(value))
        )
    for value in (value for value in x_ticks if left <= value <= right):
        x, _ = place(value, low)
        parts.append(
            Markup('<text x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(
                x, HEIGHT - BOTTOM + 18, _number(value)
            )
        )
    for curve in curves:
        path = " ".join("{:.1f},{:.1f}".format(*place(x, y)) for x, y in curve.points)
        parts.append(Markup('<polyline class="{}" points="{}"/>').format(curve.css_class, path))
    parts.append(Markup('<text x="{}" y="{}" text-anchor="end">{}</text>').format(WIDTH - RIGHT, HEIGHT - 4, x_label))
    parts.append(Markup("</svg>"))
    return Markup("").join(parts)


def ticks(low: float, high: float, *, about: int = 5) -> list[float]:
    """Return round numbers from at most `low` to at least `high` - one step."""
    if high <= low:
        return [low]
    raw = (high - low) / about
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = next(size * magnitude for size in (1, 2, 5, 10) if size * magnitude >= raw)
    first = math.floor(low / step)
    return [round(number * step, 12) for number in range(first, math.floor(high / step + 1e-9) + 1)]


def smoothed(points: Sequence[tuple[float, float]], *, weight: float = 0.9) -> tuple[tuple[float, float], ...]:
    """Return the exponential moving mean of a curve, corrected for its start."""
    mean, total, found = 0.0, 0.0, []
    for x, y in points:
        mean = weight * mean + (1 - weight) * y
        total = weight * total + (1 - weight)
        found.append((x, mean / total))
    return tuple(found)


def _number(value: float) -> str:
    return str(escape(f"{value:,.0f}" if abs(value) >= 10 or value == int(value) else f"{value:.3g}"))
