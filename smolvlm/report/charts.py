"""The drawings of a run's report: loss, learning rates, accuracy by group.

In: logged lines and accuracies. Out: a `Chart`, whose key the page sets as text beside it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup

from smolvlm.pages.figure_svg import COLOURS, draw_chart
from smolvlm.pages.token_text import percent
from smolvlm.report.accuracy import Accuracy
from smolvlm.report.files import Metrics
from smolvlm.report.loss_unit import TOKEN_LOSS, LossUnit

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_POINTS = 1000
"""More could not be told apart, and would weigh on the page."""
MAX_GROUPS = 12
RATE_PREFIX = "learning_rate_"
RATE_COLOURS = {"language_model": "accent", "connector": "system", "vision_tower": "image"}
BASELINE_COLOURS = ("base1", "base2", "base3")


@dataclass(frozen=True, kw_only=True, slots=True)
class Chart:
    """A drawing and what its colours mean."""

    svg: Markup
    key: tuple[tuple[str, str], ...]
    """Name and CSS variable, in the order drawn."""
    note: str = ""
    """What is not drawn."""


def loss_chart(
    train: Sequence[Metrics], evals: Sequence[Metrics], *, unit: LossUnit = TOKEN_LOSS
) -> Chart | None:
    """Draw the loss of each logged step, thin, its moving average, and the held-out loss.

    None below two logged steps. Where the loss falls to less than an eighth its axis is
    logarithmic. The held-out loss is of learned tokens: beside another loss it is left out.
    """
    steps = np.array([line["step"] for line in train if "loss" in line])
    losses = np.array([line["loss"] for line in train if "loss" in line])
    all_held_out = [(line["step"], line["eval_loss"]) for line in evals if "eval_loss" in line]
    held_out = all_held_out if unit == TOKEN_LOSS else []
    if len(steps) < 2:
        return None
    shown = thinned(len(steps))
    average = smooth(losses, radius=max(len(losses) // 40, 1))
    lowest, highest = min(losses.min(), average.min()), losses.max()
    is_log = 0 < 8 * lowest < highest

    def draw(axes: "Axes", is_narrow: bool) -> None:
        axes.plot(steps[shown], losses[shown], color=COLOURS["before"], linewidth=1)
        axes.plot(steps[shown], average[shown], color=COLOURS["accent"], linewidth=2.2)
        if held_out:
            axes.plot(
                *zip(*held_out, strict=True),
                color=COLOURS["base1"],
                linewidth=1.6,
                marker="o",
                markersize=5,
            )
        y_label, log_words = f"{unit.name}, {unit.unit}", " (log scale)"
        if is_narrow:
            y_label, log_words = unit.unit, " (log)"
        style_steps(axes, is_narrow, y_label=y_label + (log_words if is_log else ""), is_log=is_log)

    key = [("each logged step", "before"), ("moving average", "accent")]
    key += [("held out", "base1")] if held_out else []
    label = f"Loss over {len(steps)} logged steps, from {losses[0]:.3g} to {losses[-1]:.3g}"
    left_out = "The held-out loss, in nats a learned token, stands in the table of evaluations."
    return Chart(
        svg=draw_chart(draw, name="loss", label=label, height_px=curve_height),
        key=tuple(key),
        note=left_out if all_held_out and not held_out else "",
    )


def learning_rate_chart(train: Sequence[Metrics]) -> Chart | None:
    """Draw each part's learning rate; None below two logged steps, or where all are 0."""
    logged = sorted({key for line in train for key in line if key.startswith(RATE_PREFIX)})
    names = [name for name in logged if any(line.get(name, 0) > 0 for line in train)]
    if not names or len(train) < 2:
        return None
    frozen = [
        name.removeprefix(RATE_PREFIX).replace("_", " ") for name in logged if name not in names
    ]
    shown = [train[number] for number in thinned(len(train))]
    parts = [(name, name.removeprefix(RATE_PREFIX)) for name in names]

    def draw(axes: "Axes", is_narrow: bool) -> None:
        for number, (name, part) in enumerate(parts):
            points = [(line["step"], line[name]) for line in shown if name in line]
            width = 1.8 * (
                len(parts) - number
            )  # equal rates show as one line with a border, not as one part
            axes.plot(
                *zip(*points, strict=True),
                color=COLOURS[RATE_COLOURS.get(part, "base1")],
                linewidth=width,
            )
        style_steps(axes, is_narrow, y_label="learning rate")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.3g}")

    return Chart(
        svg=draw_chart(
            draw,
            name="rates",
            label="Learning rate of each part over the steps",
            height_px=curve_height,
        ),
        key=tuple((part.replace("_", " "), RATE_COLOURS.get(part, "base1")) for _, part in parts),
        note=f"Frozen, at 0 throughout: {', '.join(frozen)}." if frozen else "",
    )


