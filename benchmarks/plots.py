"""How the lab book's pictures look: one drawing, once on white and once on dark paper."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DPI = 110


@dataclass(frozen=True, kw_only=True, slots=True)
class Palette:
    """Colours of one paper."""

    paper: str
    ink: str
    soft: str
    series: tuple[str, ...]


PALETTES: dict[str, Palette] = {
    "light": Palette(
        paper="#ffffff",
        ink="#1f2328",
        soft="#8c959f",
        series=("#0969da", "#bc4c00", "#1a7f37", "#8250df"),
    ),
    "dark": Palette(
        paper="#0d1117",
        ink="#e6edf3",
        soft="#6e7681",
        series=("#58a6ff", "#f0883e", "#3fb950", "#bc8cff"),
    ),
}
Draw = Callable[[Any, Palette], None]
"""Draws on a figure."""


def write_pictures(folder: Path, name: str, draw: Draw, *, size_in: tuple[float, float]) -> None:
    """Write `NAME.png` on white and `NAME_dark.png` on dark paper.

    Args:
        size_in: width and height, inches of `DPI` pixels.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    for paper, palette in PALETTES.items():
        colours = {
            "text.color": palette.ink,
            "axes.labelcolor": palette.ink,
            "axes.edgecolor": palette.soft,
            "xtick.color": palette.ink,
            "ytick.color": palette.ink,
            "axes.facecolor": palette.paper,
            "figure.facecolor": palette.paper,
            "legend.facecolor": palette.paper,
            "legend.edgecolor": palette.soft,
            "font.size": 9,
        }
        with rc_context(colours):
            figure = Figure(figsize=size_in, dpi=DPI, layout="constrained")
            draw(figure, palette)
            folder.mkdir(parents=True, exist_ok=True)
            suffix = "" if paper == "light" else f"_{paper}"
            figure.savefig(folder / f"{name}{suffix}.png", metadata={"Software": None})
