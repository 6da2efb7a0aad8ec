"""Samples as one HTML file: coloured tokens beside tiles, trees as boxes, packs as bars.

Each tile is embedded once, as the background of a class that both the grid and the place in the
text use.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from smolvlm.inspect.records import (
    InspectedClip,
    InspectedPicture,
    InspectedSample,
    PackSummary,
    SamplePart,
    TokenRun,
    run_label,
)
from smolvlm.inspect.scope_table import scope_svg
from smolvlm.pages.templating import write_page
from smolvlm.pages.thumbnails import pixels_uri
from smolvlm.pages.token_text import NEWLINE, plural
from smolvlm.terminal import visible

TILE_SIDE_PX = 112
WHOLE_VIEW_SIDE_PX = 224
MAX_PACKS_SHOWN = 160
FRAME_COLUMNS = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenView:
    """A run of tokens as the page draws it."""

    text: str
    classes: str
    detail: str
    """What hovering tells."""
    tile_classes: tuple[str, ...]
    """Of the tile shown, or of the frames that are averaged; empty for text."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PartView:
    """The trunk, or a branch."""

    title: str
    num_tokens: int
    tokens: tuple[TokenView, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class PictureView:
    """A picture's tiles by the classes that carry them, but for the whole view; or a clip's."""

    name: str
    cut: str
    columns: int
    tile_classes: tuple[str, ...]
    captions: tuple[str, ...]
    """Of a clip: the time of each of its frames, which are its tiles."""
    groups: tuple[tuple[int, ...], ...]
    """Of a clip whose frames are averaged: the frames of each place in the text."""
    whole_class: str
    """Empty for a clip."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleView:
    """One sample."""

    number: int
    sample: InspectedSample
    trunk: PartView | None
    branches: tuple[PartView, ...]
    pictures: tuple[PictureView, ...]
    scopes: str | None


def write_inspect_page(
    samples: Sequence[InspectedSample],
    *,
    path: Path,
    title: str,
    summary: PackSummary | None = None,
) -> Path:
    """Write the samples to one self-contained HTML file and return its path.

    Args:
        samples: in the order to be shown.
        path: the file to write; its folder is made if need be.
        title: heading of the page, for example the run file's name.
        summary: how full the run's packs are; None leaves them out.
    """
    packs = summary.packs if summary else ()
    num_tokens = sum(sample.num_tokens for sample in samples)
    return write_page(
        path,
        template="inspect.html",
        title=title,
        samples=[_sample_view(number, sample) for number, sample in enumerate(samples, start=1)],
        tile_images=list(_tile_images(samples)),
        num_tokens=num_tokens,
        num_tiles=sum(sample.num_tiles for sample in samples),
        learned_share=sum(sample.num_learned for sample in samples) / max(num_tokens, 1),
        summary=summary,
        packs_shown=packs[:MAX_PACKS_SHOWN],
        num_packs_hidden=max(len(packs) - MAX_PACKS_SHOWN, 0),
    )


def _sample_view(number: int, sample: InspectedSample) -> SampleView:
    predicted: dict[int, list[str]] = {}
    for target in sample.targets:
        predicted.setdefault(target.predict_from, []).append(
            visible(target.text).replace("\n", NEWLINE)
        )

    def view(part: SamplePart) -> PartView:
        return PartView(
            title="trunk" if part.where is None else part.where,
            num_tokens=part.end - part.start,
            tokens=tuple(_token_view(run, number, predicted) for run in part.runs),
        )

    trunk_length = sample.trunk.end if sample.trunk else 0
    return SampleView(
        number=number,
        sample=sample,
        trunk=view(sample.trunk) if sample.trunk else None,
        branches=tuple(view(branch) for branch in sample.branches),
        pictures=tuple(
            _picture_view(picture, number, place) for place, picture in enumerate(sample.media)
        ),
        scopes=scope_svg(sample.scope_end, trunk_length=trunk_length),
    )


def _token_view(run: TokenRun, sample: int, predicted: dict[int, list[str]]) -> TokenView:
    last = run.start + run.count - 1
    span = str(run.start) if run.count == 1 else f"{run.start} to {last}"
    position = (
        str(run.position_id)
        if run.count == 1
        else f"{run.position_id} to {run.position_id + run.count - 1}"
    )
    detail = f"token {span} · id {run.token_id} · position {position} · scope_end {run.scope_end}"
    if run.is_learned:
        detail += " · learned"
    if words := predicted.get(last):
        detail += " · predicts " + ", ".join(f"“{word}”" for word in words)
    return TokenView(
        text=run_label(run) if run.tile else visible(run.text).replace("\n", NEWLINE + "\n"),
        classes=f"t {run.role.name.lower()}" + (" learned" if run.is_learned else ""),
        detail=detail,
        tile_classes=tuple(
            _tile_class(sample, run.tile.medium, run.tile.tile + number)
            for number in range(run.num_tiles)
        )
        if run.tile
        else (),
    )


def _picture_view(
    picture: InspectedPicture | InspectedClip, sample: int, place: int
) -> PictureView:
    num_tiles = len(picture.tiles) if picture.tiles is not None else 0
    classes = tuple(_tile_class(sample, place, tile) for tile in range(num_tiles))
    if isinstance(picture, InspectedClip):
        return _clip_view(picture, classes)
    grid = picture.grid
    return PictureView(
        name=picture.name,
        cut=f"{grid.rows} x {grid.columns} tiles and the whole view"
        if grid.rows
        else "the whole view alone",
        columns=grid.columns,
        tile_classes=classes[:-1],
        captions=(),
        groups=(),
        whole_class=classes[-1] if classes else "",
    )


def _clip_view(clip: InspectedClip, classes: tuple[str, ...]) -> PictureView:
    cut = f"{plural(len(clip.times_s), 'frame')} of {clip.duration_s:.2f} s"
    columns, groups = FRAME_COLUMNS, ()
    if max(clip.slot_sizes) > 1:
        cut += f", averaged in {plural(len(clip.slot_sizes), 'group')}"
        columns = min(max(clip.slot_sizes), FRAME_COLUMNS)
        ends = list(accumulate(clip.slot_sizes))
        groups = tuple(
            tuple(range(end - size, end)) for end, size in zip(ends, clip.slot_sizes, strict=True)
        )
    return PictureView(
        name=clip.name,
        cut=cut,
        columns=columns,
        tile_classes=classes,
        captions=tuple(f"{time_s:.2f} s" for time_s in clip.times_s),
        groups=groups if classes else (),
        whole_class="",
    )


def _tile_images(samples: Sequence[InspectedSample]) -> Iterable[tuple[str, str]]:
    """Yield the class and the data URI of every tile."""
    for number, sample in enumerate(samples, start=1):
        for place, picture in enumerate(sample.media):
            whole = picture.grid.num_tiles - 1 if isinstance(picture, InspectedPicture) else -1
            for tile, pixels in enumerate(picture.tiles if picture.tiles is not None else ()):
                side = WHOLE_VIEW_SIDE_PX if tile == whole else TILE_SIDE_PX
                yield _tile_class(number, place, tile), pixels_uri(pixels, max_side_px=side)


def _tile_class(sample: int, medium: int, tile: int) -> str:
    return f"s{sample}-{medium}-{tile}"
