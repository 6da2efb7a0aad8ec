"""Which charts there are: what each shows and in which colours, chosen so that no answer is
likelier than another.

In: one split's tables and a number of charts. Out: `Chart` records, which hold the table's own
numbers. A chart's place in the list fixes what must come out even (how many bars, the colour of the
tallest, whether yes is right), running through all combinations; the seeded generator picks rows of
the table that fit. Numbers too close to be told apart in a small picture are drawn again: the
tallest bar, the shortest and the highest end of a line lead by a clear step. The price is that
charts with near ties, which the table is full of, do not occur.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from experiments.charts.tables import Cell, Tables

COLORS = {
    "red": (215, 35, 35),
    "green": (40, 160, 65),
    "blue": (35, 85, 215),
    "yellow": (240, 200, 30),
    "purple": (145, 55, 180),
    "black": (25, 25, 25),
}
"""Name -> red, green, blue."""
MAX_BARS = 5
MAX_LINES = 3
BAR_CHARTS_PER_CYCLE = 96
"""2 to 5 bars x 6 colours x 2 answers x 2 answers."""
LINE_CHARTS_PER_CYCLE = 72
"""1 to 3 lines x 6 colours x 2 answers x 2 answers."""
CLEAR_STEP = 0.1
"""Least difference that is asked about, as a share of the chart's height."""
_MIN_DAYS, _MAX_DAYS = 10, 40

Kind = Literal["bar", "line"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """One bar, or one line."""

    color: str
    cells: tuple[Cell, ...]
    """A bar's one number, or a line's numbers from left to right."""

    def heights(self) -> tuple[float, ...]:
        """Return what is drawn: a bar's number; a line's numbers relative to its first."""
        first = self.cells[0].value if len(self.cells) > 1 else 1.0
        return tuple(cell.value / first for cell in self.cells)


@dataclass(frozen=True, kw_only=True, slots=True)
class Chart:
    """What one picture shows, and which of two answers its yes/no and rise/fall questions are to
    have."""

    kind: Kind
    series: tuple[Series, ...]
    """From left to right (bars), from behind to the front (lines)."""
    affirms_comparison: bool
    """The comparison's answer is yes; of a line chart, the line asked about rises."""
    affirms_presence: bool
    """The color asked about is there."""

    def span(self) -> tuple[float, float]:
        """Return the heights at the bottom and the top of the drawing."""
        heights = [height for series in self.series for height in series.heights()]
        return (0.0 if self.kind == "bar" else min(heights)), max(heights)

    def is_clear(self, low: float, high: float) -> bool:
        """Say whether the second height is above the first by a step that can be seen."""
        bottom, top = self.span()
        return high - low >= CLEAR_STEP * (top - bottom)


def charts(
    tables: Tables, *, num_bar_charts: int, num_line_charts: int, seed: int
) -> Iterator[Chart]:
    """Yield bar charts, then line charts; balanced to the last one over whole cycles.

    Args:
        tables: one split's.
        num_bar_charts: balanced where a multiple of 96.
        num_line_charts: balanced where a multiple of 72.
        seed: of all choices.
    """
    generator = random.Random(seed)
    for number in range(num_bar_charts):
        yield _bar_chart(tables, number, generator)
    for number in range(num_line_charts):
        yield _line_chart(tables, number, generator)


def rising(chart: Chart, *, is_up: bool) -> list[Series]:
    """Return a line chart's lines that clearly end above (or below) where they begin."""
    ends = [(series, series.heights()) for series in chart.series]
    return [
        series
        for series, heights in ends
        if (
            chart.is_clear(heights[0], heights[-1])
            if is_up
            else chart.is_clear(heights[-1], heights[0])
        )
    ]


def _bar_chart(tables: Tables, number: int, generator: random.Random) -> Chart:
    count, tallest_color = 2 + number % 4, list(COLORS)[number // 4 % 6]
    while True:
        cells = generator.sample(tables.counties, count)
        order = sorted(range(count), key=lambda place: cells[place].value)
        colors = _colors(count, tallest_color, first=order[-1], generator=generator)
        chart = Chart(
            kind="bar",
            series=tuple(
                Series(color=color, cells=(cell,))
                for color, cell in zip(colors, cells, strict=True)
            ),
            affirms_comparison=number // 24 % 2 == 1,
            affirms_presence=number // 48 % 2 == 1,
        )
        values = [cells[place].value for place in order]
        if chart.is_clear(values[-2], values[-1]) and chart.is_clear(values[0], values[1]):
            return chart


def _line_chart(tables: Tables, number: int, generator: random.Random) -> Chart:
    count, highest_color = 1 + number % 3, list(COLORS)[number // 3 % 6]
    is_up = number // 18 % 2 == 1
    while True:
        lines = _common_days(tables, generator.sample(sorted(tables.prices), count), generator)
        ends = [cells[-1].value / cells[0].value for cells in lines]
        order = sorted(range(count), key=ends.__getitem__)
        colors = _colors(count, highest_color, first=order[-1], generator=generator)
        chart = Chart(
            kind="line",
            series=tuple(
                Series(color=color, cells=cells) for color, cells in zip(colors, lines, strict=True)
            ),
            affirms_comparison=is_up,
            affirms_presence=number // 36 % 2 == 1,
        )
        leads = count == 1 or chart.is_clear(ends[order[-2]], ends[order[-1]])
        if leads and rising(chart, is_up=is_up):
            return chart


def _common_days(
    tables: Tables, tickers: list[str], generator: random.Random
) -> list[tuple[Cell, ...]]:
    """Return the stocks' prices over the same run of days, chosen among the last days that all of
    them have."""
    num_common = min(len(tables.prices[ticker]) for ticker in tickers)
    length = generator.randint(_MIN_DAYS, _MAX_DAYS)
    start = generator.randrange(num_common - length + 1)
    common = [
        tables.prices[ticker][len(tables.prices[ticker]) - num_common :] for ticker in tickers
    ]
    return [cells[start : start + length] for cells in common]


def _colors(count: int, leading: str, *, first: int, generator: random.Random) -> list[str]:
    """Return distinct colors, the leading one at the place of the leader."""
    colors = generator.sample([color for color in COLORS if color != leading], count - 1)
    colors.insert(first, leading)
    return colors
