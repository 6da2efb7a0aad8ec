"""The one place that opens pictures: bytes, the size from a header, or upright 8-bit RGB pixels.

Comes in: an `ImageRef`. Goes out: encoded bytes, (width, height), or a decoded picture. Everything
that can be wrong with a file ends in one `SampleError` that says the picture, the cause and the
fix. `header_size` reads the header and decodes nothing, so that lengths can be planned for a whole
data set; it always agrees with the picture that `open_rgb` gives later.

What becomes of a picture, the same for both:

- The orientation of its metadata is applied, as `transformers.image_utils.load_image` does for a
  path or URL (the processor itself does not turn a picture that is handed over already opened).
  Metadata that cannot be read, or that a PNG file carries behind its pixels, is passed over.
- Transparency is laid over white, as the released processor does.
- 16-bit gray keeps its upper eight bits. (Pillow alone would clip at 255 and make nearly all of it
  white.)
- Of an animation or a file of several pages, the first.

A JPEG carries no checksum: bytes changed in the middle of its pixel data decode to wrong pixels in
any reader, and are not noticed. A JPEG that ends early is; in a PNG the checksums are compared.
"""

import hashlib
import os
import struct
from io import BytesIO
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError
from PIL.ExifTags import Base as ExifTag

from smolvlm.errors import SampleError
from smolvlm.media.downloads import PICTURE_LIMITS, fetch_missing
from smolvlm.media.kinds import FORMATS, begins_like_clip
from smolvlm.records import ImageRef

MAX_PIXELS = 89_478_485
"""Largest picture that is opened (a third of a gigabyte in memory); above it Pillow warns too."""

_PILLOW_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    OverflowError,
    struct.error,
    RuntimeError,  # AVIF
)
"""What Pillow's readers raise on damaged data, by reading them and by flipping bytes of every
format above."""

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> the turn that makes the picture upright; 5 to 8 swap width and height."""


def read_bytes(ref: ImageRef) -> bytes:
    """Return a picture's encoded bytes, whatever they hold.

    Raises:
        SampleError: no such file, a directory, no permission, any other failure to read, or zero
            bytes; an address that cannot be fetched.
    """
    with _open_stream(ref) as stream:
        try:
            return stream.read()
        except OSError as error:
            raise _unreadable(ref, error) from error


def header_size(ref: ImageRef, *, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Return (width, height) in pixels of the upright picture, from its header alone.

    Raises:
        SampleError: as `read_bytes`; not a picture, a format that is not supported, or more than
            `max_pixels` pixels.
    """
    with _open_stream(ref) as stream, _open_picture(stream, ref, max_pixels) as picture:
        width, height = picture.size
        return (height, width) if _orientation(picture) >= 5 else (width, height)


