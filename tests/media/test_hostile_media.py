"""Hostile pictures and clips: bytes flipped, cut, doubled and mixed give a result or a
`SampleError`, and soon."""

import contextlib
import io
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from smolvlm.errors import SampleError
from smolvlm.media.images import header_size, open_rgb
from smolvlm.media.kinds import FORMATS
from smolvlm.media.video.check import check_clip
from smolvlm.media.video.frames import FrameSettings, choose_frames
from smolvlm.media.video.index import read_index
from smolvlm.media.video.reader import read_frames
from smolvlm.records import ImageRef, VideoRef
from tests.media.conftest import RECIPES, MakeClip, picture

NUM_FRAMES = 12
SECONDS = 2.0
"""Far above what any of these files takes, whole or damaged; a loop without end is above it."""
FUZZ: dict[str, Any] = {
    "deadline": None,
    "derandomize": True,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large],
}
MODES = {
    "GIF": ("P", "L"),
    "PNG": ("RGB", "RGBA", "P", "I;16", "1"),
    "TIFF": ("RGB", "RGBA", "L"),
    "PPM": ("RGB", "L"),
}
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "JPEG": [{"quality": 80}, {"progressive": True}],
    "MPO": [{"save_all": True}],
    "WEBP": [{"quality": 80}, {"lossless": True}],
    "TIFF": [
        {},
        {"compression": "tiff_lzw"},
        {"compression": "jpeg"},
        {"compression": "tiff_deflate"},
    ],
    "GIF": [{"save_all": True}],
    "PNG": [{}, {"save_all": True}],
}


def whole_pictures() -> Iterator[tuple[str, bytes]]:
    """Yield (format, bytes) of small pictures of every format that is read, in several modes."""
    image = Image.fromarray(picture(3, width=33, height=21))
    exif = Image.Exif()
    exif[274] = 6
    for name in sorted(FORMATS):
        for mode in MODES.get(name, ("RGB",)):
            for options in OPTIONS.get(name, [{}]):
                if mode in ("P", "1", "I;16", "RGBA") and "jpeg" in options.values():
                    continue
                pages = {"append_images": [image.convert(mode)]} if "save_all" in options else {}
                told = {"exif": exif} if name in ("JPEG", "WEBP", "AVIF", "PNG", "TIFF") else {}
                file = io.BytesIO()
                image.convert("L" if mode == "I;16" else mode).convert(mode).save(
                    file, format=name, **options, **pages, **told
                )
                yield name, file.getvalue()


PICTURES = list(whole_pictures())


@st.composite
def damage(draw: st.DrawFn, *, others: int) -> Callable[[bytes, list[bytes]], bytes]:
    """Draw a change of bytes: places are shares of the length, so that it fits files of any
    size."""
    place = st.floats(0, 1, exclude_max=True, width=32) | st.floats(0, 0.125, width=32)
    kinds = st.sampled_from(("flip", "set", "cut", "drop", "double", "splice", "zero"))
    steps = draw(
        st.lists(
            st.tuples(kinds, place, place, st.integers(0, 255), st.integers(0, others - 1)),
            min_size=1,
            max_size=6,
        )
    )

    def apply(data: bytes, all_files: list[bytes]) -> bytes:
        for kind, first, second, value, other in steps:
            at = int(first * len(data))
            end = min(len(data), at + 1 + int(second * 64))
            if kind in ("flip", "set") and data:
                changed = data[at] ^ (1 << value % 8) if kind == "flip" else value
                data = data[:at] + bytes([changed]) + data[at + 1 :]
            elif kind == "cut":
                data = data[: at + 1]
            elif kind == "drop":
                data = data[:at] + data[end:]
            elif kind == "double":
                data = data[:end] + data[at:]
            elif kind == "zero":
                data = data[:at] + bytes(end - at) + data[end:]
            else:
                taken = all_files[other]
                data = data[:at] + taken[int(second * len(taken)) :]
        return data

    return apply


def soon(use: Callable[[], object]) -> object:
    """Return what comes of it, None for a `SampleError`; anything else, or too late, fails."""
    start = time.process_time()
    found = None
    with contextlib.suppress(SampleError):
        found = use()
    assert time.process_time() - start < SECONDS
    return found


def test_pictures_of_every_format_are_read_whole() -> None:
    assert {name for name, _ in PICTURES} == set(FORMATS)
    for name, data in PICTURES:
        size = header_size(ImageRef(data=data))
        assert size == open_rgb(data).size, name
        assert size in {(33, 21), (21, 33)}


@pytest.mark.filterwarnings("ignore::UserWarning")  # what Pillow says of a damaged TIFF's tags
@settings(max_examples=1000, **FUZZ)
@given(number=st.integers(0, len(PICTURES) - 1), change=damage(others=len(PICTURES)))
def test_damaged_pictures(number: int, change: Callable[[bytes, list[bytes]], bytes]) -> None:
    data = change(PICTURES[number][1], [own for _, own in PICTURES])
    size = soon(lambda: header_size(ImageRef(data=data), max_pixels=1 << 22))
    opened = soon(lambda: open_rgb(data, max_pixels=1 << 22))
    if isinstance(opened, Image.Image):
        assert (opened.mode, opened.size) == ("RGB", size)


@pytest.fixture(scope="module")
def small_clips(
    make_clip: MakeClip, clips: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> list[bytes]:
    """The bytes of a dozen frames in every container and codec, and of the tests' other clips."""
    folder = tmp_path_factory.mktemp("small")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("SVT_LOG", "1")
        made = [
            make_clip(
                folder / f"{name}.{recipe.suffix}", replace(recipe, times=recipe.times[:NUM_FRAMES])
            )
            for name, recipe in RECIPES.items()
        ]
    return [path.read_bytes() for path in (*made, clips["uneven"], clips["cut"])]


@settings(max_examples=300, **FUZZ)
@given(number=st.integers(0, len(RECIPES) + 1), change=damage(others=len(RECIPES) + 2))
def test_damaged_clips(
    number: int, change: Callable[[bytes, list[bytes]], bytes], small_clips: list[bytes]
) -> None:
    use_clip(VideoRef(data=change(small_clips[number], small_clips)))


def use_clip(ref: VideoRef) -> None:
    """Do all that is done to a clip."""
    wanted = FrameSettings(fps=2.0, max_frames=4, sampling="uniform")

    def shown() -> list[np.ndarray]:
        frames = choose_frames(read_index(ref), wanted)
        read = list(read_frames(ref, frames, max_side_px=32, backend="pyav"))
        assert len(read) == frames.num_tiles
        return read

    found = soon(shown)
    if isinstance(found, list):
        assert all(pixels.ndim == 3 and max(pixels.shape[:2]) <= 32 for pixels in found)
    soon(lambda: check_clip(ref))


@settings(max_examples=100, **FUZZ)
@given(
    data=st.binary(max_size=200),
    number=st.integers(0, len(RECIPES) + 1),
    num_bytes=st.integers(0, 64),
)
def test_noise_behind_a_clips_first_bytes(
    data: bytes, number: int, num_bytes: int, small_clips: list[bytes]
) -> None:
    use_clip(VideoRef(data=small_clips[number][:num_bytes] + data))
