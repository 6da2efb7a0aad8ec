"""The picture of `make bench`: a bar a work, with its goal and its limit.

Drawn are the works of the full run in the precision that most were measured in; where there are
none, those of the quick run with their floors.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.bench_rows import BenchRow
from benchmarks.bench_works import WORKS
from benchmarks.plots import Palette, write_pictures

_FULL = frozenset(work.key for work in WORKS)
NAME = "bench"


def write_figures(folder: Path, rows: Sequence[BenchRow]) -> None:
    """Write `bench.png` and `bench_dark.png`; nothing where there are no rows."""
    shown = shown_rows(rows)
    if shown:
        height = 1.3 + 0.42 * len(shown)
        write_pictures(
            folder, NAME, lambda figure, palette: _draw(figure, palette, shown), size_in=(9, height)
        )


def shown_rows(rows: Sequence[BenchRow]) -> list[BenchRow]:
    """Return the rows that the picture shows."""
    chosen = [row for row in rows if row.key in _FULL] or list(rows)
    if not chosen:
        return []
    precision = Counter(row.setting.precision for row in chosen).most_common(1)[0][0]
    return [row for row in chosen if row.setting.precision == precision]


def _draw(figure: Any, palette: Palette, rows: Sequence[BenchRow]) -> None:
    axes = figure.subplots()
    places = list(range(len(rows)))[::-1]
    ratios = [row.ratios["trl"].median for row in rows]
    bars = axes.barh(places, ratios, height=0.55, color=palette.series[0], label="measured")
    axes.bar_label(bars, labels=[f" {ratio:.2f}x" for ratio in ratios])
    _marks(axes, places, [row.floor for row in rows], label="floor", color=palette.series[3])
    _marks(axes, places, [row.goal for row in rows], label="goal", color=palette.series[2])
    _marks(
        axes,
        places,
        [row.limit for row in rows],
        label="limit, at 95 % of the matrix rate",
        color=palette.series[1],
    )
    axes.axvline(1, color=palette.soft, linewidth=0.8)
    axes.set_yticks(places, [_label(row) for row in rows])
    axes.set_xlim(left=0, right=1.08 * max(ratios + [row.limit or 0 for row in rows]))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower right", fontsize=8)
    setting = rows[0].setting
    axes.set_xlabel(
        f"times as fast as TRL, processor time, equal losses ({setting.precision}, {setting.cpu})"
    )


def _marks(
    axes: Any, places: Sequence[int], values: Sequence[float | None], *, label: str, color: str
) -> None:
    found = [(value, at) for value, at in zip(values, places, strict=True) if value is not None]
    if found:
        across, up = zip(*found, strict=True)
        axes.scatter(
            across, up, marker="|", s=340, linewidths=2.2, color=color, label=label, zorder=3
        )


def _label(row: BenchRow) -> str:
    tower, language = row.setting.layers
    return f"{row.title} ({tower} + {language} layers)"