def accuracy_chart(
    before: Sequence[Accuracy],
    after: Sequence[Accuracy],
    baselines: Mapping[str, Mapping[str, float]],
) -> Chart | None:
    """Draw bars for the largest groups: after, before, each baseline; whiskers are 95 %."""
    if not after:
        return None
    groups = sorted(
        sorted(after, key=lambda one: -one.num_rows)[:MAX_GROUPS], key=lambda one: one.group
    )
    rows = [_group_bars(one, before, baselines) for one in groups]
    top = max([high for bars in rows for _, _, high, _ in bars] + [0.5])

    def draw(axes: "Axes", is_narrow: bool) -> None:
        place = 0.0
        for one, bars in zip(groups, rows, strict=True):
            axes.text(0, place - 0.1, f"{one.group}", va="bottom", fontweight="bold")
            axes.text(
                top,
                place - 0.1,
                f"n = {one.num_rows:,}",
                va="bottom",
                ha="right",
                color=COLOURS["soft"],
            )
            for value, low, high, colour in bars:
                place += 1
                axes.barh(place - 0.5, value, height=0.74, color=COLOURS[colour])
                if high > low:
                    axes.plot([low, high], [place - 0.5] * 2, color=COLOURS["ink"], linewidth=1.1)
                axes.text(
                    max(value, high) + 0.012 * top,
                    place - 0.5,
                    percent(value),
                    va="center_baseline",
                )
            place += 2.1
        axes.set_ylim(place - 1.6, -1.5)
        axes.set_xlim(0, top * (1.22 if is_narrow else 1.1))
        axes.set_xticks([tick for tick in (0, 0.25, 0.5, 0.75, 1) if tick <= top + 1e-9])
        axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f}")
        axes.set_xlabel("answered right, % of rows")
        axes.set_yticks([])
        axes.grid(axis="x")
        axes.spines["bottom"].set_visible(False)

    units = sum(len(bars) + 2.1 for bars in rows)
    key = [("after", "accent"), *([("before", "before")] if before else [])]
    key += [
        (name.replace("_", " "), _baseline_colour(number)) for number, name in enumerate(baselines)
    ]
    label = "Accuracy by group: " + "; ".join(f"{one.group} {percent(one.value)}" for one in groups)
    svg = draw_chart(draw, name="accuracy", label=label, height_px=lambda _: round(50 + 17 * units))
    return Chart(svg=svg, key=tuple(key))


def smooth(values: np.ndarray, *, radius: int) -> np.ndarray:
    """Return the centred moving average.

    Towards both ends its window shrinks evenly, so a straight line stays itself.

    A one-sided average would lag behind a falling loss and show it higher than it is.

    Args:
        values: one a logged step.
        radius: how many values on each side count, where there are so many.
    """
    places = np.arange(len(values))
    reach = np.minimum(radius, np.minimum(places, places[::-1]))
    sums = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    return (sums[places + reach + 1] - sums[places - reach]) / (2 * reach + 1)


def _group_bars(
    after: Accuracy, before: Sequence[Accuracy], baselines: Mapping[str, Mapping[str, float]]
) -> list[tuple[float, float, float, str]]:
    """Return (value, low, high, colour) of each bar of a group."""
    bars = [(after.value, after.low, after.high, "accent")]
    bars += [(one.value, one.low, one.high, "before") for one in before if one.group == after.group]
    for number, groups in enumerate(baselines.values()):
        if (value := groups.get(after.group)) is not None:
            bars.append((value, value, value, _baseline_colour(number)))
    return bars


def _baseline_colour(number: int) -> str:
    return BASELINE_COLOURS[number % len(BASELINE_COLOURS)]


def thinned(count: int) -> np.ndarray:
    """Return at most `MAX_POINTS` evenly spaced places, the first and the last among them."""
    return np.unique(np.linspace(0, count - 1, min(count, MAX_POINTS)).round().astype(int))


def curve_height(is_narrow: bool) -> int:
    """Return the height of a curve over the steps, px."""
    return 230 if is_narrow else 290


def style_steps(axes: "Axes", is_narrow: bool, *, y_label: str, is_log: bool = False) -> None:
    """Label axes over optimizer steps; the upright one begins at 0 unless something lies below."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

    axes.set_xlabel("optimizer step")
    axes.set_ylabel(y_label)
    axes.grid(axis="y")
    axes.xaxis.set_major_locator(
        MaxNLocator(nbins=4 if is_narrow else 8, steps=[1, 2, 5, 10], integer=True)
    )
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.margins(x=0.01)
    if is_log:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    else:
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
        low, high = axes.get_ylim()
        axes.set_ylim(0 if axes.dataLim.y0 >= 0 else low, high)
