"""What a file seems to be, picture or clip, by its name or first bytes. None is opened.

Bytes of a known kind that is not read as a picture (HEIC, JPEG XL, camera RAW, PDF, ...) are called
by their name, with what to do about it: "not a picture" would send people looking for damage.
"""

from dataclasses import dataclass
from pathlib import PurePath
from typing import Literal

from PIL import Image, features

FORMATS = frozenset(
    {"AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP"}
)
"""Pillow's names of the formats that are read. Left out: formats that start another program (EPS),
that have no signature of their own (TGA), or whose header may tell another size than the picture
has (ICO)."""
_STILL_ENDINGS = frozenset({"heic", "heif", "hif", "jxl"})
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
    """Say whether files of this ending are pictures.

    HEIC and JPEG XL are, whether they can be read or not: opening one says why not, while leaving
    it out of a folder of frames would say nothing.
    """
    return ending in _STILL_ENDINGS or Image.registered_extensions().get(f".{ending}") in FORMATS


def is_clip_ending(ending: str) -> bool:
    """Say whether files of this ending are clips."""
    return ending in CLIP_ENDINGS


SIGNATURE_BYTES = 1024
"""How much of a file's beginning tells what it is: an SVG may begin with comments."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ForeignKind:
    """A kind of file that is not read as a picture."""

    name: str
    """With its article, for a sentence."""
    fix: str


_CONVERT = "convert it to JPEG or PNG"
_PAGES = "render its pages to PNG, and list those as `images`"
_RAW = ForeignKind(
    name="a camera RAW file", fix="develop it to JPEG or 16-bit TIFF with a RAW converter"
)
HEIF = ForeignKind(
    name="a HEIC (HEIF) picture", fix="convert it to JPEG, or `pip install pillow-heif`"
)
_AVIF = ForeignKind(
    name="an AVIF picture, which this build of Pillow cannot read",
    fix="convert it to JPEG, or install a Pillow with AVIF (11.3 or later, from the package index)",
)
_HEIF_BRANDS = frozenset(
    {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}
)
_SIGNATURES = (
    (b"\xff\x0a", ForeignKind(name="a JPEG XL picture", fix=_CONVERT)),
    (b"\0\0\0\x0cJXL \r\n\x87\n", ForeignKind(name="a JPEG XL picture", fix=_CONVERT)),
    (b"%PDF-", ForeignKind(name="a PDF document", fix=_PAGES)),
    (b"8BPS", ForeignKind(name="a Photoshop file (PSD)", fix=_CONVERT)),
    (b"\0\0\1\0", ForeignKind(name="an icon file (ICO)", fix=_CONVERT)),
    (b"\0\0\2\0", ForeignKind(name="a cursor file (CUR)", fix=_CONVERT)),
    (b"%!PS", ForeignKind(name="an EPS or PostScript file", fix=_PAGES)),
    (b"\xc5\xd0\xd3\xc6", ForeignKind(name="an EPS file", fix=_PAGES)),
    (b"IIRO", _RAW),
    (b"IIRS", _RAW),
    (b"MMOR", _RAW),
    (b"IIU\0", _RAW),
    (b"FUJIFILMCCD-RAW", _RAW),
    (b"FOVb", _RAW),
    (
        b"version https://git-lfs.github.com/spec",
        ForeignKind(
            name="a Git LFS pointer, not the file itself", fix="run `git lfs pull` in its folder"
        ),
    ),
)
"""First bytes -> kind. RAW: Olympus, Panasonic, Fujifilm, Sigma; those in TIFF and MP4 containers
are told by more than that."""


def foreign_kind(begin: bytes) -> ForeignKind | None:
    """Return what bytes are that are no picture of a format that is read; None where they may be
    one, or a clip, or nobody knows.

    Args:
        begin: the first `SIGNATURE_BYTES` of a file.
    """
    if begins_like_heif(begin):
        return HEIF
    if _begins_like_avif(begin):
        return None if features.check("avif") else _AVIF
    if _begins_like_raw(begin):
        return _RAW
    for signature, kind in _SIGNATURES:
        if begin.startswith(signature):
            return kind
    if b"<svg" in begin and begin.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        return ForeignKind(name="an SVG drawing", fix="render it to PNG")
    return None


def begins_like_heif(begin: bytes) -> bool:
    """Say whether bytes begin as a HEIF file does, which HEIC pictures are."""
    return begins_like_mp4(begin) and begin[8:12] in _HEIF_BRANDS and b"avif" not in _brands(begin)


def begins_like_still(begin: bytes) -> bool:
    """Say whether bytes of the MP4 family are one picture: HEIC or AVIF, and no sequence."""
    return begins_like_mp4(begin) and (begins_like_heif(begin) or _begins_like_avif(begin))


def begins_like_picture(data: bytes) -> bool:
    """Say whether bytes begin as a JPEG, PNG, WebP, HEIC, AVIF or JPEG XL file does."""
    is_webp = data[:4] == b"RIFF" and data[8:12] == b"WEBP"
    return (
        data[:3] == b"\xff\xd8\xff"
        or data[:8] == b"\x89PNG\r\n\x1a\n"
        or is_webp
        or begins_like_still(data)
        or data.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL "))
    )


def begins_like_mp4(data: bytes) -> bool:
    """Say whether bytes begin as an MP4 or MOV file does; HEIC and AVIF pictures do so too."""
    return data[4:8] == b"ftyp"


def begins_like_clip(data: bytes) -> bool:
    """Say whether bytes begin as an MP4, MOV, Matroska, WebM, AVI, Flash or Ogg file does."""
    is_mp4 = begins_like_mp4(data) and not begins_like_still(data)
    is_avi = data[:4] == b"RIFF" and data[8:12] == b"AVI "
    return is_mp4 or is_avi or data.startswith((b"\x1aE\xdf\xa3", b"FLV\1", b"OggS"))


def _brands(begin: bytes) -> frozenset[bytes]:
    """Return the brands that a file of the MP4 family names beside its own."""
    size = int.from_bytes(begin[:4], "big")
    return frozenset(begin[at : at + 4] for at in range(16, min(size, len(begin)), 4))


def _begins_like_avif(begin: bytes) -> bool:
    brand = begin[8:12]
    is_avif = brand == b"avif" or (brand in _HEIF_BRANDS and b"avif" in _brands(begin))
    return begins_like_mp4(begin) and is_avif


def _begins_like_raw(begin: bytes) -> bool:
    """Say whether bytes are a Canon RAW file's, whose begin is that of a TIFF, or of an MP4."""
    is_cr2 = begin[:4] == b"II*\0" and begin[8:10] == b"CR"
    is_cr3 = begins_like_mp4(begin) and begin[8:12] == b"crx "
    return is_cr2 or is_cr3 or begin[6:14] == b"HEAPCCDR"


_PICTURE_STARTS = (
    *(b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*"),
    *(b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51"),
)
"""JPEG, PNG, GIF, TIFF, JPEG 2000."""
_CLIP_STARTS = (
    *(b"\x1aE\xdf\xa3", b"FLV\x01", b"OggS", b"\0\0\x01\xba", b"\0\0\x01\xb3"),
    b"0&\xb2u\x8ef\xcf\x11",
)
"""Matroska, Flash, Ogg, MPEG program and elementary streams, Windows Media."""


def kind_of_bytes(data: bytes) -> Literal["image", "video"] | None:
    """Say what encoded bytes surely begin like: a picture, a clip, or neither.

    Signatures of two bytes do not count: "/work" in base64 begins as JPEG XL.

    Args:
        data: the first 64 bytes, or more.
    """
    if data[:4] == b"RIFF":
        return {b"WEBP": "image", b"AVI ": "video"}.get(data[8:12])  # pyright: ignore[reportReturnType]
    if data[4:8] == b"ftyp":
        return "image" if begins_like_still(data) else "video"
    if data.startswith(_PICTURE_STARTS) or (data[:2] == b"BM" and data[6:10] == bytes(4)):
        return "image"
    return "video" if data.startswith(_CLIP_STARTS) else None
