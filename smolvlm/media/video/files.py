"""Opening what a `VideoRef` names: a stream, FFmpeg's container over it, or its pictures.

Comes in: a `VideoRef`. Goes out: something open that closes itself, or one `SampleError` that says
the clip, the cause and the fix. FFmpeg (through PyAV) always reads from an open file of ours, never
from a name: a path cannot be mistaken for a protocol, a part of a tar shard reads like a file of
its own, and formats that are lists of further files and addresses (playlists) are not among those
it may recognise.
"""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, cast

from smolvlm.disk.system_errors import raise_of_the_machine
from smolvlm.errors import ConfigError, SampleError
from smolvlm.media.decode_time import timed, watched
from smolvlm.media.decoders import DecoderError, decoder_errors
from smolvlm.media.downloads import CLIP_LIMITS, fetch_missing
from smolvlm.media.images import MAX_PIXELS
from smolvlm.media.kinds import (
    SIGNATURE_BYTES,
    begins_like_mp4,
    begins_like_picture,
    begins_like_still,
    foreign_kind,
)
from smolvlm.media.regular_files import open_regular
from smolvlm.media.video.mp4_tables import check_tables
from smolvlm.records import VideoRef

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

MAX_FRAME_PIXELS = MAX_PIXELS
"""Largest frame that is decoded."""
REPLACE = "replace the file"

_CONTAINERS = (
    "mov,matroska,avi,mpegts,mpeg,mpegvideo,flv,ogg,gif,apng,asf,ivf,h264,hevc,m4v,obu,mjpeg,mxf,"
    "nut,rm,dv,yuv4mpegpipe"
)
"""FFmpeg's names. Left out: playlists (they open other files and addresses), single pictures,
devices, text."""


class FileWindow(io.RawIOBase):
    """A part of a file that reads and seeks like a file of its own; closing it closes the file."""

    def __init__(self, file: BinaryIO, *, offset: int, size: int) -> None:
        super().__init__()
        self._file, self._offset, self._size, self._position = file, offset, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(origin + offset, 0)
        return self._position

    def readinto(self, buffer, /) -> int:
        view = memoryview(buffer)[: max(self._size - self._position, 0)]
        self._file.seek(self._offset + self._position)
        data = self._file.read(len(view))
        view[: len(data)] = data
        self._position += len(data)
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


def open_stream(ref: VideoRef) -> BinaryIO:
    """Open a clip's encoded bytes for reading and seeking; the caller closes it.

    Raises:
        SampleError: no such file, a directory, no permission, any other failure to read, or zero
            bytes; an address that cannot be fetched.
    """
    if ref.path is None:
        if not ref.data:
            raise _empty(ref)
        return io.BytesIO(ref.data)
    fetch_clip(ref)
    try:
        file = open_regular(ref.path)
        file_size = os.fstat(file.fileno()).st_size
    except FileNotFoundError as error:
        raise SampleError(
            f"clip {ref.name} does not exist",
            kind="missing_media",
            fix="correct the path in the row, or the source's media root (`path`) in the mixture",
        ) from error
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        raise unreadable(ref, error) from error
    offset, size = ref.span or (0, file_size)
    if size == 0 or offset >= file_size:
        file.close()
        raise _empty(ref)
    if ref.span is None:
        return file
    return cast(BinaryIO, FileWindow(file, offset=offset, size=min(size, file_size - offset)))


def fetch_clip(ref: VideoRef) -> None:
    """Make sure that a clip named by its address lies in its file.

    Raises:
        SampleError, ConfigError: as `fetch_missing`.
    """
    if ref.url is not None and ref.path is not None:
        fetch_missing(ref.url, ref.path, CLIP_LIMITS, allow_private=ref.allow_private_url)


@contextmanager
def open_clip(
    ref: VideoRef, *, is_examined: bool = True, **codec_options: str
) -> Iterator[tuple["InputContainer", "VideoStream"]]:
    """Open a clip's container and its first video stream, to be decoded in the calling thread.

    Args:
        ref: a file, a part of one, or bytes.
        is_examined: FFmpeg decodes a few frames to know more of the stream, as whether frames are
            reordered where the codec's header is silent. False saves that where the container's
            header says what its packets are (MP4, Matroska).
        codec_options: FFmpeg's names and values for the decoder.

    Raises:
        SampleError: as `open_stream`; not a video, no video stream, a codec nobody knows, or frames
            that are too large.
        ConfigError: PyAV is not installed.
    """
    check_pyav()
    from av.container import InputContainer
    from av.container import open as open_container

    with open_stream(ref) as whole, watched():
        file = timed(whole)
        begin = _begin_of(file, ref)
        if begins_like_still(begin):  # FFmpeg would show it as a clip of one frame
            raise _unknown(ref, begin)
        options = {"format_whitelist": _CONTAINERS}
        if not is_examined and _says_enough(begin):
            # As few bytes as FFmpeg allows, and of what they hold no frame.
            options |= {"probesize": "32", "skip_frame": "all"}
        try:
            with decoder_errors():
                container = open_container(file, metadata_errors="ignore", options=options)
        except DecoderError as error:
            raise _not_opened(ref, begin, error) from error
        assert isinstance(container, InputContainer)
        with container:
            try:
                with decoder_errors():
                    stream = _first_video(container)
                    facts = _facts_of(stream)
            except DecoderError as error:
                raise damaged(ref, f"opening stops with: {error}") from error
            stream = _checked(ref, stream, facts)
            # One thread: others hang in a process forked after its parent has decoded.
            stream.codec_context.thread_type = "NONE"
            stream.codec_context.options = {"max_pixels": str(MAX_FRAME_PIXELS), **codec_options}
            yield container, stream


