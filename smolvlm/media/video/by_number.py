"""Frames of a video file by torchcodec or decord, which are asked for frames by number.

Comes in: the clip's index and which frames. Goes out: upright RGB arrays, one at a time. Both
packages count and time the frames by themselves, so the time that they claim for each frame is
compared with the index, and a frame more than half a frame off is refused: a wrong frame is worse
than none. Both hand over full-size RGB, which is scaled down afterwards; the default reader saves
that.

torchcodec runs in its exact mode (the approximate one returns wrong frames on clips of variable
rate) and needs FFmpeg's shared libraries on the system. decord 3.4 garbles clips filmed on their
side, and has other frames than asked for where a stream does not begin at 0: these are refused.
After a seek it miscounts where frames are shown before the keyframe that they are stored behind:
such clips (H.265 as a rule) it reads from the begin.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import UInt8

from smolvlm.errors import ConfigError, SampleError
from smolvlm.media.decode_time import check_time, watched
from smolvlm.media.decoders import DecoderError, decoder_errors
from smolvlm.media.video.files import open_stream
from smolvlm.media.video.frames import ClipIndex
from smolvlm.media.video.index import ClipScan
from smolvlm.records import VideoRef

RGB = UInt8[np.ndarray, "height width 3"]


def read_with_torchcodec(ref: VideoRef, scan: ClipScan, numbers: Sequence[int]) -> Iterator[RGB]:
    """Yield the frames of these ascending numbers, in full size.

    Raises:
        SampleError: the clip cannot be opened, a frame cannot be decoded, or torchcodec has another
            one there.
        ConfigError: torchcodec is not installed, or finds no FFmpeg.
    """
    try:
        from torchcodec.decoders import VideoDecoder  # pyright: ignore[reportPrivateImportUsage] - its public place
    except ImportError as error:
        raise ConfigError(
            "torchcodec is not installed", fix='pip install "smolvlm[torchcodec]"'
        ) from error
    except (RuntimeError, OSError) as error:  # versions that load their libraries on import
        raise _no_ffmpeg(error) from error
    with open_stream(ref) as file, watched():
        try:
            with decoder_errors():
                decoder = VideoDecoder(
                    file,  # pyright: ignore[reportArgumentType] - it takes whatever reads and seeks
                    dimension_order="NHWC",
                    num_ffmpeg_threads=1,
                    seek_mode="exact",
                )
            for number in numbers:
                check_time()
                with decoder_errors():
                    frame = decoder.get_frame_at(number)
                    pixels = frame.data.numpy()
                _check_time(
                    ref, scan.index, number, claimed_s=frame.pts_seconds, backend="torchcodec"
                )
                yield pixels
        except DecoderError as error:
            # versions that load FFmpeg with the first decoder (0.17)
            if "libtorchcodec" in str(error.__cause__):
                raise _no_ffmpeg(error) from error
            raise _cannot("torchcodec", ref, error) from error


def read_with_decord(ref: VideoRef, scan: ClipScan, numbers: Sequence[int]) -> Iterator[RGB]:
    """Yield the frames of these ascending numbers, in full size.

    Raises:
        SampleError: the clip cannot be opened, a frame cannot be decoded, decord has another one
            there, or the clip was filmed on its side.
        ConfigError: decord is not installed.
    """
    try:
        import decord
    except ImportError as error:
        raise ConfigError("decord is not installed", fix='pip install "smolvlm[decord]"') from error
    with open_stream(ref) as file, watched():
        try:
            with decoder_errors():
                reader = decord.VideoReader(file, num_threads=1)
            position = 0
            for number in numbers:
                check_time()
                with decoder_errors():
                    claimed_s = float(reader.get_frame_timestamp(number)[0])
                _check_time(ref, scan.index, number, claimed_s=claimed_s, backend="decord")
                with decoder_errors():
                    if scan.has_leading_frames:
                        for _ in range(number - position):
                            reader.next()
                        pixels, position = reader.next().asnumpy(), number + 1
                    else:
                        pixels = reader[number].asnumpy()
                if pixels.shape[2] != 3:
                    raise SampleError(
                        f"clip {ref.name} was filmed on its side, which decord cannot turn",
                        kind="corrupt_media",
                        fix="choose the video backend pyav or torchcodec",
                    )
                yield pixels
        except DecoderError as error:
            raise _cannot("decord", ref, error) from error


def _no_ffmpeg(error: Exception) -> ConfigError:
    return ConfigError(
        f"torchcodec cannot load FFmpeg ({_first_line(error)})",
        fix="install FFmpeg's shared libraries, or choose the video backend pyav",
    )


def _cannot(backend: str, ref: VideoRef, error: Exception) -> SampleError:
    return SampleError(
        f"{backend} cannot decode clip {ref.name} ({_first_line(error)})",
        kind="corrupt_media",
        fix="choose the video backend pyav; if that fails too, replace the file",
    )


def _check_time(
    ref: VideoRef, index: ClipIndex, number: int, *, claimed_s: float, backend: str
) -> None:
    """Refuse a frame that the package times more than half a frame off."""
    begin = int(index.pts[number])
    before = begin - int(index.pts[number - 1]) if number else None
    after = (int(index.pts[number + 1]) if number + 1 < len(index.pts) else index.end_pts) - begin
    half_frame_s = float(min(before or after, after) * index.time_base) / 2
    stamped_s = float(begin * index.time_base)  # by the file's own clock, as the packages time it
    if abs(claimed_s - stamped_s) > half_frame_s:
        raise SampleError(
            f"{backend} says that frame {number} of clip {ref.name} is shown at {claimed_s:.3f} s; "
            f"its time stamps say {stamped_s:.3f} s",
            kind="corrupt_media",
            fix="choose the video backend pyav",
        )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
