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
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from smolvlm.errors import ConfigError, SampleError
from smolvlm.media.downloads import CLIP_LIMITS, fetch_missing
from smolvlm.media.images import MAX_PIXELS
from smolvlm.media.kinds import begins_like_mp4, begins_like_picture, ending_of, is_picture_ending
from smolvlm.records import ImageRef, VideoRef

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

MAX_FRAME_PIXELS = MAX_PIXELS
"""Largest frame that is decoded."""
REPLACE = "replace the file, or set `on_bad_sample: skip` on this source"

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
        file = open(ref.path, "rb")  # noqa: SIM115 - the caller closes it
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
        fetch_missing(ref.url, ref.path, CLIP_LIMITS)


@contextmanager
def open_clip(
    ref: VideoRef, *, packets_only: bool = False, **codec_options: str
) -> Iterator[tuple["InputContainer", "VideoStream"]]:
    """Open a clip's container and its first video stream, to be decoded in the calling thread.

    Args:
        ref: a file, a part of one, or bytes.
        packets_only: nothing will be decoded; saves the few frames that FFmpeg else decodes to know
            more of the stream, where the header says enough (MP4, Matroska).
        codec_options: FFmpeg's names and values for the decoder.

    Raises:
        SampleError: as `open_stream`; not a video, no video stream, a codec nobody knows, or frames
            that are too large.
        ConfigError: PyAV is not installed.
    """
    ffmpeg_error = load_ffmpeg_error()
    from av.container import InputContainer
    from av.container import open as open_container

    with open_stream(ref) as file:
        options = {"format_whitelist": _CONTAINERS}
        if packets_only and _says_enough(file):
            options["probesize"] = "32"
        try:
            container = open_container(file, metadata_errors="ignore", options=options)
        except ffmpeg_error as error:
            file.seek(0)
            raise _unknown(ref, file.read(12)) from error
        except OSError as error:
            raise unreadable(ref, error) from error
        assert isinstance(container, InputContainer)
        with container:
            stream = _video_stream(container, ref)
            # One thread: others hang in a process forked after its parent has decoded.
            stream.codec_context.thread_type = "NONE"
            stream.codec_context.options = {"max_pixels": str(MAX_FRAME_PIXELS), **codec_options}
            yield container, stream


def _unknown(ref: VideoRef, begin: bytes) -> SampleError:
    """Return what is wrong with a file that FFmpeg cannot open, by its first bytes."""
    if begins_like_mp4(begin):
        what = (
            f"clip {ref.name} is an MP4 whose index is missing: it was cut off, or is still being "
            f"written"
        )
        return SampleError(what, kind="corrupt_media", fix=REPLACE)
    return SampleError(
        f"clip {ref.name} is not a video of a known format, or its header is damaged or cut off "
        "(it begins "
        f"with {begin!r})",
        kind="corrupt_media",
        fix="it is a picture: name it as `image`, or give a clip's frames as a list or a folder"
        if begins_like_picture(begin)
        else REPLACE,
    )


@cache
def load_ffmpeg_error() -> type[Exception]:
    """Return the class of FFmpeg's errors; PyAV, which it belongs to, is imported now.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        from av.error import FFmpegError
    except ImportError as error:
        raise ConfigError(
            "clips are read with PyAV, which is missing", fix='pip install "av>=18"'
        ) from error
    return FFmpegError


def list_pictures(ref: VideoRef) -> tuple[ImageRef, ...] | None:
    """Return a clip's pictures in order, or None where it is a video file.

    A folder is sorted by (base name, trailing number): `frame_2` before `frame_10`, all of `a_...`
    before `b_...`.

    Raises:
        SampleError: a folder without pictures, or one that cannot be read.
    """
    if ref.frames:
        return ref.frames
    if ref.path is None or ref.span is not None or ref.url is not None:
        return None
    try:
        if not ref.path.is_dir():
            return None
        names = [entry.name for entry in os.scandir(ref.path) if entry.is_file()]
    except (OSError, ValueError) as error:
        raise unreadable(ref, error) from error
    pictures = sorted(
        (name for name in names if is_picture_ending(ending_of(name)) and not name.startswith(".")),
        key=_by_trailing_number,
    )
    if not pictures:
        raise SampleError(
            f"clip {ref.name} is a folder without pictures",
            kind="corrupt_media",
            fix="name the video file, or a folder of numbered pictures such as frame_0001.jpg",
        )
    return tuple(ImageRef(path=ref.path / name) for name in pictures)


def unreadable(ref: VideoRef, error: OSError | ValueError) -> SampleError:
    """Return the error for a clip that exists and yet cannot be read."""
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
    """Return what the system or FFmpeg says of an error, without its number and file name."""
    return getattr(error, "strerror", None) or str(error)


def _says_enough(file: BinaryIO) -> bool:
    magic = file.read(8)
    file.seek(0)
    return magic[4:] == b"ftyp" or magic.startswith(b"\x1a\x45\xdf\xa3")


def _video_stream(container: "InputContainer", ref: VideoRef) -> "VideoStream":
    pictures_aside = [
        stream for stream in container.streams.video if not stream.disposition & 0x400
    ]  # attached_pic
    if not pictures_aside:
        raise SampleError(f"clip {ref.name} has no video stream", kind="corrupt_media", fix=REPLACE)
    stream = pictures_aside[0]
    codec = stream.codec_context
    if codec is None or not (codec.width and codec.height):
        raise SampleError(
            f"clip {ref.name} has a video stream that cannot be decoded (codec "
            f"{codec.name if codec else 'unknown'})",
            kind="corrupt_media",
            fix="convert it, to H.264 in MP4 for one",
        )
    if codec.width * codec.height > MAX_FRAME_PIXELS:
        raise SampleError(
            f"clip {ref.name} has frames larger than the limit of {MAX_FRAME_PIXELS} pixels (its "
            "header says "
            f"{codec.width} x {codec.height})",
            kind="too_large_media",
            fix="shrink it; a small file that claims such a size is a decompression bomb",
        )
    return stream


def _by_trailing_number(name: str) -> tuple[str, int, str]:
    stem = Path(name).stem
    base = stem.rstrip("0123456789")
    digits = stem[len(base) :]
    return base, int(digits or -1), name


def _empty(ref: VideoRef) -> SampleError:
    return SampleError(f"clip {ref.name} is empty (zero bytes)", kind="empty_media", fix=REPLACE)
