"""What a file seems to be, picture or clip, by its name or first bytes. None is opened."""

from pathlib import PurePath
from typing import Literal

from PIL import Image

FORMATS = frozenset(
    {"AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP"}
)
"""Pillow's names of the formats that are read. Left out: formats that start another program (EPS),
that have no signature of their own (TGA), or whose header may tell another size than the picture
has (ICO)."""
CLIP_ENDINGS = frozenset(
    {
        "3gp",
        "avi",
        "flv",
        "m2ts",
        "m4v",
        "mkv",
        "mov",
        "mp4",
        "mpeg",
        "mpg",
        "ogv",
        "ts",
        "webm",
        "wmv",
    }
)


def ending_of(name: str | PurePath) -> str:
    """Return a name's last ending in lower case, without its dot; empty where it has none."""
    return PurePath(name).suffix.lower().lstrip(".")


def is_picture_ending(ending: str) -> bool:
    """Say whether files of this ending are pictures of a format that is read."""
    return Image.registered_extensions().get(f".{ending}") in FORMATS


def is_clip_ending(ending: str) -> bool:
    """Say whether files of this ending are clips."""
    return ending in CLIP_ENDINGS


def begins_like_picture(data: bytes) -> bool:
    """Say whether bytes begin as a JPEG, PNG or WebP file does."""
    is_webp = data[:4] == b"RIFF" and data[8:12] == b"WEBP"
    return data[:3] == b"\xff\xd8\xff" or data[:8] == b"\x89PNG\r\n\x1a\n" or is_webp


def begins_like_mp4(data: bytes) -> bool:
    """Say whether bytes begin as an MP4 or MOV file does; AVIF pictures do so too."""
    return data[4:8] == b"ftyp"


def begins_like_clip(data: bytes) -> bool:
    """Say whether bytes begin as an MP4, MOV, Matroska or WebM file does."""
    return begins_like_mp4(data) or data[:4] == b"\x1aE\xdf\xa3"


_PICTURE_STARTS = (
    *(b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*"),
    *(b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51"),
)
"""JPEG, PNG, GIF, TIFF, JPEG 2000."""
_PICTURE_BRANDS = frozenset({b"avif", b"avis", b"heic", b"heix", b"hevc", b"mif1", b"msf1"})
_CLIP_STARTS = (
    *(b"\x1aE\xdf\xa3", b"FLV\x01", b"OggS", b"\0\0\x01\xba", b"\0\0\x01\xb3"),
    b"0&\xb2u\x8ef\xcf\x11",
)
"""Matroska, Flash, Ogg, MPEG program and elementary streams, Windows Media."""


def kind_of_bytes(data: bytes) -> Literal["image", "video"] | None:
    """Say what encoded bytes begin like: a picture, a clip, or neither.

    Args:
        data: the first 32 bytes, or more.
    """
    if data[:4] == b"RIFF":
        return {b"WEBP": "image", b"AVI ": "video"}.get(data[8:12])  # pyright: ignore[reportReturnType]
    if data[4:8] == b"ftyp":
        return "image" if data[8:12] in _PICTURE_BRANDS else "video"
    if data.startswith(_PICTURE_STARTS) or (data[:2] == b"BM" and data[6:10] == bytes(4)):
        return "image"
    return "video" if data.startswith(_CLIP_STARTS) else None