def open_rgb(data_or_ref: bytes | ImageRef, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Return the upright picture in mode RGB, decoded to its last pixel.

    Raises:
        SampleError: as `header_size`; data that is cut short or damaged, or pixels of 32 bits,
            whose white is unknown.
    """
    ref = data_or_ref if isinstance(data_or_ref, ImageRef) else ImageRef(data=data_or_ref)
    data = read_bytes(ref)
    with _open_picture(_stream_of(data), ref, max_pixels) as picture:
        orientation = _orientation(picture)
        try:
            if picture.format == "PNG":
                with Image.open(BytesIO(data)) as checked:
                    checked.verify()
            picture.load()
            upright = picture.transpose(_UPRIGHT[orientation]) if orientation != 1 else picture
            rgb = _to_rgb(upright)
        except _PILLOW_ERRORS as error:
            raise SampleError(
                f"picture {ref.name} is damaged or cut short ({picture.format}: {error})",
                kind="corrupt_media",
                fix="replace the file, or set `on_bad_sample: skip` on this source",
            ) from error
    if rgb is None:
        raise SampleError(
            f"picture {ref.name} has 32-bit pixels (Pillow mode {picture.mode}), of which nobody "
            "says what white is",
            kind="corrupt_media",
            fix="convert it to 8 or 16 bits a channel",
        )
    return rgb


def content_key(data: bytes) -> bytes:
    """Return 16 bytes that name the encoded bytes: equal for equal files, whatever they are called
    (BLAKE2b)."""
    return hashlib.blake2b(data, digest_size=16).digest()


def _open_stream(ref: ImageRef) -> BinaryIO:
    """Open the file, or the bytes of the row, and make sure that there is something in it."""
    if ref.data is not None:
        return _stream_of(ref.data)
    if ref.path is None:
        raise SampleError(
            "a picture with neither a path nor bytes",
            kind="missing_media",
            fix="give one of the two",
        )
    if ref.url is not None:
        fetch_missing(ref.url, ref.path, PICTURE_LIMITS)
    try:
        stream = open(ref.path, "rb")  # noqa: SIM115 - the caller closes it
        if ref.span is not None:
            with stream:
                stream.seek(ref.span[0])
                return _stream_of(stream.read(ref.span[1]))
        is_empty = os.fstat(stream.fileno()).st_size == 0
    except FileNotFoundError as error:
        raise SampleError(
            f"picture {ref.name} does not exist",
            kind="missing_media",
            fix="correct the path in the row, or the source's media root (`path`) in the mixture",
        ) from error
    except IsADirectoryError as error:
        raise SampleError(
            f"picture {ref.name} is a directory",
            kind="corrupt_media",
            fix="name the picture file inside it",
        ) from error
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        raise _unreadable(ref, error) from error
    if is_empty:
        stream.close()
        raise _empty(ref)
    return stream


def _stream_of(data: bytes) -> BinaryIO:
    if not data:
        raise _empty(ImageRef(data=data))
    return BytesIO(data)


def _open_picture(stream: BinaryIO, ref: ImageRef, max_pixels: int) -> Image.Image:
    """Read the header; no pixel is decoded."""
    # Other packages set this switch for the whole process; with it Pillow fills what is missing
    # with gray.
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        picture = Image.open(stream)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(ref, max_pixels, str(error)) from error
    except UnidentifiedImageError as error:
        stream.seek(0)
        begin = stream.read(12)
        raise SampleError(
            f"{ref.name} is not a picture, or its header is damaged (it begins with {begin!r})",
            kind="corrupt_media",
            fix="it looks like a clip: name it as `video`"
            if begins_like_clip(begin)
            else "replace the file, or set `on_bad_sample: skip` on this source",
        ) from error
    except _PILLOW_ERRORS as error:
        raise SampleError(
            f"the header of picture {ref.name} is damaged ({error})",
            kind="corrupt_media",
            fix="replace the file, or set `on_bad_sample: skip` on this source",
        ) from error
    width, height = picture.size
    if picture.format not in FORMATS:
        raise SampleError(
            f"picture {ref.name} is of format {picture.format}, which is not supported",
            kind="corrupt_media",
            fix=f"convert it to one of {', '.join(sorted(FORMATS))}",
        )
    if width * height > max_pixels:
        raise _too_large(ref, max_pixels, f"its header says {width} x {height}")
    return picture


def _orientation(picture: Image.Image) -> int:
    """Return a picture's EXIF orientation, 1 to 8, from its header; 1 is upright."""
    if picture.format == "TIFF":
        return 1  # Pillow turns TIFF while decoding, and gives its size as turned from the start
    try:
        # The class's own method, for PngImageFile's override decodes the pixels to look behind
        # them.
        value = Image.Image.getexif(picture).get(ExifTag.Orientation, 1)
    except _PILLOW_ERRORS:
        return 1  # damaged metadata says nothing about the pixels
    return value if value in _UPRIGHT else 1


def _to_rgb(picture: Image.Image) -> Image.Image | None:
    """Convert a picture of any mode to RGB over white; None if its range is unknown."""
    if picture.mode in ("I", "F"):
        return None
    if picture.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8)).convert("RGB")
    if "A" in picture.getbands() or picture.info.get("transparency") is not None:
        layers = picture.convert("RGBA")
        white = Image.new("RGBA", layers.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, layers).convert("RGB")
    return (
        picture
        if type(picture) is Image.Image and picture.mode == "RGB"
        else picture.convert("RGB")
    )


def _unreadable(ref: ImageRef, error: OSError | ValueError) -> SampleError:
    cause = getattr(error, "strerror", None) or str(error)
    return SampleError(
        f"picture {ref.name} cannot be read ({cause})",
        kind="corrupt_media",
        fix="check the path and its permissions",
    )


def _empty(ref: ImageRef) -> SampleError:
    return SampleError(
        f"picture {ref.name} is empty (zero bytes)",
        kind="empty_media",
        fix="replace the file, or set `on_bad_sample: skip` on this source",
    )


def _too_large(ref: ImageRef, max_pixels: int, detail: str) -> SampleError:
    return SampleError(
        f"picture {ref.name} is larger than the limit of {max_pixels} pixels ({detail})",
        kind="too_large_media",
        fix="shrink it; a small file that claims such a size is a decompression bomb",
    )
