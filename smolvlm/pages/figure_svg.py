"""A matplotlib figure as inline SVG that takes its colours and its font from the page.

Text stays text. matplotlib writes fixed colours, so each colour of the page has a stand-in that is
drawn and then replaced by the page's CSS variable: the same drawing is legible in light and in
dark. A drawing is made twice, wide and narrow, and the page shows the one that fits, for text that
shrinks with its drawing cannot be read on a phone.
"""

import re
from collections.abc import Callable
from io import StringIO
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDE_PX = 820
NARROW_PX = 350
FONT_PX = 13

COLOURS = {
    "ink": "#010203",
    "soft": "#010204",
    "rule": "#010205",
    "grid": "#010206",
    "accent": "#010207",
    "before": "#010208",
    "base1": "#010209",
    "base2": "#01020a",
    "base3": "#01020b",
    "user": "#01020c",
    "assistant": "#01020d",
    "image": "#01020e",
    "system": "#01020f",
    "wrong": "#010210",
}
"""CSS variable of the page to the stand-in that is drawn."""

Draw = Callable[["Axes", bool], None]
"""Draws on axes; the flag says whether the drawing is narrow."""


def draw_chart(draw: Draw, *, name: str, label: str, height_px: Callable[[bool], int]) -> Markup:
    """Return a drawing in both widths.

    Args:
        draw: draws on the axes it is given.
        name: unique in the page; its ids begin with it.
        label: what the drawing shows, for readers who hear the page.
        height_px: of the narrow (True) and the wide drawing.
    """
    return Markup("").join(
        _draw(draw, name, label, height_px(is_narrow), is_narrow=is_narrow, kind=kind)
        for is_narrow, kind in ((False, "wide"), (True, "narrow"))
    )


def draw_small_chart(draw: Draw, *, name: str, label: str, height_px: int) -> Markup:
    """Return a drawing in the narrow width alone, one of several that stand beside each other.

    Args:
        draw: draws on the axes it is given, narrow.
        name: unique in the page; its ids begin with it.
        label: what the drawing shows, for readers who hear the page.
        height_px: of the drawing.
    """
    return _draw(draw, name, label, height_px, is_narrow=True, kind="small")


def _draw(
    draw: Draw, name: str, label: str, height_px: int, *, is_narrow: bool, kind: str
) -> Markup:
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    width_px = NARROW_PX if is_narrow else WIDE_PX
    settings: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "font.size": FONT_PX,
        "axes.edgecolor": COLOURS["rule"],
        "axes.labelcolor": COLOURS["soft"],
        "axes.labelsize": FONT_PX,
        "text.color": COLOURS["ink"],
        "xtick.color": COLOURS["soft"],
        "ytick.color": COLOURS["soft"],
        "xtick.major.size": 0,
        "ytick.major.size": 0,
        "xtick.major.pad": 7,
        "ytick.major.pad": 7,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.spines.left": False,
        "axes.axisbelow": True,
        "grid.color": COLOURS["grid"],
        "grid.linewidth": 1,
        "path.simplify": True,
    }
    with rc_context(settings):
        figure = Figure(figsize=(width_px / 72, height_px / 72), dpi=72, facecolor="none")
        figure.set_layout_engine(ConstrainedLayoutEngine(w_pad=0, h_pad=0.03))
        axes = figure.subplots()
        axes.set_facecolor("none")
        draw(axes, is_narrow)
        buffer = StringIO()
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})
    return _inline(
        buffer.getvalue(), prefix=f"{name}-{kind}-", classes=f"chart {kind}", label=label
    )


def _inline(svg: str, *, prefix: str, classes: str, label: str) -> Markup:
    """Turn a standalone SVG file into an element of the page."""
    body = svg[svg.index("<svg") :]
    head, body = body.split(">", 1)
    view_box = re.search(r'viewBox="[^"]*"', head)
    assert view_box is not None
    body = re.sub(r"<metadata>.*?</metadata>", "", body, count=1, flags=re.DOTALL)
    body = re.sub(r"<style[^>]*>.*?</style>", "", body, count=1, flags=re.DOTALL)
    body = re.sub(r"<!--.*?-->", "", body, flags=re.DOTALL)
    body = body.replace("xlink:href=", "href=")
    body = re.sub(r'\bid="([^"]*)"', rf'id="{prefix}\1"', body)
    body = re.sub(r'url\(#|href="#', lambda match: match.group() + prefix, body)
    body = re.sub(r" font-family: [^;\"]*;?", "", body)
    for variable, colour in COLOURS.items():
        body = body.replace(colour, f"var(--{variable})")
    body = re.sub(r"\s*\n\s*", " ", body)
    return Markup(
        f'<svg class="{classes}" {view_box.group()} role="img" aria-label="{escape(label)}">{body}'
    )
