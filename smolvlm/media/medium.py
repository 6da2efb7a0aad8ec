"""A picture or a clip, whichever a row names: the content keys of its tiles, and the tiles.

In: a reference, what of it is shown (`layout.py`), the run's media settings. Out: keys known from
its bytes and, only where some are not known yet, the tiles themselves.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import blake2b

import numpy as np
from jaxtyping import UInt8

from smolvlm.errors import SampleError
from smolvlm.media.decode_time import decoding
from smolvlm.media.images import content_key, open_rgb, read_bytes
from smolvlm.media.settings import MediaSettings
from smolvlm.media.tiles import make_tiles
from smolvlm.media.video.reader import clip_key, frame_tiles
from smolvlm.records import Frames, Grid, Layout, Media, VideoRef

CHANGED_FIX = (
    "the row or its media changed after they were measured; delete the kept sizes (the folder "
    "`lengths` in "
    "$SMOLVLM_HOME, by default ~/.cache/smolvlm) and start again"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenMedium:
    """A picture or a clip whose bytes are known."""

    key: bytes
    """Names its bytes: equal for equal files, whatever they are called."""
    tile_keys: tuple[bytes, ...]
    """Content key of each tile: equal for equal tiles, whatever the file is called."""
    tiles: Callable[[], UInt8[np.ndarray, "tile 3 side side"]]
    """Decodes and cuts; raises SampleError where the data is damaged."""


def open_medium(medium: Media, layout: Layout, settings: MediaSettings) -> OpenMedium:
    """Return a picture's or clip's tile keys, and the way to its tiles.

    Args:
        medium: what the row names.
        layout: what `layout_of` said of it.
        settings: those it was measured with.

    Raises:
        SampleError: it cannot be read.
    """
    if isinstance(medium, VideoRef):
        assert isinstance(layout, Frames)
        return _open_clip(medium, layout, settings)
    assert isinstance(layout, Grid)
    data = read_bytes(medium)
    key = content_key(data)
    ref = replace(medium, data=data)

    def tiles() -> UInt8[np.ndarray, "tile 3 side side"]:
        with decoding(settings.max_decode_s):
            picture = open_rgb(ref, max_pixels=settings.max_image_pixels)
            made = make_tiles(picture, settings.pictures)
        if len(made) != layout.num_tiles:
            what = f"{medium.name} is cut into {len(made)} tiles, {layout.num_tiles} were planned"
            raise SampleError(what, kind="changed_row", fix=CHANGED_FIX)
        return made

    keys = tuple(_tile_key(key, tile, settings.picture_key) for tile in range(layout.num_tiles))
    return OpenMedium(key=key, tile_keys=keys, tiles=tiles)


def medium_key(medium: Media) -> bytes:
    """Return the key of a picture's or clip's bytes, as `open_medium` does; nothing is decoded.

    Raises:
        SampleError: it cannot be read.
    """
    if isinstance(medium, VideoRef):
        return clip_key(medium)
    return content_key(read_bytes(medium))


def _open_clip(clip: VideoRef, frames: Frames, settings: MediaSettings) -> OpenMedium:
    key = clip_key(clip)

    def tiles() -> UInt8[np.ndarray, "tile 3 side side"]:
        with decoding(settings.max_decode_s):
            return frame_tiles(
                clip,
                frames,
                settings.frame_tiles,
                backend=settings.video_backend,
                max_image_pixels=settings.max_image_pixels,
            )

    return OpenMedium(
        key=key,
        tile_keys=tuple(_tile_key(key, number, settings.frame_key) for number in frames.numbers),
        tiles=tiles,
    )


def _tile_key(medium_key: bytes, tile: int, settings_key: bytes) -> bytes:
    """Return one tile's content key: of the medium's bytes, its number and what shapes it."""
    return blake2b(medium_key + settings_key + tile.to_bytes(4, "little"), digest_size=16).digest()
