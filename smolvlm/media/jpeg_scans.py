"""Progressive JPEGs: how often their pixels would be gone through."""

from typing import BinaryIO

from smolvlm.errors import SampleError
from smolvlm.media.picture_errors import unreadable_picture
from smolvlm.records import ImageRef

_MAX_SCANS = 100
"""Encoders write some ten. Each costs a pass over all pixels, however few bytes it has."""
_SCAN = b"\xff\xda"


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
