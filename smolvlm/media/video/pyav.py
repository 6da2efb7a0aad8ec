"""Frames of a video file by PyAV: the default, and the only reader that scales before it converts
to RGB.

Comes in: which frames. Goes out: upright RGB arrays, one at a time; nothing but the decoder's few
frames stays in memory. Which packets are decoded for them is decided in `walk`.
"""

from collections.abc import Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8

from smolvlm.media.decoders import DecoderError, decoder_errors
from smolvlm.media.tile_grid import Size, size_within
from smolvlm.media.video.files import damaged
from smolvlm.media.video.index import ClipScan
from smolvlm.media.video.walk import chosen_frames
from smolvlm.records import VideoRef

if TYPE_CHECKING:
    from av import VideoFrame
    from av.video.reformatter import VideoReformatter

RGB = UInt8[np.ndarray, "height width 3"]


def read_with_pyav(
    ref: VideoRef, scan: ClipScan, numbers: Sequence[int], *, max_side_px: int
) -> Iterator[RGB]:
    """Yield the frames of these ascending numbers.

    Raises:
        SampleError: as `open_clip`; a frame that cannot be decoded, by its time.
    """
    from av.video.reformatter import VideoReformatter

    reformatter = VideoReformatter()
    for number, frame in zip(numbers, chosen_frames(ref, scan, numbers), strict=True):
        try:
            yield to_rgb(frame, reformatter, max_side_px=max_side_px)
        except DecoderError as error:
            what = f"its frame at {scan.index.times_s[number]:.3f} s cannot be shown: {error}"
            raise damaged(ref, what) from error


def to_rgb(frame: "VideoFrame", reformatter: "VideoReformatter", *, max_side_px: int) -> RGB:
    """Convert a frame to upright RGB, scaled down in the same pass to `max_side_px`.

    A frame that is not scaled has the very pixels of `frame.to_ndarray(format="rgb24")`.

    Raises:
        DecoderError: FFmpeg cannot convert it.
    """
    turn = display_turn(frame)
    size = _stored_size(frame, turn, max_side_px)
    with decoder_errors():
        if size == (frame.width, frame.height):
            converted = reformatter.reformat(frame, format="rgb24")
        else:
            converted = reformatter.reformat(frame, *size, format="rgb24", interpolation="LANCZOS")
        pixels = converted.to_ndarray()
    return turn_upright(pixels, turn)


Turn = tuple[int, int, int, int]
"""(a, b, c, d): a stored pixel at (x, y) is shown at (a x + c y, b x + d y), up to a shift; each is
-1, 0 or 1."""
_AS_STORED: Turn = (1, 0, 0, 1)


def display_turn(frame: "VideoFrame") -> Turn:
    """Return how the display matrix turns or mirrors a frame, by quarters alone.

    Raises:
        DecoderError: the frame's side data cannot be read.
    """
    _name_any_side_data()
    with decoder_errors():
        matrix = frame.side_data.get("DISPLAYMATRIX")
        if matrix is None:
            return _AS_STORED
        values = np.frombuffer(bytes(matrix), dtype=np.int32)  # 3 x 3, in 16.16 fixed point
    a, b, c, d = (round(int(value) / 65536) for value in values[[0, 1, 3, 4]])
    is_quarter = sorted((abs(a), abs(b))) == [0, 1] and (abs(a), abs(b)) == (abs(d), abs(c))
    return (a, b, c, d) if is_quarter else _AS_STORED


@cache
def _name_any_side_data() -> None:
    """Let PyAV list a frame's side data though it has no name for some of it.

    PyAV 18.1 looks every kind up in an enum when any is asked for, and FFmpeg has kinds that it
    does not know, such as the EXIF of a camera's JPEG (31): `ValueError: 31 is not a valid Type`.
    Here such a number is given a member of its own. A PyAV that knows the number never asks.
    """
    from av.sidedata.sidedata import Type

    def nameless(cls: type[Type], number: object) -> Type:
        member = object.__new__(cls)
        member._name_, member._value_ = f"NUMBER_{number}", number
        return member

    Type._missing_ = classmethod(nameless)  # pyright: ignore[reportAttributeAccessIssue]


def turn_upright(pixels: RGB, turn: Turn) -> RGB:
    """Return the pixels as they are to be seen."""
    a, b, c, d = turn
    if b:  # the stored columns become rows
        pixels = pixels.transpose(1, 0, 2)
    flip_rows, flip_columns = (b or d) < 0, (a or c) < 0
    return np.ascontiguousarray(pixels[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1])


def _stored_size(frame: "VideoFrame", turn: Turn, max_side_px: int) -> Size:
    """Return the size to scale to, before turning."""
    is_on_its_side = bool(turn[1])
    width, height = (frame.height, frame.width) if is_on_its_side else (frame.width, frame.height)
    width, height = size_within(width, height, max_side_px)
    return (height, width) if is_on_its_side else (width, height)
