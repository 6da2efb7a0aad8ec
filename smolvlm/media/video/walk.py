"""From a clip's packets to the decoded frames that were chosen, decoding as few others as possible.

Comes in: what the packets say (`ClipScan`) and which frames. Goes out: PyAV's frames, in order, the
very ones that decoding from the first to the last gives. Four things save decoding:

- A keyframe between here and the next wanted frame is jumped to, where that leaves a frame out.
- Frames on which no other depends are left out where the codec says which they are.
- A decoder holds frames back until it knows that none is shown before them. If the next wanted
  frame is jumped to anyway, the decoder is emptied as soon as it has the wanted one's packet: all
  that a frame depends on is stored before it.
- A file whose header says enough is opened without decoding a frame.

A frame counts as found only if its time is exactly the wanted one. Otherwise the clip is opened
again and read more plainly: as FFmpeg examines it and with the frames in their turn, at last from
the begin, every frame decoded: slow, and right.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int64

from smolvlm.media.decoders import DecoderError, decoder_errors, each
from smolvlm.media.video.files import damaged, open_clip
from smolvlm.media.video.index import ClipScan
from smolvlm.records import VideoRef

if TYPE_CHECKING:
    from av import Packet, VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream

_CODECS_THAT_SKIP = ("h264", "hevc")
"""Those that say in a frame's header whether others depend on it; leaving out the rest saves a
fifth to a third."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Mode:
    """How a clip is read."""

    is_examined: bool
    """FFmpeg decodes a few frames of it when it is opened, to know how frames are reordered."""
    jumps: bool
    """To keyframes; frames that are not needed are left out."""
    empties: bool
    """The decoder, at a wanted frame's packet."""


_MODES = (
    _Mode(is_examined=False, jumps=True, empties=True),
    _Mode(is_examined=True, jumps=True, empties=False),
    _Mode(is_examined=True, jumps=False, empties=False),
)
"""In the order they are tried; the last is decoding from the begin."""


def chosen_frames(ref: VideoRef, scan: ClipScan, numbers: Sequence[int]) -> Iterator["VideoFrame"]:
    """Yield the frames of these ascending numbers.

    Raises:
        SampleError: as `open_clip`; a frame that cannot be decoded, by its time.
    """
    if not scan.times_are_usable:
        yield from _by_counting(ref, scan, numbers)
        return
    wanted = scan.index.pts[list(numbers)].tolist()
    modes = iter(_MODES)
    with ExitStack() as opened:
        walk = _opened_walk(ref, scan, wanted, next(modes), opened)
        for number, pts in zip(numbers, wanted, strict=True):
            while (frame := walk.frame_at(pts)) is None:
                opened.close()
                mode = next(modes, None)
                if mode is None:
                    raise _undecodable(ref, scan, number)
                walk = _opened_walk(ref, scan, wanted, mode, opened)
            yield frame


def _opened_walk(
    ref: VideoRef, scan: ClipScan, wanted: Sequence[int], mode: _Mode, opened: ExitStack
) -> "_Walk":
    container, stream = opened.enter_context(open_clip(ref, is_examined=mode.is_examined))
    return _Walk(container, stream, scan, wanted=wanted, mode=mode)


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
    raise _undecodable(ref, scan, left[-1])


def _undecodable(ref: VideoRef, scan: ClipScan, number: int) -> Exception:
    return damaged(ref, f"its frame at {scan.index.times_s[number]:.3f} s cannot be decoded")


def jump_targets(
    shown: Int64[np.ndarray, " frame"],
    keyframes: Int64[np.ndarray, " keyframe"],
    wanted: Sequence[int],
) -> dict[int, int]:
    """Return the wanted frames that are jumped to, and the number of the keyframe for each.

    Frames 0 to 59 with a keyframe at every tenth and 3, 10, 35 and 36 wanted give {10: 1, 35: 3}; 9
    in place of 3 gives {35: 3}, since nothing lies between 9 and 10 to be left out.

    Args:
        shown: times of all frames, ascending.
        keyframes: times at which decoding may start, ascending.
        wanted: times, ascending.
    """
    targets: dict[int, int] = {}
    reached = int(keyframes[0])
    keys = np.searchsorted(keyframes, np.asarray(wanted), side="right") - 1
    for pts, key in zip(wanted, keys.tolist(), strict=True):
        if key > 0 and np.searchsorted(shown, keyframes[key]) > 1 + np.searchsorted(shown, reached):
            targets[pts] = key
        reached = pts
    return targets


class _Walk:
    """A place in a clip that moves forward frame by frame, and jumps where that is shorter."""

    def __init__(
        self,
        container: "InputContainer",
        stream: "VideoStream",
        scan: ClipScan,
        *,
        wanted: Sequence[int],
        mode: _Mode,
    ) -> None:
        """Begin at the clip's begin.

        Args:
            container: just opened.
            stream: of it.
            scan: what its packets say.
            wanted: times that will be asked for, ascending.
            mode: how.
        """
        self._container, self._stream, self._keyframes = container, stream, scan.keyframe_pts
        self._targets: dict[int, int] = {}
        self._only = self._last_here = frozenset[int]()
        if mode.jumps:
            self._targets = jump_targets(scan.index.pts, scan.keyframe_pts, wanted)
            if stream.codec_context.name in _CODECS_THAT_SKIP:
                self._only = frozenset(wanted)
        if mode.empties:
            behind = [*wanted[1:], None]
            self._last_here = frozenset(
                pts
                for pts, following in zip(wanted, behind, strict=True)
                if following is None or following in self._targets
            )
        self._frames = self._decode(not_after=None)

    def frame_at(self, pts: int) -> "VideoFrame | None":
        """Return the frame of exactly this time, later than all before; None if not found."""
        if pts not in self._targets:
            return self._walk_to(pts)
        key = self._targets[pts]
        # Some containers seek by decoding time, and so to a keyframe that is shown a little later.
        for start in dict.fromkeys((key, max(key - 1, 0), max(key - 4, 0))):
            if frame := self._jump(int(self._keyframes[start])) and self._walk_to(pts):
                return frame
        return None

    def _walk_to(self, pts: int) -> "VideoFrame | None":
        try:
            for frame in self._frames:
                if frame.pts is not None and frame.pts >= pts:
                    return frame if frame.pts == pts and not frame.is_corrupt else None
        except DecoderError:
            return None
        return None

    def _jump(self, keyframe: int) -> bool:
        """Go to this keyframe or to one before it; say whether the container can."""
        try:
            with decoder_errors():
                self._container.seek(keyframe, stream=self._stream)  # empties the decoder too
        except DecoderError:
            return False
        self._frames = self._decode(not_after=keyframe)
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
            if self._only:
                is_needed = packet.pts in self._only or not packet.size
                self._stream.codec_context.skip_frame = "DEFAULT" if is_needed else "NONREF"
            yield from self._decoded(packet)
            if packet.pts in self._last_here and packet.size:
                yield from self._rest()
                return

    def _decoded(self, packet: "Packet") -> "list[VideoFrame]":
        with decoder_errors():
            return packet.decode()  # pyright: ignore[reportReturnType] - of a video stream

    def _rest(self) -> "Iterator[VideoFrame]":
        """Empty the decoder; of half a frame nothing comes, as where two fields are two packets."""
        with decoder_errors():
            frames = self._stream.codec_context.decode(None)
        yield from (frame for frame in frames if not frame.interlaced_frame)
