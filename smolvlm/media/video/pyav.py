"""Frames of a video file by PyAV: the default, and the only reader that scales before it converts
to RGB.

Comes in: which frames, as presentation times. Goes out: upright RGB arrays, one at a time; nothing
but the decoder's few frames stays in memory. The reader walks through the wanted frames and
seeks only where a keyframe lies between here and the next of them. A frame is delivered only if its
time is exactly the wanted one. Where a container seeks badly, or a keyframe turns out not to be a
point to start from, it goes back further, at last to the clip's begin, decoding every frame: slow,
and right.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int64, UInt8

from smolvlm.media.decoders import DecoderError, decoder_errors, each
from smolvlm.media.tile_grid import Size, size_within
from smolvlm.media.video.files import damaged, open_clip
from smolvlm.media.video.index import ClipScan
from smolvlm.records import VideoRef

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer
    from av.video.reformatter import VideoReformatter
    from av.video.stream import VideoStream

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
    for number, frame in zip(numbers, _chosen_frames(ref, scan, numbers), strict=True):
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


_CODECS_THAT_SKIP = ("h264", "hevc")
"""Those that say in a frame's header whether others depend on it; leaving out the rest saves a
fifth to a third."""

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


def _chosen_frames(ref: VideoRef, scan: ClipScan, numbers: Sequence[int]) -> Iterator["VideoFrame"]:
    if not scan.times_are_usable:
        yield from _by_counting(ref, scan, numbers)
        return
    with ExitStack() as opened:
        container, stream = opened.enter_context(open_clip(ref))
        wanted = frozenset(scan.index.pts[list(numbers)].tolist())
        skips = stream.codec_context.name in _CODECS_THAT_SKIP
        walk = _Walk(container, stream, scan.keyframe_pts, only=wanted if skips else None)
        for number in numbers:
            pts = int(scan.index.pts[number])
            frame = walk.frame_at(pts)
            if frame is None:
                opened.close()
                walk = _Walk(*opened.enter_context(open_clip(ref)), scan.keyframe_pts[:1])
                frame = walk.frame_at(pts)
            if frame is None:
                raise damaged(
                    ref, f"its frame at {scan.index.times_s[number]:.3f} s cannot be decoded"
                )
            yield frame


def _by_counting(ref: VideoRef, scan: ClipScan, numbers: Sequence[int]) -> Iterator["VideoFrame"]:
    """Decode from the begin and count."""
    left = list(reversed(numbers))
    with open_clip(ref) as (container, stream):
        try:
            for number, frame in enumerate(each(container.decode(stream))):
                if number == left[-1]:
                    yield frame
                    left.pop()
                    if not left:
                        return
        except DecoderError:
            pass
    raise damaged(ref, f"its frame at {scan.index.times_s[left[-1]]:.3f} s cannot be decoded")


class _Walk:
    """A place in a clip that moves forward frame by frame, and jumps where that is shorter."""

    def __init__(
        self,
        container: "InputContainer",
        stream: "VideoStream",
        keyframe_pts: Int64[np.ndarray, " keyframe"],
        *,
        only: frozenset[int] | None = None,
    ) -> None:
        """Begin at the clip's begin.

        Args:
            container: just opened.
            stream: of it.
            keyframe_pts: where to jump to; the first alone makes a walk that never jumps.
            only: times that will be asked for; other frames are not decoded where no frame depends
                on them.
        """
        self._container, self._stream, self._keyframes, self._only = (
            container,
            stream,
            keyframe_pts,
            only,
        )
        self._frames = self._decode(not_after=None)
        self._reached: int | None = None
        """Time of the last decoded frame; None before the first."""

    def frame_at(self, pts: int) -> "VideoFrame | None":
        """Return the frame of exactly this time, later than all before; None if not found."""
        key = int(np.searchsorted(self._keyframes, pts, side="right")) - 1
        if key <= 0 or (self._reached is not None and self._keyframes[key] <= self._reached):
            return self._walk_to(pts)
        # Some containers seek by decoding time, and so to a keyframe that is shown a little later.
        for start in dict.fromkeys((key, max(key - 1, 0), max(key - 4, 0))):
            if frame := self._jump(int(self._keyframes[start])) and self._walk_to(pts):
                return frame
        return None

    def _walk_to(self, pts: int) -> "VideoFrame | None":
        try:
            for frame in self._frames:
                self._reached = frame.pts
                if frame.pts is not None and frame.pts >= pts:
                    return frame if frame.pts == pts and not frame.is_corrupt else None
        except DecoderError:
            return None
        return None

    def _jump(self, keyframe: int) -> bool:
        """Go to this keyframe or to one before it; say whether the container can."""
        try:
            with decoder_errors():
                self._container.seek(keyframe, stream=self._stream)
        except DecoderError:
            return False
        self._frames = self._decode(not_after=keyframe)
        self._reached = None
        return True

    def _decode(self, *, not_after: int | None) -> Iterator["VideoFrame"]:
        """Decode from the next keyframe on; nothing if that one is shown behind `not_after`."""
        has_begun = False
        for packet in each(self._container.demux(self._stream)):
            if not has_begun and packet.size:
                if packet.pts is None or not (
                    packet.is_keyframe or packet.pts == self._keyframes[0]
                ):
                    continue
                if not_after is not None and packet.pts > not_after:
                    return
                has_begun = True
            if self._only is not None:
                is_needed = packet.pts in self._only or not packet.size
                self._stream.codec_context.skip_frame = "DEFAULT" if is_needed else "NONREF"
            with decoder_errors():
                frames = packet.decode()
            yield from frames
