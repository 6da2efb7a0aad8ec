"""PNG files whose text is larger than Pillow reads: the same picture without that text.

Comes in: an open PNG file. Goes out: the file itself where its text and its colour profile are
small, as nearly always; else a copy in memory without them. Pillow (13) refuses a file with a
compressed text or profile above 1 MiB, or with 64 MiB of text, as a guard against text that
inflates without end. The guard is a module's variable, so raising it would raise it for the whole
process; here nothing is raised, and nothing above the limit is ever inflated. What may say which
way is up (XMP, EXIF written as text) stays if it is below the limit. Checksums are compared before
something is left out, so damage in it is still found.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import BinaryIO

from smolvlm.errors import SampleError
from smolvlm.media.decode_time import check_time

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_TEXT_BYTES = 1 << 20
"""Text or profile that Pillow reads; Pillow's `MAX_TEXT_CHUNK`."""
_MAX_CHUNKS = 1 << 18
"""Encoders write pixels in chunks of 8 KiB and more: two gigabytes. Pillow takes each by itself."""
_TEXT = frozenset({b"tEXt", b"zTXt", b"iTXt", b"iCCP"})
_ORIENTATION = (b"XML:com.adobe.xmp\0", b"Raw profile type exif\0", b"exif\0")
"""Beginnings of texts from which the orientation is read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Chunk:
    """A piece of text in the file."""

    begin: int
    end: int
    """Behind its checksum."""
    num_bytes: int
    """Of what it holds, inflated; above the limit only that much is known."""
    may_orient: bool


def without_large_text(stream: BinaryIO, *, up_to_pixels: bool) -> BinaryIO:
    """Return a file, at its begin, that Pillow reads however much text it holds.

    Args:
        stream: any file; one that is no PNG, or is damaged, is returned as it is.
        up_to_pixels: only what stands in front of the pixels will be read.
    """
    stream.seek(0)
    texts: list[_Chunk] = []
    if stream.read(len(SIGNATURE)) == SIGNATURE:
        texts = list(_texts(stream, up_to_pixels=up_to_pixels))
    stream.seek(0)
    if sum(text.num_bytes for text in texts) <= MAX_TEXT_BYTES:
        return stream
    kept, position = [], 0
    data = stream.read()
    for text in texts:
        if not text.may_orient or text.num_bytes > MAX_TEXT_BYTES:
            kept.append(data[position : text.begin])
            position = text.end
    return BytesIO(b"".join([*kept, data[position:]]))


def _texts(stream: BinaryIO, *, up_to_pixels: bool) -> Iterator[_Chunk]:
    """Yield the texts and profiles whose checksums are right.

    Raises:
        SampleError: chunks without end.
    """
    begin = len(SIGNATURE)
    for _ in range(_MAX_CHUNKS):
        check_time()
        stream.seek(begin)
        header = stream.read(8)
        kind, end = header[4:], begin + 12 + int.from_bytes(header[:4], "big")
        if len(header) < 8 or kind == b"IEND" or (up_to_pixels and kind == b"IDAT"):
            return
        if kind in _TEXT:
            body, checksum = stream.read(end - begin - 12), stream.read(4)
            if zlib.crc32(kind + body).to_bytes(4, "big") == checksum:
                yield _Chunk(
                    begin=begin,
                    end=end,
                    num_bytes=_inflated_bytes(kind, body),
                    may_orient=kind != b"iCCP" and body.startswith(_ORIENTATION),
                )
        begin = end
    raise SampleError(
        f"a PNG of more than {_MAX_CHUNKS:,} chunks", kind="corrupt_media", fix="save it anew"
    )


def _inflated_bytes(kind: bytes, body: bytes) -> int:
    """Return how much a text or profile holds, inflating no more than a little above the limit."""
    keyword, _, rest = body.partition(b"\0")
    if kind == b"iTXt":
        is_compressed, packed = rest[:1] == b"\1", rest[2:].split(b"\0", 2)[-1]
    else:
        is_compressed, packed = kind != b"tEXt", rest[1:]
    if not is_compressed:
        return len(body)
    try:
        return len(keyword) + len(zlib.decompressobj().decompress(packed, MAX_TEXT_BYTES + 1))
    except zlib.error:
        return len(body)