def _begin_of(file: BinaryIO, ref: VideoRef) -> bytes:
    try:
        begin = file.read(SIGNATURE_BYTES)
        file.seek(0)
        check_tables(file, name=ref.name)
    except OSError as error:
        raise unreadable(ref, error) from error
    return begin


def _not_opened(ref: VideoRef, begin: bytes, error: DecoderError) -> SampleError:
    """Return why FFmpeg did not open a file: its content, or that it could not be read."""
    from av.error import FFmpegError

    raised = error.__cause__
    if isinstance(raised, OSError) and not isinstance(raised, FFmpegError):
        return unreadable(ref, raised)
    return _unknown(ref, begin)


def _unknown(ref: VideoRef, begin: bytes) -> SampleError:
    """Return what is wrong with a file that is no clip, by its first bytes."""
    is_picture = begins_like_picture(begin)
    kind = foreign_kind(begin)
    if kind is not None and not is_picture:
        what = f"clip {ref.name} is {kind.name}"
        return SampleError(what, kind="corrupt_media", fix=kind.fix)
    if begins_like_mp4(begin) and not is_picture:
        what = (
            f"clip {ref.name} is an MP4 whose index is missing: it was cut off, or is still being "
            f"written"
        )
        return SampleError(what, kind="corrupt_media", fix=REPLACE)
    return SampleError(
        f"clip {ref.name} is not a video of a known format, or its header is damaged or cut off "
        "(it begins "
        f"with {begin[:12]!r})",
        kind="corrupt_media",
        fix="it is a picture: name it as `image`, or give a clip's frames as a list or a folder"
        if is_picture
        else REPLACE,
    )


def check_pyav() -> None:
    """Import PyAV.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import av  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "clips are read with PyAV, which is missing", fix='pip install "av>=18"'
        ) from error


def unreadable(ref: VideoRef, error: OSError | ValueError) -> SampleError:
    """Return the error for a clip that exists and yet cannot be read.

    Raises:
        OSError: it is nothing of the file: too many open files, no memory.
    """
    raise_of_the_machine(error)
    return SampleError(
        f"clip {ref.name} cannot be read ({cause(error)})",
        kind="corrupt_media",
        fix="check the path and its permissions",
    )


def damaged(ref: VideoRef, detail: str) -> SampleError:
    """Return the error for a clip whose content is not what its container says."""
    return SampleError(
        f"clip {ref.name} is damaged or cut short ({detail})", kind="corrupt_media", fix=REPLACE
    )


def cause(error: Exception) -> str:
    """Return what the system says of an error, without its number and file name."""
    return getattr(error, "strerror", None) or str(error)


def _says_enough(begin: bytes) -> bool:
    return begins_like_mp4(begin) or begin.startswith(b"\x1a\x45\xdf\xa3")


@dataclass(frozen=True, kw_only=True, slots=True)
class _StreamFacts:
    """What the header says of a video stream."""

    codec: str
    width: int
    height: int


def _first_video(container: "InputContainer") -> "VideoStream | None":
    """Return the first video stream that is no picture beside the sound (attached_pic)."""
    return next(
        (stream for stream in container.streams.video if not stream.disposition & 0x400), None
    )


def _facts_of(stream: "VideoStream | None") -> _StreamFacts:
    codec = stream.codec_context if stream is not None else None
    if codec is None:
        return _StreamFacts(codec="unknown", width=0, height=0)
    return _StreamFacts(codec=codec.name, width=codec.width, height=codec.height)


def _checked(ref: VideoRef, stream: "VideoStream | None", facts: _StreamFacts) -> "VideoStream":
    if stream is None:
        raise SampleError(f"clip {ref.name} has no video stream", kind="corrupt_media", fix=REPLACE)
    if not (facts.width and facts.height):
        raise SampleError(
            f"clip {ref.name} has a video stream that cannot be decoded (codec {facts.codec})",
            kind="corrupt_media",
            fix="convert it, to H.264 in MP4 for one",
        )
    if facts.width * facts.height > MAX_FRAME_PIXELS:
        raise SampleError(
            f"clip {ref.name} has frames larger than the limit of {MAX_FRAME_PIXELS} pixels (its "
            "header says "
            f"{facts.width} x {facts.height})",
            kind="too_large_media",
            fix="shrink it; a small file that claims such a size is a decompression bomb",
        )
    return stream


def _empty(ref: VideoRef) -> SampleError:
    return SampleError(f"clip {ref.name} is empty (zero bytes)", kind="empty_media", fix=REPLACE)
