"""The loss curves of several runs over each other.

In: runs, their losses of the same kind. Out: a `Chart` each for the loss of the steps, as a moving
average, and for the held-out loss.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from smolvlm.pages.figure_svg import COLOURS, draw_chart
from smolvlm.report.charts import Chart, curve_height, smooth, style_steps, thinned
from smolvlm.report.side_by_side import Side

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RUN_COLOURS = ("accent", "base1", "system", "wrong", "assistant", "user", "image", "before")
"""In the order of the runs; then from the first again, dashed."""

Points = tuple[np.ndarray, np.ndarray]
"""Steps and losses."""


def side_loss_chart(sides: Sequence[Side]) -> Chart | None:
    """Draw the moving average of each run's loss; None where their losses are not the same thing,
    or no run has two logged steps."""
    if len({side.unit for side in sides}) > 1:
        return None
    curves: list[Points] = []
    for side in sides:
        lines = [line for line in side.run.train if "loss" in line]
        steps, losses = (np.array([line[key] for line in lines]) for key in ("step", "loss"))
        shown = thinned(len(lines)) if lines else np.array([], dtype=int)
        average = smooth(losses, radius=max(len(losses) // 40, 1)) if lines else losses
        curves.append((steps[shown], average[shown]))
    unit = sides[0].unit
    return _chart(sides, curves, name="side-loss", y_label=f"{unit.name}, {unit.unit}")


def side_held_out_chart(sides: Sequence[Side]) -> Chart | None:
    """Draw each run's held-out loss; None where no run has two evaluations."""
    curves: list[Points] = []
    for side in sides:
        lines = [line for line in side.run.evals if "eval_loss" in line]
        curves.append(
            (
                np.array([line["step"] for line in lines]),
                np.array([line["eval_loss"] for line in lines]),
            )
        )
    return _chart(sides, curves, name="side-held-out", y_label="held-out loss, nats a token")


def _chart(
    sides: Sequence[Side], curves: Sequence[Points], *, name: str, y_label: str
) -> Chart | None:
    if all(len(steps) < 2 for steps, _ in curves):
        return None
    values = np.concatenate([losses for _, losses in curves])
    is_log = 0 < 8 * values.min() < values.max()

    def draw(axes: "Axes", is_narrow: bool) -> None:
        for number, (steps, losses) in enumerate(curves):
            axes.plot(
                steps,
                losses,
                color=COLOURS[_colour(number)],
                linewidth=1.8,
                linestyle="-" if number < len(RUN_COLOURS) else "--",
                marker="o" if name == "side-held-out" else None,
                markersize=4,
            )
        label = y_label.rpartition(", ")[2] if is_narrow else y_label
        style_steps(
            axes, is_narrow, y_label=label + (" (log scale)" if is_log else ""), is_log=is_log
        )

    ends = ", ".join(
        f"{side.name} {losses[-1]:.3g}"
        for side, (_, losses) in zip(sides, curves, strict=True)
        if len(losses)
    )
    label = f"{y_label.partition(',')[0]} over the steps; at last: {ends}"
    return Chart(
        svg=draw_chart(draw, name=name, label=label, height_px=curve_height),
        key=tuple((side.name, _colour(number)) for number, side in enumerate(sides)),
    )


def _colour(number: int) -> str:
    return RUN_COLOURS[number % len(RUN_COLOURS)]
