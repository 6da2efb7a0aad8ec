"""The curves of the evidence: loss of every logged step and held-out accuracy by question type,
over both stages.

In: the metrics that the runs wrote, and the baselines. Out: one SVG file that stands alone: text
stays text, the ground is white, and the same metrics give the same bytes.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from smolvlm.report.accuracy import accuracies
from smolvlm.report.files import Metrics, read_run_files

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ACCURACY = "eval_exact_match_"
_COLORS = ("#1b6ca8", "#c8553d", "#3a7d44", "#8a4fa0", "#b8860b", "#2f4858", "#d1495b")
_SIZE_INCHES = (11.0, 3.6)


def write_figure(path: Path, runs: Sequence[Path], baselines_file: Path, *, name: str) -> Path:
    """Draw the runs one after the other and return the file.

    Args:
        path: the SVG file to write.
        runs: output folders, in the order of training.
        baselines_file: scores of the baselines; what looking the question up gives is drawn dashed.
        name: of the data set, for the heading.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    train, evals, ends = joined(runs)
    before = {own.group: own.value for own in accuracies(read_run_files(runs[0]).before)}
    question_only = json.loads(baselines_file.read_text())["question_only"]
    with rc_context(
        {"svg.fonttype": "none", "svg.hashsalt": name, "font.size": 10, "axes.spines.top": False}
    ):
        figure = Figure(figsize=_SIZE_INCHES, layout="constrained", facecolor="white")
        left, right = figure.subplots(1, 2)
        _draw_loss(left, train)
        _draw_accuracy(right, evals, before, question_only)
        for axes in (left, right):
            axes.spines["right"].set_visible(False)
            axes.set_xlabel("optimizer step")
            for end in ends[:-1]:
                axes.axvline(end, color="#999999", linewidth=0.8)
        figure.suptitle(f"{name}: connector alone, then (right of the line) connector and LoRA")
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8") as file:
            FigureCanvasSVG(figure).print_svg(file, metadata={"Date": None})
    return path


def joined(runs: Sequence[Path]) -> tuple[list[Metrics], list[Metrics], list[float]]:
    """Return the runs' training lines and evaluation lines, steps counted on, and the step at which
    each run ends."""
    train: list[Metrics] = []
    evals: list[Metrics] = []
    ends: list[float] = []
    for run in runs:
        first = ends[-1] if ends else 0.0
        files = read_run_files(run)
        train += [{**line, "step": line["step"] + first} for line in files.train]
        # What a stage began with is what the one before ended with, or was asked by itself.
        evals += [{**line, "step": line["step"] + first} for line in files.evals if line["step"]]
        ends.append(first + max(line["step"] for line in files.train))
    return train, evals, ends


def _draw_loss(axes: "Axes", train: Sequence[Metrics]) -> None:
    from matplotlib.ticker import LogLocator, NullLocator

    axes.plot(
        [line["step"] for line in train],
        [line["loss"] for line in train],
        color=_COLORS[0],
        linewidth=1.2,
    )
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_ylabel("loss, nats a learned token")


def _draw_accuracy(
    axes: "Axes",
    evals: Sequence[Metrics],
    before: Mapping[str, float],
    question_only: Mapping[str, float],
) -> None:
    for color, (group, baseline) in zip(_COLORS, question_only.items(), strict=False):
        points = [(0.0, 100 * before[group])] if group in before else []
        points += [
            (line["step"], 100 * line[_ACCURACY + group])
            for line in evals
            if _ACCURACY + group in line
        ]
        label = group.replace("_", " ")
        steps, values = [step for step, _ in points], [value for _, value in points]
        axes.plot(steps, values, color=color, marker="o", markersize=3, linewidth=1.4, label=label)
        axes.axhline(100 * baseline, color=color, linestyle=":", linewidth=0.9)
    axes.set_ylim(0, 102)
    axes.set_ylabel("held out, answered right, %")
    axes.legend(
        loc="center left",
        bbox_to_anchor=(1.01, 0.5),
        frameon=False,
        fontsize=8,
        title="dotted: question only",
    )
