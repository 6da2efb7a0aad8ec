"""When each frame of a clip is shown, from its packets' time stamps: nothing is decoded.

Comes in: a `VideoRef`. Goes out: a `ClipIndex`, and for the decoder a `ClipScan` that also says
where decoding may start. The whole file is read once, some two microseconds a packet; the results
of the last few files are remembered, so that choosing frames and then reading them costs one pass.

Not every packet is a frame on display: some are cut away by an edit list, some (VP8) only help to
decode others, and those shown before the first keyframe lack what they were predicted from, as at
the begin of a recording that was cut out of a longer one. Where the packets carry no usable times
(AVI keeps none, so with reordered frames they are guesses; bare H.264 has none at all) the clip is
decoded once and its frames are taken in the order they come.
"""

import os
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int64

from smolvlm.errors import SampleError
from smolvlm.media.decoders import DecoderError, decoder_errors, each
from smolvlm.media.video.files import (
    REPLACE,
    damaged,
    fetch_clip,
    open_clip,
    unreadable,
)
from smolvlm.media.video.frame_folders import list_pictures
from smolvlm.media.video.frames import ClipIndex
from smolvlm.records import VideoRef

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

_REMEMBERED_CLIPS = 16
"""A clip of an hour at 30 frames a second takes a megabyte."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipScan:
    """What the packets of a video file say."""

    index: ClipIndex
    keyframe_pts: Int64[np.ndarray, " keyframe"]
    """Where decoding may start, ascending; some may lie before the first frame on display."""
    has_leading_frames: bool
    """Some frames are stored behind a keyframe and shown before it (open groups of pictures, the
    default of H.265)."""
    times_are_usable: bool
    """False where frames can only be told by counting from the clip's begin."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FileVersion:
    """A file, or a part of one, as it is now: the key by which results are remembered."""

    path: Path
    span: tuple[int, int] | None
    num_bytes: int
    mtime_ns: int
    url: str | None = field(compare=False)
    """Where the file is from; no part of the key."""

    @property
    def ref(self) -> VideoRef:
        """What names it."""
        return VideoRef(path=self.path, span=self.span, url=self.url)


def read_index(ref: VideoRef) -> ClipIndex:
    """Return when each frame of a clip is shown; pictures come at `source_fps`.

    Raises:
        SampleError: the clip cannot be opened (as `open_clip`, `list_pictures`), is cut short, or
            has no frames.
        ConfigError: PyAV is not installed.
    """
    pictures = list_pictures(ref)
    if pictures is None:
        return scan_clip(ref).index
    if not 0 < ref.source_fps < float("inf"):
        raise SampleError(
            f"source_fps={ref.source_fps:g} of clip {ref.name} is not a rate",
            fix="give the frames a second at which the pictures were taken",
        )
    time_base = 1 / Fraction(repr(float(ref.source_fps)))
    return ClipIndex(pts=np.arange(len(pictures)), time_base=time_base, end_pts=len(pictures))


def scan_clip(ref: VideoRef) -> ClipScan:
    """Return what the packets of a video file say; remembered while path, size and time of change
    stay.

    Raises:
        SampleError, ConfigError: as `read_index`.
    """
    version = file_version(ref)
    return _scan(ref) if version is None else _remembered_scan(version)


def file_version(ref: VideoRef) -> FileVersion | None:
    """Return what the clip's file is now; None for bytes, and for a file that is missing.

    Raises:
        SampleError: the path cannot be looked up; an address that cannot be fetched.
    """
    if ref.path is None:
        return None
    fetch_clip(ref)
    try:
        status = os.stat(ref.path)
    except FileNotFoundError:
        return None  # opening it tells
    except (OSError, ValueError) as error:
        raise unreadable(ref, error) from error
    return FileVersion(
        path=ref.path,
        span=ref.span,
        num_bytes=status.st_size,
        mtime_ns=status.st_mtime_ns,
        url=ref.url,
    )


@lru_cache(maxsize=_REMEMBERED_CLIPS)
def _remembered_scan(version: FileVersion) -> ClipScan:
    return _scan(version.ref)


