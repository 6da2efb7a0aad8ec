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
- 16-bit gray keeps its upper eight bits, and so does 12-bit gray. (Pillow alone would clip at 255
  and make nearly all of it white.) Pixels of 32 bits are refused by the header: nobody says what
  their white is.
- Of an animation or a file of several pages, the first.
- HEIC is read through pillow-heif where that is installed. It and AVIF are turned by what their
  container says; an orientation in their EXIF alone is passed over, as their standard has it.

A JPEG carries no checksum: bytes changed in the middle of its pixel data decode to wrong pixels in
any reader, and are not noticed. A JPEG that ends early is; in a PNG the checksums are compared.
"""

import hashlib
import os
from io import BytesIO
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError
from PIL.ExifTags import Base as ExifTag
from PIL.TiffImagePlugin import TiffImageFile

from smolvlm.errors import SampleError
from smolvlm.media.decode_time import timed, watched
from smolvlm.media.decoders import DecoderError, decoder_errors
from smolvlm.media.downloads import PICTURE_LIMITS, fetch_missing
from smolvlm.media.jpeg_scans import check_scans, check_segments
from smolvlm.media.kinds import (
    FORMATS,
    SIGNATURE_BYTES,
    begins_like_clip,
    begins_like_heif,
    foreign_kind,
)
from smolvlm.media.picture_errors import (
    REPLACE,
    damaged_picture,
    empty_picture,
    too_large_picture,
    unreadable_picture,
)
from smolvlm.media.png_chunks import without_large_text
from smolvlm.media.regular_files import open_regular
from smolvlm.records import ImageRef

MAX_PIXELS = 89_478_485
"""Largest picture that is opened unless a run says otherwise (a third of a gigabyte in memory);
above it Pillow warns too."""
MAX_SIDE_PX = 65_535
"""Longest side that is opened, a JPEG's own limit: resizing needs rows of that length."""
_BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)
_DNG_VERSION, _SUBFILE_TYPE, _BITS = 50706, 254, 258
"""TIFF tags: one that only DNG has, one whose lowest bit says that this is a thumbnail, and the
bits of a value."""

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


_TURNED_BY_DECODER = frozenset({"TIFF", "HEIF"})
"""Formats whose decoders turn the picture and give its size as turned from the start. In HEIF it is
the container's `irot` and `imir` that they turn by: its EXIF orientation "is ignored in the
displaying process" (ISO/IEC 23008-12, 6.5.1), and so is AVIF's, which Pillow replaces by the
container's."""


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
            raise unreadable_picture(ref, error) from error


