"""Small curves over the steps, one for each thing that is logged: gradient norm, speed, memory.

In: log lines. Out: a `Curve` each, the same width, to stand beside each other. They show what a
median hides: a gradient that grew, a speed that fell, memory that climbs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from markupsafe import Markup

from smolvlm.pages.figure_svg import COLOURS, draw_small_chart
from smolvlm.report.charts import style_steps, thinned
from smolvlm.report.files import Metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HEIGHT_PX = 175
LOG_FROM = 50
"""An axis is logarithmic where the highest value is this many times the median: one early spike
would press the rest flat."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """What is drawn of the log lines."""

    key: str
    name: str
    scale: float = 1
    decimals: int = 1


KINDS = (
    Kind(key="grad_norm", name="gradient norm", decimals=3),
    Kind(key="samples_per_s", name="samples a second"),
    Kind(key="tokens_per_s", name="tokens a second", decimals=0),
    Kind(key="supervised_tokens_per_s", name="learned tokens a second", decimals=0),
    Kind(key="tiles_per_s", name="tiles a second"),
    Kind(key="mfu", name="MFU, % of the peak FLOPs", scale=100),
    Kind(key="peak_memory_gb", name="peak memory, GB"),
    Kind(key="data_wait", name="waiting for packs, % of the time", scale=100),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """One drawing with its heading."""

    name: str
    last: str
    """Value of the last log line."""
    svg: Markup


def small_curves(train: Sequence[Metrics]) -> tuple[Curve, ...]:
    """Return the curve of each thing that at least two log lines have and that is not 0 in all."""
    curves: list[Curve] = []
    for kind in KINDS:
        lines = [line for line in train if kind.key in line]
        if len(lines) >= 2 and any(line[kind.key] for line in lines):
            curves.append(_curve(kind, lines))
    return tuple(curves)


def _curve(kind: Kind, lines: Sequence[Metrics]) -> Curve:
    shown = [lines[place] for place in thinned(len(lines))]
    steps = [line["step"] for line in shown]
    values = [kind.scale * line[kind.key] for line in shown]
    is_log = min(values) > 0 and max(values) > LOG_FROM * median(values)

    def draw(axes: "Axes", is_narrow: bool) -> None:
        axes.plot(steps, values, color=COLOURS["accent"], linewidth=1.6)
        style_steps(axes, is_narrow, y_label="log scale" if is_log else "", is_log=is_log)

    last = f"{values[-1]:,.{kind.decimals}f}"
    label = f"{kind.name} over {len(lines)} log lines, at last {last}"
    svg = draw_small_chart(draw, name=f"curve-{kind.key}", label=label, height_px=HEIGHT_PX)
    return Curve(name=kind.name, last=last, svg=svg)
