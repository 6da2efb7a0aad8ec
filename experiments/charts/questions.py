"""Questions about charts, as rows that this project reads; every answer is computed from the table
behind the chart.

In: the tables of `chart_tables.py`. Out: `train.jsonl`, `eval.jsonl`, `images/`, and
`train-charts.jsonl` and `eval-charts.jsonl`, which say what each picture shows: colours, the rows
of the table and their numbers. A row is a question. The questions of one chart stand next to each
other, so that they can be trained as a tree; the charts stand in random order, so that the first
few are a fair sample. Answers are balanced within each question type: looking the question up,
without the picture, does no better than guessing. Held-out charts are drawn from rows of the tables
that no training chart uses. Same version, same bytes.
"""

import json
import random
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from experiments.charts.drawing import draw_chart
from experiments.charts.shapes import (
    BAR_CHARTS_PER_CYCLE,
    COLORS,
    LINE_CHARTS_PER_CYCLE,
    Chart,
    Series,
    charts,
    rising,
)
from experiments.charts.tables import CHART_WHEEL, Split, read_tables

ChartQuestionType = Literal[
    "tallest", "shortest", "taller", "direction", "highest_end", "count", "presence"
]
CHART_QUESTION_TYPES: tuple[ChartQuestionType, ...] = (
    "tallest",
    "shortest",
    "taller",
    "direction",
    "highest_end",
    "count",
    "presence",
)
SIDE_PX = 112
NUM_CYCLES: Mapping[Split, int] = {"train": 20, "eval": 3}
"""Split -> how many times all combinations of balanced properties are gone through: 3,360 and 504
charts."""
_SEEDS: Mapping[Split, int] = {"train": 1, "eval": 2}
_NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five")
_FORMAT = 1
"""Counted up when the same wheel comes to give other rows or pictures."""
_MARK = ".charts"


@dataclass(frozen=True, kw_only=True, slots=True)
class ChartQuestion:
    """One question about one chart."""

    question: str
    answer: str
    question_type: ChartQuestionType


def prepare_charts(out_dir: Path, *, num_cycles: Mapping[Split, int] = NUM_CYCLES) -> Path:
    """Write the rows and pictures into `out_dir` and return it; at once if they are there.

    Rows are `{"question", "answer", "image", "question_type"}`; `image` is relative to `out_dir`.

    Args:
        out_dir: folder to write.
        num_cycles: split -> its size; 96 bar charts and 72 line charts a cycle.

    Raises:
        ConfigError: the wheel could not be downloaded.
    """
    mark = out_dir / _MARK
    told = f"{CHART_WHEEL.requirement} format {_FORMAT} {sorted(num_cycles.items())}"
    if mark.exists() and mark.read_text(encoding="utf-8") == told:
        return out_dir
    (out_dir / "images").mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out_dir, prefix=".new-") as work_dir:
        for split, cycles in num_cycles.items():
            _write_split(split, cycles, out_dir=out_dir, work_dir=Path(work_dir))
    mark.write_text(told, encoding="utf-8")
    return out_dir


def chart_questions(chart: Chart, *, generator: random.Random) -> Iterator[ChartQuestion]:
    """Yield the chart's questions with their answers.

    Args:
        chart: what is shown.
        generator: picks the colours that questions name, among those that give the answer the chart
            is to have.
    """
    noun = chart.kind
    if noun == "bar":
        yield from _bar_questions(chart, generator)
    else:
        yield from _line_questions(chart, generator)
    yield ChartQuestion(
        question=f"how many {noun}s are there?",
        answer=_NUMBER_WORDS[len(chart.series)],
        question_type="count",
    )
    shown = [series.color for series in chart.series]
    color = generator.choice(
        shown if chart.affirms_presence else [color for color in COLORS if color not in shown]
    )
    yield ChartQuestion(
        question=f"is there a {color} {noun}?",
        answer=_yes_no(chart.affirms_presence),
        question_type="presence",
    )


def _bar_questions(chart: Chart, generator: random.Random) -> Iterator[ChartQuestion]:
    by_height = sorted(chart.series, key=_end)
    yield ChartQuestion(
        question="which color is the tallest bar?",
        answer=by_height[-1].color,
        question_type="tallest",
    )
    yield ChartQuestion(
        question="which color is the shortest bar?",
        answer=by_height[0].color,
        question_type="shortest",
    )
    pairs = [
        (low, high)
        for low in by_height
        for high in by_height
        if chart.is_clear(low.heights()[0], high.heights()[0])
    ]
    low, high = generator.choice(pairs)
    first, second = (high, low) if chart.affirms_comparison else (low, high)
    yield ChartQuestion(
        question=f"is the {first.color} bar taller than the {second.color} bar?",
        answer=_yes_no(chart.affirms_comparison),
        question_type="taller",
    )


def _line_questions(chart: Chart, generator: random.Random) -> Iterator[ChartQuestion]:
    asked = generator.choice(rising(chart, is_up=chart.affirms_comparison))
    yield ChartQuestion(
        question=f"does the {asked.color} line rise or fall?",
        answer="rise" if chart.affirms_comparison else "fall",
        question_type="direction",
    )
    if len(chart.series) > 1:
        yield ChartQuestion(
            question="which color is the line that ends highest?",
            answer=max(chart.series, key=_end).color,
            question_type="highest_end",
        )


def _end(series: Series) -> float:
    return series.heights()[-1]


def _yes_no(is_so: bool) -> str:
    return "yes" if is_so else "no"


def _write_split(split: Split, cycles: int, *, out_dir: Path, work_dir: Path) -> None:
    drawn = list(
        charts(
            read_tables(split),
            num_bar_charts=cycles * BAR_CHARTS_PER_CYCLE,
            num_line_charts=cycles * LINE_CHARTS_PER_CYCLE,
            seed=_SEEDS[split],
        )
    )
    generator = random.Random(_SEEDS[split])
    generator.shuffle(drawn)
    rows: list[str] = []
    shown: list[str] = []
    for number, chart in enumerate(drawn):
        image = f"images/{split}-{number:05d}.png"
        picture = work_dir / "image.png"
        draw_chart(chart, side_px=SIDE_PX).save(picture)
        picture.replace(out_dir / image)
        rows += [
            json.dumps({**asdict(question), "image": image})
            for question in chart_questions(chart, generator=generator)
        ]
        shown.append(json.dumps({"image": image, **asdict(chart)}))
    for name, lines in ((f"{split}.jsonl", rows), (f"{split}-charts.jsonl", shown)):
        new = work_dir / name
        new.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        new.replace(out_dir / name)
