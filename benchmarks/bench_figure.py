"""The picture of `make bench`: a bar a work, how far its pairs of steps lie apart, and its goal.

Drawn are the works of the full run in the precision that most were measured in; where there are
none, those of the quick run with their floors.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap
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
    found = [row.ratios["trl"] for row in rows]
    axes.barh(places, [ratio.median for ratio in found], height=0.55, color=palette.series[0])
    ends = [ratio.most for ratio in found]
    axes.hlines(places, [ratio.least for ratio in found], ends, color=palette.ink, linewidth=1.2)
    _marks(axes, places, [row.floor for row in rows], label="floor", color=palette.series[3])
    goals = [row.goal for row in rows]
    _marks(axes, places, goals, label="goal", color=palette.series[1])
    last = [max(end, goal or 0) for end, goal in zip(ends, goals, strict=True)]
    for place, ratio, end in zip(places, found, last, strict=True):
        text = f"{ratio.median:.3g}x"
        axes.annotate(
            text,
            (end, place),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            weight="bold",
        )
    axes.axvline(1, color=palette.soft, linewidth=0.8)
    axes.set_yticks(places, [_label(row) for row in rows])
    axes.set_xlim(left=0, right=1.08 * max(last))
    axes.spines[["top", "right"]].set_visible(False)
    if any(goals) or any(row.floor for row in rows):
        axes.legend(loc="lower right", fontsize=8, frameon=False)
    setting = rows[0].setting
    threads = f"{setting.num_threads} thread{'s' if setting.num_threads > 1 else ''}"
    axes.set_xlabel(
        "times as fast as TRL's SFTTrainer or DPOTrainer: processor time of paired steps with equal"
        f" losses\n{setting.precision}, {setting.cpu}, {threads}; lines: slowest to fastest pair",
        horizontalalignment="right",
        x=1.0,
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
    layers = f"({tower} + {language} layers)".replace(" ", "\N{NO-BREAK SPACE}")
    return "\n".join(wrap(f"{row.title} {layers}", width=44, break_long_words=False))
