"""Clips as fuzzed inputs: a dozen frames in every container, damaged as bytes.

In: a seeded generator and an empty folder. Out: a row with a clip. Of a clip that is accepted every
frame has to come by a plain decoder too, and every frame that training would show has to come; of a
whole clip they are that decoder's to the bit. Pixels of damaged clips are not compared: most
formats have nothing to check them by, and what FFmpeg fills a gap with is not the same twice.
"""

import io
from collections.abc import Iterator, Mapping
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from fuzz.checked import CheckedInput, Checker
from fuzz.damage import damaged
from smolvlm.errors import SampleError
from smolvlm.media.video.frames import FrameSettings, choose_frames
from smolvlm.media.video.index import read_index
from smolvlm.media.video.reader import read_frames
from smolvlm.records import VideoRef

WHOLE = 0.05
NUM_FRAMES = 12
SIZE = (64, 48)
MAX_SIDE_PX = 1 << 16
"""Above the sides of any frame, which are then shown as they are."""
CODECS: Mapping[str, tuple[str, str, Mapping[str, str]]] = {
    "mp4": ("libx264", "yuv420p", {"threads": "1"}),
    "mkv": ("libx264", "yuv420p", {"threads": "1", "bf": "2"}),
    "mov": ("mpeg4", "yuv420p", {}),
    "webm": ("libvpx", "yuv420p", {"threads": "1"}),
    "avi": ("mjpeg", "yuvj420p", {}),
    "gif": ("gif", "rgb8", {}),
    "ts": ("mpeg2video", "yuv420p", {}),
    "mpg": ("mpeg1video", "yuv420p", {}),
}
"""Container -> how its frames are written."""
SHOWN = FrameSettings(fps=2.0, max_frames=4, sampling="uniform")


@lru_cache(maxsize=1)
def whole_clips() -> Mapping[str, bytes]:
    """Return the bytes of a whole clip in each container."""
    return {ending: _clip(ending) for ending in CODECS}


def _clip(ending: str) -> bytes:
    import av

    codec, pix_fmt, options = CODECS[ending]
    file = io.BytesIO()
    container_format = {"mkv": "matroska", "ts": "mpegts", "mpg": "mpeg"}.get(ending, ending)
    with av.open(file, "w", format=container_format) as container:
        stream: Any = container.add_stream(codec, rate=25, options=dict(options))
        stream.width, stream.height = SIZE
        stream.pix_fmt = pix_fmt
        stream.time_base = Fraction(1, 25)
        for number in range(NUM_FRAMES):
            frame = av.VideoFrame.from_ndarray(_pixels(number), format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame.reformat(format=pix_fmt)))
        container.mux(stream.encode())
    return file.getvalue()


def _pixels(number: int) -> np.ndarray:
    """Return the pixels of a frame, which differ from every other's."""
    rows, columns = np.mgrid[: SIZE[1], : SIZE[0]]
    pixels = np.stack([rows * 4, columns * 3, np.full_like(rows, 20 * number)], axis=-1)
    return pixels.astype(np.uint8)


def fuzz_clips(random: Random, folder: Path, checker: Checker) -> tuple[list[str], int]:
    """Make a row with a clip, check it, and return its faults and whether it was accepted."""
    clips = whole_clips()
    ending = random.choice(list(clips))
    data = clips[ending]
    is_whole = random.random() < WHOLE
    if not is_whole:
        data = damaged(data, random, others=list(clips.values()))
    path = folder / f"a.{ending}"
    path.write_bytes(data)
    row = f'{{"question": "<video>What is it?", "answer": "This.", "video": "{path.name}"}}\n'
    (folder / "rows.jsonl").write_text(row)
    checked = checker({"json_path": "rows.jsonl"}, folder)
    faults = list(_judge(checked, path, is_whole=is_whole))
    return faults, sum(row.is_accepted for row in checked.rows)


def _judge(checked: CheckedInput, path: Path, *, is_whole: bool) -> Iterator[str]:
    if len(checked.rows) != 1:
        yield f"{len(checked.rows)} rows are read of one: {checked.refusal}"
        return
    (row,) = checked.rows
    if is_whole and not row.is_accepted:
        yield f"a whole clip is refused: {[finding.message for finding in row.findings]}"
    if row.is_accepted:
        yield from _judge_frames(path, is_whole=is_whole)


def _judge_frames(path: Path, *, is_whole: bool) -> Iterator[str]:
    """Yield what is wrong with a clip's having been accepted."""
    ref = VideoRef(path=path)
    try:
        index = read_index(ref)
        frames = choose_frames(index, SHOWN)
        shown = list(read_frames(ref, frames, max_side_px=MAX_SIDE_PX, backend="pyav"))
    except SampleError as error:
        yield f"a clip is accepted whose frames cannot be read: {error}"
        return
    reference = _by_pyav(path)
    if isinstance(reference, str):
        yield f"a clip is accepted that a plain decoder refuses: {reference}"
        return
    if len(shown) != frames.num_tiles:
        yield f"{len(shown)} frames are shown where {frames.num_tiles} were chosen"
    if not is_whole:  # what FFmpeg fills gaps with differs from one decoding to the next
        return
    for number, pixels in zip(frames.numbers, shown, strict=True):
        if not np.array_equal(pixels, reference[number]):
            yield f"frame {number} is not the one that a plain decoder gives"


def _by_pyav(path: Path) -> list[np.ndarray] | str:
    import av
    from av.error import FFmpegError

    try:
        with av.open(str(path), metadata_errors="ignore") as container:
            stream = container.streams.video[0]
            # FFmpeg conceals damage to VP8 otherwise in one thread than in several.
            stream.thread_type = "NONE"
            return [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    except (FFmpegError, ValueError, IndexError) as error:
        return str(error)