def _scan(ref: VideoRef) -> ClipScan:
    with open_clip(ref, is_examined=False) as (container, stream):
        try:
            scan = _scan_packets(container, stream)
            is_whole = scan is None or _is_whole(container, stream, num_frames=len(scan.index.pts))
        except DecoderError as error:
            raise damaged(ref, f"reading stops with: {error}") from error
    if not is_whole:
        raise damaged(ref, "its header lists frames behind the end of the file")
    if scan is not None:
        return scan
    with open_clip(ref) as (container, stream):
        try:
            scan = _scan_frames(container, stream)
        except DecoderError as error:
            raise damaged(ref, f"decoding stops with: {error}") from error
    if scan is None:
        raise SampleError(
            f"clip {ref.name} has no frames",
            kind="corrupt_media",
            fix=REPLACE,
        )
    return scan


def _scan_packets(container: "InputContainer", stream: "VideoStream") -> ClipScan | None:
    """Read all packets; None where their times are not to be trusted, or there is no frame."""
    is_vp8 = stream.codec_context.name == "vp8"
    shown: list[int] = []
    durations: dict[int, int] = {}
    keyframes: list[int] = []
    has_leading_frames = False
    for packet in each(container.demux(stream)):
        if not packet.size:
            continue
        if packet.pts is None:
            return None
        if packet.is_keyframe:
            keyframes.append(packet.pts)
        has_leading_frames |= bool(keyframes) and packet.pts < keyframes[-1]
        if packet.is_discard or (
            is_vp8 and not bytes(memoryview(packet)[:1])[0] & 0x10
        ):  # show_frame
            continue
        shown.append(packet.pts)
        durations[packet.pts] = packet.duration or 0
    pts = np.unique(np.asarray(shown, dtype=np.int64))
    if keyframes:
        pts = pts[pts >= min(keyframes)]
    if not len(pts) or _are_guesses(container, stream, shown):
        return None
    end_pts = _end(pts, durations[int(pts[-1])], stream)
    return ClipScan(
        index=ClipIndex(pts=pts, time_base=_time_base(stream), end_pts=end_pts),
        keyframe_pts=np.unique(np.asarray(keyframes or shown[:1], dtype=np.int64)),
        has_leading_frames=has_leading_frames,
        times_are_usable=True,
    )


def _is_whole(container: "InputContainer", stream: "VideoStream", *, num_frames: int) -> bool:
    """Say whether the file holds all that its header lists, if it lists anything."""
    if num_frames >= stream.frames:
        return True
    with decoder_errors():
        return all(entry.pos + entry.size <= container.size for entry in stream.index_entries)


def _are_guesses(container: "InputContainer", stream: "VideoStream", shown: list[int]) -> bool:
    """Say whether frames are reordered while decoding although their times are in order."""
    return (
        container.format.name == "avi"
        and stream.codec_context.has_b_frames
        and shown == sorted(shown)
    )


def _scan_frames(container: "InputContainer", stream: "VideoStream") -> ClipScan | None:
    """Decode the clip; take its frames' times as they come, or the stream's rate."""
    carried: list[int | None] = []
    for frame in each(container.decode(stream)):
        carried.append(frame.pts)
    if not carried:
        return None
    known = sorted({pts for pts in carried if pts is not None})
    rate = stream.guessed_rate or stream.average_rate or Fraction(25)
    if len(known) == len(carried):
        pts, time_base = np.asarray(known, dtype=np.int64), _time_base(stream)
        end_pts = _end(pts, 0, stream)
    else:
        pts, time_base, end_pts = np.arange(len(carried)), 1 / Fraction(rate), len(carried)
    index = ClipIndex(pts=pts, time_base=time_base, end_pts=end_pts)
    return ClipScan(
        index=index, keyframe_pts=pts[:1], has_leading_frames=False, times_are_usable=False
    )


def _end(pts: Int64[np.ndarray, " frame"], last_duration: int, stream: "VideoStream") -> int:
    """Return when the last frame ends: by its duration, the usual step or the rate."""
    if last_duration <= 0 and len(pts) > 1:
        last_duration = int(np.median(np.diff(pts)))
    if last_duration <= 0 and stream.average_rate:
        last_duration = round(1 / (stream.average_rate * _time_base(stream)))
    return int(pts[-1]) + max(last_duration, 1)


def _time_base(stream: "VideoStream") -> Fraction:
    assert stream.time_base is not None, "every open stream has a time base"
    return stream.time_base
