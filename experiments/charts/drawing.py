"""Draws a chart with Pillow: bars on a ground line, or lines from edge to edge; no text, only
colours and lengths.

In: a `Chart`. Out: a square picture. It is drawn four times larger and averaged down, so that edges
are smooth and equal on every machine. Nothing is written into the picture: a small model at 112
pixels could not read it, and what is asked can be seen without.
"""

from PIL import Image, ImageDraw

from experiments.charts.shapes import COLORS, Chart

_FINE = 4
"""How many times larger the picture is drawn."""
_MARGIN = 0.06
_BAR_WIDTH = 0.66
"""Of its slot."""
_LINE_WIDTH = 0.035
_FRAME = (120, 120, 120)
_GRID = (225, 225, 225)


def draw_chart(chart: Chart, *, side_px: int) -> Image.Image:
    """Return the chart as a picture of `side_px` squared."""
    fine_px = side_px * _FINE
    picture = Image.new("RGB", (fine_px, fine_px), "white")
    draw = ImageDraw.Draw(picture)
    near, far = _MARGIN * fine_px, (1 - _MARGIN) * fine_px
    for part in range(5):
        y = near + (far - near) * part / 4
        draw.line([(near, y), (far, y)], fill=_GRID, width=_FINE)
    if chart.kind == "bar":
        _draw_bars(draw, chart, near=near, far=far)
    else:
        _draw_lines(draw, chart, near=near, far=far)
    draw.line([(near, near), (near, far), (far, far)], fill=_FRAME, width=_FINE)
    return picture.reduce(_FINE)


def _draw_bars(draw: ImageDraw.ImageDraw, chart: Chart, *, near: float, far: float) -> None:
    _, top = chart.span()
    slot = (far - near) / len(chart.series)
    for place, series in enumerate(chart.series):
        left = near + slot * (place + (1 - _BAR_WIDTH) / 2)
        height = (far - near) * series.heights()[0] / top
        draw.rectangle(
            [left, far - height, left + slot * _BAR_WIDTH, far], fill=COLORS[series.color]
        )


def _draw_lines(draw: ImageDraw.ImageDraw, chart: Chart, *, near: float, far: float) -> None:
    bottom, top = chart.span()
    width = _LINE_WIDTH * (far - near)
    for series in chart.series:
        heights = series.heights()
        points = [
            (
                near + (far - near) * place / (len(heights) - 1),
                far - width / 2 - (far - near - width) * (height - bottom) / (top - bottom),
            )
            for place, height in enumerate(heights)
        ]
        draw.line(points, fill=COLORS[series.color], width=round(width), joint="curve")
