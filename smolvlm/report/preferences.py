"""What preference training logs besides its loss: rewards, their margin, and how many pairs are
ordered right.

In: log lines. Out: charts over the steps, and a sentence; none of a run of another method.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from smolvlm.pages.figure_svg import COLOURS, draw_chart
from smolvlm.pages.token_text import percent
from smolvlm.report.charts import Chart, curve_height, style_steps, thinned
from smolvlm.report.files import Metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes

REWARDS = (
    ("rewards_chosen", "chosen", "assistant"),
    ("rewards_rejected", "rejected", "wrong"),
    ("rewards_margin", "margin: chosen less rejected", "accent"),
)
"""Key of the log line, name, CSS variable of the page."""
ACCURACY = "rewards_accuracy"


def rewards_chart(train: Sequence[Metrics]) -> Chart | None:
    """Draw the rewards of both answers and their margin, means over the pairs of a log line; None
    below two lines that have them."""
    lines = _lines_with(train, REWARDS[0][0])
    if len(lines) < 2:
        return None

    def draw(axes: "Axes", is_narrow: bool) -> None:
        axes.axhline(0, color=COLOURS["rule"], linewidth=1)
        for key, _, colour in REWARDS:
            points = [(line["step"], line[key]) for line in lines if key in line]
            axes.plot(*zip(*points, strict=True), color=COLOURS[colour], linewidth=1.8)
        style_steps(axes, is_narrow, y_label="reward, mean over pairs")

    margin = lines[-1].get("rewards_margin", 0)
    label = f"Rewards of both answers over the steps; the last margin is {margin:.3g}"
    return Chart(
        svg=draw_chart(draw, name="rewards", label=label, height_px=curve_height),
        key=tuple((name, colour) for _, name, colour in REWARDS),
    )


def order_chart(train: Sequence[Metrics]) -> Chart | None:
    """Draw the share of pairs whose chosen answer has the higher reward; None below two lines."""
    lines = _lines_with(train, ACCURACY)
    if len(lines) < 2:
        return None

    def draw(axes: "Axes", is_narrow: bool) -> None:
        axes.axhline(0.5, color=COLOURS["soft"], linewidth=1, linestyle=(0, (4, 4)))
        points = [(line["step"], line[ACCURACY]) for line in lines]
        axes.plot(*zip(*points, strict=True), color=COLOURS["accent"], linewidth=1.8)
        style_steps(axes, is_narrow, y_label="pairs ordered right, %")
        axes.set_ylim(0, 1.02)
        axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f}")

    label = f"Share of pairs ordered right over the steps, at last {percent(lines[-1][ACCURACY])}"
    return Chart(
        svg=draw_chart(draw, name="order", label=label, height_px=curve_height),
        key=(("pairs whose chosen answer has the higher reward", "accent"), ("a coin", "soft")),
    )


def preference_sentence(train: Sequence[Metrics]) -> str:
    """Return what the last log line says of the pairs; empty where it says nothing."""
    lines = [line for line in train if ACCURACY in line and "rewards_margin" in line]
    if not lines:
        return ""
    last = lines[-1]
    return (
        f"In the last log line the chosen answer has the higher reward in "
        f"{percent(last[ACCURACY])} of the pairs, with a mean margin of "
        f"{last['rewards_margin']:.3g}."
    )


def _lines_with(train: Sequence[Metrics], key: str) -> list[Metrics]:
    lines = [line for line in train if key in line]
    return [lines[place] for place in thinned(len(lines))] if lines else []
