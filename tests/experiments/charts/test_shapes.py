"""Charts as records: balanced over whole cycles, with differences that can be seen, the same for
the same seed."""

from collections import Counter
from collections.abc import Callable
from itertools import pairwise

import pytest

from experiments.charts.shapes import (
    BAR_CHARTS_PER_CYCLE,
    CLEAR_STEP,
    COLORS,
    LINE_CHARTS_PER_CYCLE,
    MAX_BARS,
    MAX_LINES,
    Chart,
    charts,
)
from experiments.charts.tables import read_tables


@pytest.fixture(scope="module")
def drawn() -> list[Chart]:
    """One cycle of each kind."""
    return make_cycle(seed=3)


def make_cycle(*, seed: int) -> list[Chart]:
    tables = read_tables("eval")
    return list(
        charts(
            tables,
            num_bar_charts=BAR_CHARTS_PER_CYCLE,
            num_line_charts=LINE_CHARTS_PER_CYCLE,
            seed=seed,
        )
    )


def leader(chart: Chart) -> str:
    return max(chart.series, key=lambda series: series.heights()[-1]).color


@pytest.mark.parametrize(("kind", "fewest", "most"), [("bar", 2, MAX_BARS), ("line", 1, MAX_LINES)])
def test_every_combination_comes_equally_often(
    drawn: list[Chart], kind: str, fewest: int, most: int
) -> None:
    own = [chart for chart in drawn if chart.kind == kind]
    properties: list[Callable[[Chart], object]] = [
        lambda chart: len(chart.series),
        leader,
        lambda chart: chart.affirms_comparison,
        lambda chart: chart.affirms_presence,
    ]
    together = Counter(tuple(value(chart) for value in properties) for chart in own)
    assert set(together.values()) == {1}
    assert len(together) == (most - fewest + 1) * len(COLORS) * 4


def test_colours_of_a_chart_differ(drawn: list[Chart]) -> None:
    assert all(
        len({series.color for series in chart.series}) == len(chart.series) for chart in drawn
    )


def test_the_tallest_and_the_shortest_bar_lead_by_a_clear_step(drawn: list[Chart]) -> None:
    for chart in (chart for chart in drawn if chart.kind == "bar"):
        heights = sorted(series.cells[0].value for series in chart.series)
        steps = [(high - low) / heights[-1] for low, high in pairwise(heights)]
        assert min(steps[0], steps[-1]) >= CLEAR_STEP


def test_lines_of_a_chart_run_over_the_same_days(drawn: list[Chart]) -> None:
    for chart in (chart for chart in drawn if chart.kind == "line"):
        days = {tuple(cell.row.split(" ")[1] for cell in series.cells) for series in chart.series}
        assert len(days) == 1
        assert list(days.copy().pop()) == sorted(days.pop())


def test_the_seed_decides(drawn: list[Chart]) -> None:
    assert make_cycle(seed=3) == drawn
    assert make_cycle(seed=4) != drawn