def header_size(ref: ImageRef, *, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Return (width, height) in pixels of the upright picture, from its header alone.

    Raises:
        SampleError: as `read_bytes`; not a picture, a format that is not supported, more than
            `max_pixels` pixels, or pixels of 32 bits, whose white is unknown.
    """
    with (
        _open_stream(ref) as stream,
        _open_picture(timed(stream), ref, max_pixels, up_to_pixels=True) as picture,
    ):
        width, height = picture.size
        return (height, width) if _orientation(picture) >= 5 else (width, height)


def open_rgb(data_or_ref: bytes | ImageRef, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Return the upright picture in mode RGB, decoded to its last pixel.

    Raises:
        SampleError: as `header_size`; data that is cut short or damaged.
    """
    ref = data_or_ref if isinstance(data_or_ref, ImageRef) else ImageRef(data=data_or_ref)
    data = read_bytes(ref)
    stream = timed(_stream_of(data))
    with watched(), _open_picture(stream, ref, max_pixels) as picture:
        orientation, told_size = _orientation(picture), picture.size
        try:
            with decoder_errors():
                if picture.format == "PNG":
                    whole = without_large_text(BytesIO(data), up_to_pixels=False)
                    with Image.open(timed(whole), formats=["PNG"]) as png:
                        png.verify()
                picture.load()
                upright = picture.transpose(_UPRIGHT[orientation]) if orientation != 1 else picture
                rgb = _to_rgb(upright, gray_bits=_gray_bits(picture))
        except DecoderError as error:
            raise damaged_picture(ref, f"{picture.format}: {error}") from error
        if picture.size != told_size:  # HEIF
            raise damaged_picture(ref, "its pixels are not as many as its header says")
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
        fetch_missing(ref.url, ref.path, PICTURE_LIMITS, allow_private=ref.allow_private_url)
    try:
        stream = open_regular(ref.path)
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
        raise unreadable_picture(ref, error) from error
    if is_empty:
        stream.close()
        raise empty_picture(ref)
    return stream


def _stream_of(data: bytes) -> BinaryIO:
    if not data:
        raise empty_picture(ImageRef(data=data))
    return BytesIO(data)


def _open_picture(
    stream: BinaryIO, ref: ImageRef, max_pixels: int, *, up_to_pixels: bool = False
) -> Image.Image:
    """Read the header; no pixel is decoded.

    Args:
        stream: the encoded picture.
        ref: what it is called.
        max_pixels: the most that it may have.
        up_to_pixels: the pixels will not be asked for.
    """
    try:
        begin = stream.read(SIGNATURE_BYTES)
        stream = without_large_text(stream, up_to_pixels=up_to_pixels)
        check_segments(stream, ref)
    except OSError as error:
        raise unreadable_picture(ref, error) from error
    can_be_read = begins_like_heif(begin) and _register_heif()
    kind = None if can_be_read else foreign_kind(begin)
    if kind is not None:
        what = f"picture {ref.name} is {kind.name}"
        raise SampleError(what, kind="corrupt_media", fix=kind.fix)
    # Other packages set this switch for the whole process; with it Pillow fills what is missing
    # with gray.
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    # Pillow's limit is the process's; ours is this picture's, and is compared below.
    if Image.MAX_IMAGE_PIXELS is not None and max_pixels > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = max_pixels
    try:
        picture = _identified(stream)
    except DecoderError as error:
        if isinstance(error.__cause__, _BOMBS):
            raise too_large_picture(ref, max_pixels, str(error)) from error
        what = f"the header of picture {ref.name} is damaged ({error})"
        raise SampleError(what, kind="corrupt_media", fix=REPLACE) from error
    if picture is None:
        raise SampleError(
            f"{ref.name} is not a picture of a format that is read, or its header is damaged (it "
            f"begins with {begin[:12]!r})",
            kind="corrupt_media",
            fix="it looks like a clip: name it as `video`" if begins_like_clip(begin) else REPLACE,
        )
    _check_header(picture, ref, max_pixels)
    if picture.info.get("progressive"):
        check_scans(stream, ref)
    return picture


def _register_heif() -> bool:
    """Let Pillow read HEIF through pillow-heif; False where that is not installed."""
    try:
        from pillow_heif import register_heif_opener  # pyright: ignore[reportMissingImports]
    except ImportError:
        return False
    register_heif_opener()
    return True


def _formats() -> list[str]:
    """Return Pillow's names of the formats that are read in this process; others are not tried,
    since some of their readers take as long as a file likes."""
    Image.init()
    return [name for name in (*FORMATS, "HEIF") if name in Image.OPEN]


def _identified(stream: BinaryIO) -> Image.Image | None:
    with decoder_errors():
        try:
            return Image.open(stream, formats=_formats())
        except UnidentifiedImageError:
            return None


def _check_header(picture: Image.Image, ref: ImageRef, max_pixels: int) -> None:
    """Refuse what a header tells: lengths and training count on pictures that pass.

    Raises:
        SampleError: a thumbnail in place of the picture, pixels that are too many or too wide, or
            a side that is too long.
    """
    width, height = picture.size
    if _is_raw(picture):
        raise SampleError(
            f"picture {ref.name} is a camera RAW file (its first page is a thumbnail)",
            kind="corrupt_media",
            fix="develop it to JPEG or 16-bit TIFF with a RAW converter",
        )
    if max(width, height) > MAX_SIDE_PX:
        raise SampleError(
            f"picture {ref.name} is {width} x {height} pixels, longer than {MAX_SIDE_PX:,}",
            kind="too_large_media",
            fix="cut it into several pictures",
        )
    if width * height > max_pixels:
        raise too_large_picture(ref, max_pixels, f"its header says {width} x {height}")
    if picture.mode in ("I", "F") and not _is_16_bit(picture):
        raise SampleError(
            f"picture {ref.name} has 32-bit pixels (Pillow mode {picture.mode}), of which nobody "
            "says what white is",
            kind="corrupt_media",
            fix="convert it to 8 or 16 bits a channel",
        )


def _is_raw(picture: Image.Image) -> bool:
    """Say whether a TIFF is a camera's RAW file (NEF, ARW, DNG, ...), which begins with a small
    preview."""
    if not isinstance(picture, TiffImageFile):
        return False
    tags = picture.tag_v2
    subfile_type = tags.get(_SUBFILE_TYPE, 0)
    is_thumbnail = isinstance(subfile_type, int) and bool(subfile_type & 1)
    return is_thumbnail or _DNG_VERSION in tags


def _is_16_bit(picture: Image.Image) -> bool:
    """Say whether gray values go from 0 to 65,535; those of PGM files are read so in mode I."""
    return picture.mode.startswith("I;16") or (picture.mode == "I" and picture.format == "PPM")


def _orientation(picture: Image.Image) -> int:
    """Return a picture's EXIF orientation, 1 to 8, from its header; 1 is upright."""
    if picture.format in _TURNED_BY_DECODER:
        return 1
    try:
        with decoder_errors():
            # The class's own method, for PngImageFile's override decodes the pixels to look behind
            # them.
            value = Image.Image.getexif(picture).get(ExifTag.Orientation, 1)
    except DecoderError:
        return 1  # damaged metadata says nothing about the pixels
    return value if value in _UPRIGHT else 1


def _gray_bits(picture: Image.Image) -> int:
    """Return how many bits a gray value of more than eight has: 16, but in some TIFF files 12."""
    is_12_bit = isinstance(picture, TiffImageFile) and picture.tag_v2.get(_BITS) == (12,)
    return 12 if is_12_bit else 16


def _to_rgb(picture: Image.Image, *, gray_bits: int) -> Image.Image:
    """Convert a picture of any mode to RGB over white; in mode I it has `gray_bits` bits."""
    if picture.mode.startswith("I"):
        return Image.fromarray((np.asarray(picture) >> (gray_bits - 8)).astype(np.uint8)).convert(
            "RGB"
        )
    if "A" in picture.getbands() or picture.info.get("transparency") is not None:
        layers = picture.convert("RGBA")
        white = Image.new("RGBA", layers.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, layers).convert("RGB")
    return (
        picture
        if type(picture) is Image.Image and picture.mode == "RGB"
        else picture.convert("RGB")
    )
