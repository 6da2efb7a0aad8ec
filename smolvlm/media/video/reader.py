"""The one place that turns clips into pixels: frames as upright RGB, or as tiles.

Comes in: a `VideoRef`, the `Frames` chosen from its index, and which package decodes. Goes out: one
frame after the other; a clip is never in memory whole. The three back ends give the same frames,
and the same pixels where nothing is scaled. PyAV, the default, scales large frames down while it
converts them: less work than converting first, and other pixels by 1.1 to 1.4 levels of 255 in the
mean (1280 x 720 to 512 x 288; up to 66 at coloured edges, where converting first repeats each
colour sample and this interpolates it).

A frame is one tile, stretched to a square as the released video processor does it, never cut.
Pixels are taken as they are stored, whatever their aspect ratio is said to be: so do the packages
that the released processor reads with.
"""

import hashlib
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from smolvlm.errors import SampleError
from smolvlm.media.images import MAX_PIXELS, open_rgb, read_bytes
from smolvlm.media.settings import VideoBackend
from smolvlm.media.tile_grid import TileSettings, size_within
from smolvlm.media.tiles import make_tiles, scale_image
from smolvlm.media.video.by_number import read_with_decord, read_with_torchcodec
from smolvlm.media.video.files import open_stream, unreadable
from smolvlm.media.video.frame_folders import list_pictures
from smolvlm.media.video.frames import ClipIndex
from smolvlm.media.video.index import FileVersion, file_version, read_index, scan_clip
from smolvlm.media.video.pyav import read_with_pyav
from smolvlm.records import Frames, ImageRef, VideoRef

_CHUNK_BYTES = 1 << 20
_REMEMBERED_KEYS = 4096


def read_frames(
    ref: VideoRef,
    frames: Frames,
    *,
    max_side_px: int,
    backend: VideoBackend,
    max_image_pixels: int = MAX_PIXELS,
) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
    """Yield the chosen frames in order, upright, in RGB.

    Args:
        ref: the clip.
        frames: as `choose_frames` gave them for this clip.
        max_side_px: frames with a longer side are scaled down to it (`geometry.size_within`);
            smaller ones keep their size.
        backend: which package decodes a video file; pictures of a folder or a list are opened like
            any other.
        max_image_pixels: the most that one of those pictures may have.

    Raises:
        SampleError: the clip cannot be opened or has changed, or a frame cannot be decoded.
        ConfigError: the package is not installed.
    """
    pictures = list_pictures(ref)
    if pictures is not None:
        _check_unchanged(ref, read_index(ref), frames)
        for number in frames.numbers:
            picture = open_rgb(pictures[number], max_pixels=max_image_pixels)
            yield np.asarray(_scaled(picture, max_side_px))
        return
    scan = scan_clip(ref)
    _check_unchanged(ref, scan.index, frames)
    if backend == "pyav":
        yield from read_with_pyav(ref, scan, frames.numbers, max_side_px=max_side_px)
        return
    read = read_with_torchcodec if backend == "torchcodec" else read_with_decord
    for pixels in read(ref, scan, frames.numbers):
        yield np.asarray(_scaled(Image.fromarray(pixels), max_side_px))


def frame_tiles(
    ref: VideoRef,
    frames: Frames,
    settings: TileSettings,
    *,
    backend: VideoBackend,
    max_image_pixels: int = MAX_PIXELS,
) -> UInt8[np.ndarray, "tile 3 side side"]:
    """Return one tile for each chosen frame.

    For frames that are no larger than the longest edge, equal to the last bit to the released
    `SmolVLMVideoProcessor`.

    Args:
        ref: the clip.
        frames: as `choose_frames` gave them for this clip.
        settings: the video processor's sizes; without splitting.
        backend: as for `read_frames`.
        max_image_pixels: as for `read_frames`.

    Raises:
        SampleError, ConfigError: as `read_frames`.
        ValueError: settings with splitting.
    """
    if settings.image_splitting:
        raise ValueError("a frame is never cut: image_splitting must be False")
    side = settings.tile_side_px
    tiles = np.empty((frames.num_tiles, 3, side, side), dtype=np.uint8)
    shown = read_frames(
        ref,
        frames,
        max_side_px=settings.longest_edge_px,
        backend=backend,
        max_image_pixels=max_image_pixels,
    )
    for tile, pixels in zip(tiles, shown, strict=True):
        tile[...] = make_tiles(Image.fromarray(pixels), settings)[0]
    return tiles


def clip_key(ref: VideoRef) -> bytes:
    """Return 16 bytes that name the encoded clip: equal for equal files, whatever they are called
    (BLAKE2b).

    For pictures of a folder or a list: equal for equal pictures in the same order. A file is read
    through once and remembered while its path, size and time of change stay.

    Raises:
        SampleError: something cannot be read.
    """
    pictures = list_pictures(ref)
    if pictures is None:
        return _key_of(ref)
    digest = hashlib.blake2b(b"frames", digest_size=16)
    for picture in pictures:
        digest.update(_picture_key(picture))
    return digest.digest()


def _check_unchanged(ref: VideoRef, index: ClipIndex, frames: Frames) -> None:
    numbers = np.asarray(frames.numbers)
    if (
        not len(numbers)
        or numbers[-1] >= len(index.pts)
        or not np.allclose(index.times_s[numbers], frames.times_s, rtol=0, atol=1e-6)
    ):
        raise SampleError(
            f"clip {ref.name} does not have the frames chosen from it: it changed since then",
            kind="changed_row",
            fix="start again with the clips as they are now",
        )


def _scaled(image: Image.Image, max_side_px: int) -> Image.Image:
    size = size_within(*image.size, max_side_px)
    return image if size == image.size else scale_image(image, size)


def _key_of(ref: VideoRef) -> bytes:
    version = file_version(ref)
    return _digest(ref) if version is None else _remembered_key(version)


@lru_cache(maxsize=_REMEMBERED_KEYS)
def _remembered_key(version: FileVersion) -> bytes:
    return _digest(version.ref)


def _picture_key(picture: ImageRef) -> bytes:
    """Return one frame's key; `read_bytes` says why where it cannot be read."""
    if picture.path is None or not picture.path.is_file():
        return hashlib.blake2b(read_bytes(picture), digest_size=16).digest()
    return _key_of(VideoRef(path=picture.path, span=picture.span))


def _digest(ref: VideoRef) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    with open_stream(ref) as file:
        try:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
        except OSError as error:
            raise unreadable(ref, error) from error
    return digest.digest()
