"""Drawn charts, measured in their pixels: heights are the table's numbers, colours are the named
ones."""

import numpy as np
import pytest

from experiments.charts.drawing import draw_chart
from experiments.charts.shapes import COLORS, Chart, Series
from experiments.charts.tables import Cell


def bar_chart(values: dict[str, float]) -> Chart:
    series = tuple(
        Series(color=color, cells=(Cell(row=color, value=value),))
        for color, value in values.items()
    )
    return Chart(kind="bar", series=series, affirms_comparison=True, affirms_presence=True)


def line_chart(lines: dict[str, list[float]]) -> Chart:
    series = tuple(
        Series(color=color, cells=tuple(Cell(row=color, value=value) for value in values))
        for color, values in lines.items()
    )
    return Chart(kind="line", series=series, affirms_comparison=True, affirms_presence=True)


def places(chart: Chart, color: str, *, side_px: int = 112) -> tuple[np.ndarray, np.ndarray]:
    """Return rows and columns of the pixels that have just this colour."""
    pixels = np.asarray(draw_chart(chart, side_px=side_px))
    return np.nonzero((pixels == COLORS[color]).all(axis=2))


@pytest.mark.parametrize("side_px", [112, 224])
def test_bars_are_as_tall_as_their_numbers(side_px: int) -> None:
    values = {"red": 3.0, "blue": 9.0, "yellow": 6.0, "black": 1.0}
    chart = bar_chart(values)
    heights = {color: np.ptp(places(chart, color, side_px=side_px)[0]) + 1 for color in values}
    for color, value in values.items():
        assert heights[color] / heights["blue"] == pytest.approx(value / 9.0, abs=3 / side_px)
    lefts = [places(chart, color, side_px=side_px)[1].min() for color in values]
    assert lefts == sorted(lefts)


def test_lines_go_from_edge_to_edge_and_end_where_their_numbers_do() -> None:
    chart = line_chart({"green": [10.0, 11.0, 12.0], "purple": [20.0, 18.0, 18.0]})
    rows, columns = places(chart, "green")
    assert rows[columns == columns.max()].mean() < 12
    rows, columns = places(chart, "purple")
    assert rows[columns == columns.max()].mean() > 100
    assert columns.max() - columns.min() > 0.8 * 112


def test_the_same_chart_is_the_same_picture() -> None:
    chart = bar_chart({"green": 2.0, "purple": 5.5})
    picture = draw_chart(chart, side_px=112)
    assert (picture.size, picture.mode) == ((112, 112), "RGB")
    assert picture.tobytes() == draw_chart(chart, side_px=112).tobytes()
