"""JPEGs that cost more than their pixels: scans without end, and metadata without end."""

import os
from collections.abc import Iterator
from typing import BinaryIO

from smolvlm.errors import SampleError
from smolvlm.media.picture_errors import unreadable_picture
from smolvlm.records import ImageRef

_MAX_SCANS = 100
"""Encoders write some ten. Each costs a pass over all pixels, however few bytes it has."""
_SCAN = b"\xff\xda"
_MAX_SEGMENTS, _MAX_SEGMENT_BYTES = 4096, 32 << 20
"""In front of the pixels: their number, and their bytes together. A colour profile takes up to 255
segments and 16 MB. Pillow joins those of one kind one by one, in time that grows by the square."""
_BEGIN, _WITHOUT_LENGTH = b"\xff\xd8", frozenset({0x01, *range(0xD0, 0xD9)})
_LAST = frozenset({0xDA, 0xD9})


def check_scans(stream: BinaryIO, ref: ImageRef) -> None:
    """Refuse a progressive JPEG that would be decoded over and over.

    Raises:
        SampleError: it is one, or cannot be read.
    """
    place = stream.tell()
    try:
        stream.seek(0)
        num_scans = stream.read().count(_SCAN)
        stream.seek(place)
    except OSError as error:
        raise unreadable_picture(ref, error) from error
    if num_scans > _MAX_SCANS:
        what = f"picture {ref.name} is a progressive JPEG of {num_scans:,} scans"
        raise SampleError(what, kind="too_large_media", fix="save it anew as a plain JPEG")


def check_segments(stream: BinaryIO, ref: ImageRef) -> None:
    """Refuse a JPEG with metadata without end; the stream is left at its begin.

    Raises:
        SampleError: it is one.
        OSError: it cannot be read.
    """
    stream.seek(0)
    if stream.read(len(_BEGIN)) == _BEGIN:
        num_bytes = num_segments = 0
        for length in _segment_lengths(stream):
            num_segments, num_bytes = num_segments + 1, num_bytes + length
            if num_segments > _MAX_SEGMENTS or num_bytes > _MAX_SEGMENT_BYTES:
                raise SampleError(
                    f"picture {ref.name} is a JPEG of more than {_MAX_SEGMENTS:,} segments or "
                    f"{_MAX_SEGMENT_BYTES >> 20} MiB in front of its pixels",
                    kind="corrupt_media",
                    fix="save it anew, without its metadata",
                )
    stream.seek(0)


def _segment_lengths(stream: BinaryIO) -> Iterator[int]:
    """Yield the length of each segment up to the pixels, or to where none is."""
    while True:
        lead = stream.read(1)
        marker = stream.read(1)
        while marker == b"\xff":  # fill bytes
            yield 1
            marker = stream.read(1)
        if lead != b"\xff" or not marker or marker[0] in _LAST:
            return
        if marker[0] in _WITHOUT_LENGTH:
            yield 2
            continue
        length = int.from_bytes(stream.read(2), "big")
        if length < 2:
            return
        stream.seek(length - 2, os.SEEK_CUR)
        yield length
