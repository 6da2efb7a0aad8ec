"""Small pictures inside a page: pixels or a file to a `data:` URI."""

from base64 import b64encode
from io import BytesIO

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from smolvlm.media.decode_time import MAX_DECODE_S, decoding
from smolvlm.media.images import open_rgb
from smolvlm.media.video.frames import FrameSettings, choose_frames
from smolvlm.media.video.index import read_index
from smolvlm.media.video.reader import read_frames
from smolvlm.records import Media, VideoRef

LOSSLESS_SIDE_PX = 128
"""Up to here PNG is small and keeps every pixel; above, JPEG."""
FIRST_FRAME = FrameSettings(fps=1.0, max_frames=1, sampling="fps")


def pixels_uri(pixels: UInt8[np.ndarray, "3 height width"], *, max_side_px: int) -> str:
    """Return pixels, scaled down to `max_side_px` where they are larger."""
    return _uri(Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))), max_side_px)


def medium_uri(medium: Media, *, max_side_px: int) -> str:
    """Return a picture, or a clip's first frame, scaled down to `max_side_px`.

    Raises:
        SampleError: it cannot be read.
    """
    with decoding(MAX_DECODE_S):
        return _medium_uri(medium, max_side_px)


def _medium_uri(medium: Media, max_side_px: int) -> str:
    if not isinstance(medium, VideoRef):
        return _uri(open_rgb(medium), max_side_px)
    first = choose_frames(
        read_index(medium), FIRST_FRAME, start_s=medium.start_s, end_s=medium.end_s
    )
    (pixels,) = read_frames(medium, first, max_side_px=max_side_px, backend="pyav")
    return _uri(Image.fromarray(pixels), max_side_px)


def _uri(image: Image.Image, max_side_px: int) -> str:
    image.thumbnail((max_side_px, max_side_px), Image.Resampling.LANCZOS)
    kind = "png" if max(image.size) <= LOSSLESS_SIDE_PX else "jpeg"
    buffer = BytesIO()
    if kind == "png":
        image.save(buffer, "PNG", optimize=True)
    else:
        image.save(buffer, "JPEG", quality=82, optimize=True)
    return f"data:image/{kind};base64,{b64encode(buffer.getvalue()).decode('ascii')}"
