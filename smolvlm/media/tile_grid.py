"""From a picture's size to the sizes of its resizes and its grid: arithmetic alone.

The released processor scales the longest edge to a fixed length (small pictures grow), stretches
both sides up to multiples of the tile side, cuts, and adds one global view. Its sizes come from
float divisions that are truncated and then made even, so the same divisions are done here in the
same order: an exact rational would give another size now and then, and with it another number of
tokens.
"""

import math
from dataclasses import dataclass
from typing import Literal

from smolvlm.errors import ConfigError
from smolvlm.records import Grid

MAX_TILES_PER_SIDE = 6
"""The vocabulary's position tags end at row 6, column 6."""
MAX_SIDE_PX = 4096
"""The released processor never goes above this, whatever `size.longest_edge` says; its code holds
it, no file does."""

ImageSplitting = Literal["overview"] | bool
"""How pictures are cut: False is the global view alone, True a grid of tiles besides it wherever
the picture needs more than one, `overview` one tile besides it, always (as llama.cpp shows what
fits one tile)."""
Size = tuple[int, int]
"""(width, height) in pixels."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TileSettings:
    """How pictures become tiles; read from a checkpoint's processor."""

    tile_side_px: int
    """`max_image_size.longest_edge`: side of every tile, which is what the vision tower sees."""
    longest_edge_px: int
    """`size.longest_edge`: length that a picture's longest edge is scaled to."""
    image_splitting: ImageSplitting
    """Cut into a grid of tiles besides the global view, or shown as one tile besides it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ResizePlan:
    """The resizes of one picture, in order; each starts from the result of the one before."""

    longest_edge_size: Size
    """After the first resize: longest edge as set, aspect ratio kept up to rounding."""
    cut_size: Size
    """After the second: exactly `grid.columns` x `grid.rows` tiles, or one tile for a 0 x 0
    grid."""
    global_size: Size
    """After the third: the global view, one tile. The same as `cut_size` for a 0 x 0 grid."""
    grid: Grid


def check_tile_settings(settings: TileSettings) -> None:
    """Refuse settings whose pictures the model has no tags for.

    Raises:
        ConfigError: a length below 1 px; with splitting, a longest edge that is no multiple of the
            tile side or more than six tiles; with an overview, one that is not the tile side.
    """
    side, edge = settings.tile_side_px, settings.longest_edge_px
    for name, length in (("tile_side_px", side), ("longest_edge_px", edge)):
        if length < 1:
            raise ConfigError(
                f"{name}={length} is not a length in pixels", fix="give a whole number above 0"
            )
    if not settings.image_splitting:
        return
    if settings.image_splitting == "overview" and edge != side:
        raise ConfigError(
            f"longest_edge_px={edge}, and image_splitting=overview shows pictures as one tile of "
            f"{side} px",
            fix="take longest_edge_px out, or set image_splitting: true",
        )
    allowed = ", ".join(str(side * count) for count in range(1, MAX_TILES_PER_SIDE + 1))
    fix = f"set longest_edge_px to one of {allowed}, or turn image splitting off"
    if edge % side:
        raise ConfigError(
            f"longest_edge_px={edge} is not a multiple of the tile side, {side}", fix=fix
        )
    if edge > side * MAX_TILES_PER_SIDE:
        raise ConfigError(
            f"longest_edge_px={edge} is {edge // side} tiles of {side} px, and the vocabulary's "
            "tags end at "
            f"{MAX_TILES_PER_SIDE}",
            fix=fix,
        )


def plan_resize(width: int, height: int, settings: TileSettings) -> ResizePlan:
    """Return the sizes of a picture's resizes and its grid.

    1200 x 800 with tiles of 512 px and a longest edge of 2048 px becomes 2048 x 1366, then 2048 x
    1536, that is 3 rows of 4 tiles, and a global view of 512 x 512.

    Args:
        width: of the upright picture, in pixels.
        height: the same.
        settings: any positive lengths; `check_tile_settings` says which of them a model can use.

    Raises:
        ValueError: a side below 1 px.
    """
    if width < 1 or height < 1:
        raise ValueError(f"a picture of {width} x {height} px has no pixels")
    side = settings.tile_side_px
    longest_edge_size = _below_max_side(*_to_longest_edge(width, height, settings.longest_edge_px))
    cut_size = (
        _to_whole_tiles(*longest_edge_size, side) if settings.image_splitting else (side, side)
    )
    is_cut = cut_size != (side, side) or settings.image_splitting == "overview"
    grid = (
        Grid(rows=cut_size[1] // side, columns=cut_size[0] // side)
        if is_cut
        else Grid(rows=0, columns=0)
    )
    return ResizePlan(
        longest_edge_size=longest_edge_size, cut_size=cut_size, global_size=(side, side), grid=grid
    )


def grid_for(width: int, height: int, settings: TileSettings) -> Grid:
    """Return how a picture is cut; `Grid(0, 0)` is the global view alone."""
    return plan_resize(width, height, settings).grid


def size_within(width: int, height: int, max_side_px: int) -> Size:
    """Return a frame's size with no side above `max_side_px`; smaller ones keep theirs.

    The sides are those of the first resize of `plan_resize`, which therefore leaves such a frame as
    it is.

    Raises:
        ValueError: a side below 1 px.
    """
    if max(width, height) <= max_side_px:
        return width, height
    unsplit = TileSettings(
        tile_side_px=max_side_px, longest_edge_px=max_side_px, image_splitting=False
    )
    return plan_resize(width, height, unsplit).longest_edge_size


def _to_longest_edge(width: int, height: int, edge: int) -> Size:
    """Scale the longest edge to `edge`; truncate the other side, then round it up to even."""
    aspect_ratio = width / height
    if width >= height:
        width, height = edge, _even(int(edge / aspect_ratio))
    else:
        width, height = _even(int(edge * aspect_ratio)), edge
    return max(width, 1), max(height, 1)


def _even(length: int) -> int:
    return length + length % 2


def _below_max_side(width: int, height: int) -> Size:
    """Scale down what is above `MAX_SIDE_PX`; odd lengths stay odd here."""
    aspect_ratio = width / height
    if width >= height and width > MAX_SIDE_PX:
        width, height = MAX_SIDE_PX, int(MAX_SIDE_PX / aspect_ratio)
    elif height > width and height > MAX_SIDE_PX:
        width, height = int(MAX_SIDE_PX * aspect_ratio), MAX_SIDE_PX
    return max(width, 1), max(height, 1)


def _to_whole_tiles(width: int, height: int, side: int) -> Size:
    """Stretch both sides up to multiples of `side`, the longer one first."""
    aspect_ratio = width / height
    if width >= height:
        width = _ceil_to(width, side)
        height = _ceil_to(int(width / aspect_ratio), side)
    else:
        height = _ceil_to(height, side)
        width = _ceil_to(int(height * aspect_ratio), side)
    return width, height


def _ceil_to(length: int, multiple: int) -> int:
    return math.ceil(length / multiple) * multiple
