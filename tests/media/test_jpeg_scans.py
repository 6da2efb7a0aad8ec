"""JPEGs whose metadata has no end are refused before Pillow joins it; healthy ones are read."""

import io
import struct

import pytest
from PIL import Image

from smolvlm.errors import SampleError
from smolvlm.media import jpeg_scans
from smolvlm.media.images import header_size, open_rgb
from smolvlm.records import ImageRef


def jpeg(*segments: bytes) -> bytes:
    """A picture of 24 x 16 with segments in front of its own."""
    stream = io.BytesIO()
    Image.new("RGB", (24, 16), (9, 90, 200)).save(stream, "JPEG")
    data = stream.getvalue()
    return data[:2] + b"".join(segments) + data[2:]


def segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


EXIF = segment(0xE1, b"Exif\0\0" + b"A" * 1000)
FLOODS = {
    "comments": segment(0xFE, b""),
    "EXIF, which Pillow joins": EXIF,
    "colour profiles": segment(0xE2, b"ICC_PROFILE\0\1\1" + b"A" * 100),
    "tables": segment(0xDB, b"\0" + b"\1" * 64),
    "restarts": b"\xff\xd0",
    "fill": b"\xff",
}


@pytest.mark.parametrize("action", [header_size, open_rgb])
@pytest.mark.parametrize("name", [*FLOODS])
def test_segments_without_end_are_refused(name: str, action: object) -> None:
    assert callable(action)
    action(ImageRef(data=jpeg(segment(0xFE, b"a comment"))))
    with pytest.raises(SampleError, match="more than 4,096 segments or 32 MiB"):
        action(ImageRef(data=jpeg(FLOODS[name] * 5000)))


def test_what_is_in_front_of_the_pixels_is_counted_and_nothing_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(jpeg_scans, "_MAX_SEGMENT_BYTES", 10_000)
    for data in (jpeg(EXIF * 8), jpeg() + EXIF * 20):
        assert open_rgb(data).size == header_size(ImageRef(data=data)) == (24, 16)
    with pytest.raises(SampleError, match="segments or 0 MiB"):
        open_rgb(jpeg(EXIF * 10))


def test_damage_among_the_segments_is_left_to_the_decoder() -> None:
    whole = jpeg()
    for cut in (2, 3, 4, 5, 20, 100):
        with pytest.raises(SampleError, match=r"damaged|not a picture"):
            open_rgb(whole[:cut])
