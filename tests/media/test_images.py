"""`smolvlm.media.images`: every picture becomes upright RGB of the size its header told, or an
error that helps."""

import io
import os
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, features

from smolvlm.errors import SampleError
from smolvlm.media.images import content_key, header_size, open_rgb, read_bytes
from smolvlm.media.kinds import FORMATS as READ
from smolvlm.records import ImageRef

NOBODY = 65534
"""The user who owns nothing."""
MODES = ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"]
FORMATS = ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "JPEG2000"] + [
    "AVIF"
] * features.check("avif")
ORIENTATION_TAG = 274


def picture(width: int = 24, height: int = 16) -> Image.Image:
    """A smooth picture whose four corners all differ."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    return Image.fromarray(np.stack([x * 10, y * 15, (x + y) * 6], axis=-1).astype(np.uint8))


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(
        np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    )


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[ORIENTATION_TAG] = orientation
    return tags


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def failure(action, *arguments, **options) -> str:
    with pytest.raises(SampleError) as raised:
        action(*arguments, **options)
    text = str(raised.value)
    assert "\n  fix: " in text
    return text


BOMB = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
BOMB += chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


# --- bytes ----------------------------------------------------------------------------------------


def test_bytes_come_from_the_file_or_from_the_row(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"anything")
    assert read_bytes(ImageRef(path=path)) == b"anything"
    assert read_bytes(ImageRef(data=b"row")) == b"row"


@pytest.mark.parametrize("action", [read_bytes, header_size, open_rgb])
def test_files_that_cannot_be_read_are_named_with_cause_and_mend(action, tmp_path):
    (tmp_path / "empty.png").touch()
    expected = {
        tmp_path / "none.png": "none.png does not exist",
        tmp_path: "is a directory",
        tmp_path / "empty.png": "empty.png is empty (zero bytes)",
        tmp_path / "empty.png" / "x.png": "cannot be read (Not a directory)",
        tmp_path / ("n" * 300): "cannot be read (File name too long)",
        Path("null\0byte"): "cannot be read (embedded null byte)",
    }
    for path, text in expected.items():
        assert text in failure(action, ImageRef(path=path))
    assert "`path`) in the mixture" in failure(action, ImageRef(path=tmp_path / "none.png"))


@pytest.mark.parametrize("action", [read_bytes, header_size, open_rgb])
def test_rows_with_no_bytes_are_refused(action):
    assert "<0 bytes in the row> is empty" in failure(action, ImageRef(data=b""))
    assert "neither a path nor bytes" in failure(action, ImageRef())


def test_a_file_without_permission_is_refused(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encoded(picture()))
    path.chmod(0)
    user = os.geteuid()
    try:
        if user == 0:
            os.seteuid(NOBODY)  # a super-user may read any file
        assert "cannot be read (Permission denied)" in failure(read_bytes, ImageRef(path=path))
    finally:
        os.seteuid(user)


def test_equal_bytes_have_equal_keys_of_16_bytes():
    one = encoded(picture())
    assert content_key(one) == content_key(bytes(one))
    assert len(content_key(one)) == 16
    assert content_key(one) != content_key(one + b" ")


# --- sizes and orientation
# -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FORMATS)
def test_the_header_tells_the_size_of_the_picture_that_is_opened(kind, tmp_path):
    data = encoded(picture(), kind)
    path = tmp_path / "misnamed.txt"  # the content counts, not the name
    path.write_bytes(data)
    opened = open_rgb(ImageRef(path=path))
    assert opened.mode == "RGB"
    assert header_size(ImageRef(path=path)) == opened.size == (24, 16)
    assert open_rgb(data).tobytes() == opened.tobytes()


@pytest.mark.parametrize("orientation", [*range(1, 9), 0, 9])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {"quality": 95, "subsampling": 0}),
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
        ("TIFF", {}),
    ],
)
def test_the_orientation_is_applied_and_the_header_knows(kind, options, orientation):
    upright = picture()
    undo = {
        2: 0,
        3: 3,
        4: 1,
        5: 5,
        6: 2,
        7: 6,
        8: 4,
    }  # Image.Transpose member that the camera would have stored
    stored = (
        upright.transpose(Image.Transpose(undo[orientation])) if orientation in undo else upright
    )
    data = encoded(stored, kind, exif=exif(orientation), **options)
    opened = open_rgb(data)
    assert header_size(ImageRef(data=data)) == opened.size == upright.size
    difference = np.abs(np.asarray(opened).astype(int) - np.asarray(upright))
    assert difference.max() <= (6 if kind == "JPEG" else 0)


def test_orientation_is_also_read_from_xmp():
    packet = (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    )
    data = encoded(picture(), "JPEG", xmp=packet)
    assert header_size(ImageRef(data=data)) == open_rgb(data).size == (16, 24)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")
@pytest.mark.parametrize("metadata", [b"Exif\0\0garbage", b"Exif\0\0II*\0\x08", b"Exif\0\0"])
def test_damaged_metadata_leaves_the_picture_as_it_lies(metadata):
    data = encoded(picture(), "JPEG", exif=metadata)
    assert header_size(ImageRef(data=data)) == open_rgb(data).size == (24, 16)


def test_metadata_behind_the_pixels_of_a_png_is_passed_over_by_both():
    data = encoded(picture())
    assert data.endswith(chunk(b"IEND", b""))
    late = data[:-12] + chunk(b"eXIf", exif(6).tobytes()[6:]) + data[-12:]
    assert header_size(ImageRef(data=late)) == open_rgb(late).size == (24, 16)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_the_header_is_read_without_decoding(kind, monkeypatch):
    data = encoded(noise(16, 24), kind, exif=exif(6))

    def never(_):
        raise AssertionError("decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", never)
    assert header_size(ImageRef(data=data)) == (24, 16)
    assert header_size(ImageRef(data=data[:-60])) == (24, 16)  # without the last of the pixels


# --- colours --------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_becomes_rgb(mode):
    kind = "JPEG" if mode in ("CMYK", "YCbCr") else "PNG"
    options = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    opened = open_rgb(encoded(picture().convert(mode), kind, **options))
    expected = picture().convert(mode).convert("RGB")
    assert opened.mode == "RGB"
    assert np.abs(np.asarray(opened).astype(int) - np.asarray(expected)).max() <= (
        4 if kind == "JPEG" else 0
    )


def test_transparency_is_laid_over_white():
    layers = Image.new("RGBA", (3, 1))
    for x, alpha in enumerate((0, 128, 255)):
        layers.putpixel((x, 0), (200, 0, 0, alpha))
    opened = open_rgb(encoded(layers))
    assert [opened.getpixel((x, 0)) for x in range(3)] == [
        (255, 255, 255),
        (227, 127, 127),
        (200, 0, 0),
    ]


@pytest.mark.parametrize("mode", ["P", "L", "RGB", "1"])
def test_a_transparent_colour_becomes_white(mode):
    image = Image.new("RGB", (2, 1), (0, 0, 0)).convert(mode)
    transparent = (0, 0, 0) if mode == "RGB" else image.getpixel((0, 0))
    opened = open_rgb(encoded(image, transparency=transparent))
    assert opened.getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_gray_keeps_its_upper_bits(kind):
    levels = np.array([[0, 255, 256, 0x7FFF, 0xFFFF]], dtype=np.uint16)
    opened = open_rgb(encoded(Image.fromarray(levels), kind))
    assert np.asarray(opened)[0, :, 0].tolist() == [0, 0, 1, 0x7F, 0xFF]


@pytest.mark.parametrize(
    "data",
    [
        b"P5\n5 1\n65535\n" + struct.pack(">5H", 0, 255, 256, 0x7FFF, 0xFFFF),
        b"P2\n5 1\n65535\n0 255 256 32767 65535\n",
    ],
)
def test_16_bit_pgm_is_read_as_other_16_bit_grays(data):
    opened = open_rgb(data)
    assert header_size(ImageRef(data=data)) == opened.size == (5, 1)
    assert np.asarray(opened)[0].tolist() == [[level] * 3 for level in (0, 0, 1, 0x7F, 0xFF)]


def test_tiff_of_twelve_bits_reaches_from_black_to_white():
    tags = {256: 4, 257: 1, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: 1, 279: 6}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, tags[tag]) for tag in tags)
    pixels = bytes.fromhex("0007ff800fff")  # 0x000, 0x7ff, 0x800, 0xfff
    data = b"II*\0" + struct.pack("<I", 14) + pixels + struct.pack("<H", len(tags)) + entries
    opened = open_rgb(data + bytes(4))
    assert np.asarray(opened)[0, :, 0].tolist() == [0, 0x7F, 0x80, 0xFF]


def test_pgm_of_ten_bits_reaches_from_black_to_white():
    opened = open_rgb(b"P5\n3 1\n1023\n" + struct.pack(">3H", 0, 512, 1023))
    assert np.asarray(opened)[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize("action", [header_size, open_rgb])
@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_32_bit_pixels_are_refused_by_their_header(dtype, action):
    data = encoded(Image.fromarray(np.ones((2, 2), dtype=dtype)), "TIFF")
    assert "32-bit pixels" in failure(action, ImageRef(data=data))


@pytest.mark.parametrize("action", [header_size, open_rgb])
def test_float_pixels_of_pfm_are_refused_by_their_header(action):
    data = b"Pf\n2 1\n-1.0\n" + struct.pack("<2f", 0.5, 1.0)
    assert "Pillow mode F" in failure(action, ImageRef(data=data))


@pytest.mark.parametrize("action", [header_size, open_rgb])
def test_a_picture_without_pixels_is_refused_by_its_header(action):
    failure(action, ImageRef(data=b"P5\n0 3\n255\n"))


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_an_animation_the_first_frame_is_taken(kind):
    frames = [Image.new("RGB", (6, 4), colour) for colour in ((250, 0, 0), (0, 250, 0))]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    opened = open_rgb(data)
    assert opened.size == (6, 4)
    assert opened.getpixel((0, 0)) == (250, 0, 0)


# --- what is not a picture, and what is damaged
# ----------------------------------------------------------------------


@pytest.mark.parametrize("action", [header_size, open_rgb])
def test_what_is_no_picture_is_shown_by_its_first_bytes(action, tmp_path):
    path = tmp_path / "page.jpg"
    path.write_bytes(b"<!DOCTYPE html><html>not found</html>")
    text = failure(action, ImageRef(path=path))
    assert (
        "page.jpg is not a picture of a format that is read, or its header is damaged (it begins "
        "with b'<!DOCTYPE ht')" in text
    )
    assert "fix: replace the file" in text
    assert "is not a picture" in failure(action, ImageRef(data=bytes(range(1, 200))))
    assert "is damaged (Truncated File Read)" in failure(
        action, ImageRef(data=encoded(picture())[:20])
    )


@pytest.mark.parametrize("action", [header_size, open_rgb])
def test_readers_of_other_formats_are_not_tried(action, monkeypatch):
    def tried(*_):
        raise AssertionError("a reader of another format was asked")

    data = encoded(picture(), "PCX")
    for name in set(Image.OPEN) - READ:
        monkeypatch.setitem(Image.OPEN, name, (tried, None))
    text = failure(action, ImageRef(data=data))
    assert "is not a picture of a format that is read, or its header is damaged" in text


@pytest.mark.parametrize("action", [header_size, open_rgb])
@pytest.mark.parametrize("size", [(70_000, 1), (1, 70_000)])
def test_a_side_that_is_too_long_is_refused_by_its_header(action, size):
    assert "longer than 65,535" in failure(action, ImageRef(data=encoded(Image.new("1", size))))


@pytest.mark.parametrize("action", [header_size, open_rgb])
def test_a_jpeg_that_would_be_decoded_over_and_over_is_refused(action, tmp_path):
    data = encoded(picture(), "JPEG", progressive=True)
    action(ImageRef(data=data))
    scan = data[data.rindex(b"\xff\xda") : -2]
    bomb = data[:-2] + 200 * scan + data[-2:]
    (tmp_path / "bomb.jpg").write_bytes(bomb)
    for ref in (ImageRef(data=bomb), ImageRef(path=tmp_path / "bomb.jpg")):
        assert re.search(r"a progressive JPEG of 2\d\d scans", failure(action, ref))


@pytest.mark.parametrize("action", [header_size, open_rgb])
def test_a_decompression_bomb_is_refused_by_its_header(action):
    assert len(BOMB) < 100
    text = failure(action, ImageRef(data=BOMB))
    assert "is larger than the limit of 89478485 pixels" in text
    assert "decompression bomb" in text


@pytest.mark.parametrize("action", [header_size, open_rgb])
def test_a_picture_between_pillows_warning_and_its_error_is_refused_too(action):
    header = struct.pack(">IIBBBBB", 10_000, 10_000, 8, 2, 0, 0, 0)
    data = BOMB[:8] + chunk(b"IHDR", header) + BOMB[33:]
    assert "larger than the limit" in failure(action, ImageRef(data=data))


@pytest.mark.filterwarnings("default::PIL.Image.DecompressionBombWarning")
def test_it_is_refused_as_well_where_pillows_warnings_are_no_errors():
    header = struct.pack(">IIBBBBB", 10_000, 10_000, 8, 2, 0, 0, 0)
    data = BOMB[:8] + chunk(b"IHDR", header) + BOMB[33:]
    with pytest.warns(Image.DecompressionBombWarning):
        assert "its header says 10000 x 10000" in failure(header_size, ImageRef(data=data))


def test_the_limit_can_be_set():
    data = encoded(picture())
    assert header_size(ImageRef(data=data), max_pixels=24 * 16) == (24, 16)
    text = failure(header_size, ImageRef(data=data), max_pixels=24 * 16 - 1)
    assert "larger than the limit of 383 pixels (its header says 24 x 16)" in text
    assert "larger than the limit of 383 pixels" in failure(open_rgb, data, max_pixels=383)


def test_a_raised_limit_opens_what_pillows_own_would_not(monkeypatch):
    header = struct.pack(">IIBBBBB", 20_000, 10_000, 1, 0, 0, 0, 0)
    large = BOMB[:8] + chunk(b"IHDR", header) + BOMB[33:]
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    text = failure(header_size, ImageRef(data=large))
    assert "raise `data.max_image_pixels`" in text
    assert header_size(ImageRef(data=large), max_pixels=200_000_000) == (20_000, 10_000)
    failure(header_size, ImageRef(data=large))  # another limit in the same process still holds
    data = encoded(picture())
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # of 384
    assert open_rgb(data, max_pixels=384).size == (24, 16)


@pytest.mark.parametrize("error", [zlib.error("-3"), KeyError("IHDR"), AttributeError("x")])
def test_whatever_pillow_raises_is_about_the_picture(error, monkeypatch):
    def fails(*_arguments, **_options):
        raise error

    data = encoded(picture(), "JPEG")
    with monkeypatch.context() as patch:
        patch.setattr(ImageFile.ImageFile, "load", fails)
        assert "is damaged or cut short (JPEG: " in failure(open_rgb, data)
    monkeypatch.setattr(Image, "open", fails)
    for action in (open_rgb, header_size):
        assert "the header of picture <" in failure(action, ImageRef(data=data))


def test_memory_that_ran_out_is_no_fault_of_the_picture(monkeypatch):
    def fails(*_arguments):
        raise MemoryError

    monkeypatch.setattr(ImageFile.ImageFile, "load", fails)
    with pytest.raises(MemoryError):
        open_rgb(encoded(picture()))


@pytest.mark.parametrize("switch", [False, True])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF"])
@pytest.mark.filterwarnings("ignore:Truncated File Read:UserWarning")
def test_no_part_of_a_picture_is_taken_for_the_whole(kind, switch, monkeypatch):
    """Not even where another package has told Pillow to fill what is missing."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", switch)
    data = encoded(noise(64, 64), kind)
    for kept in (len(data) * 9 // 10, len(data) // 2):
        text = failure(open_rgb, data[:kept])
        assert f"<{kept} bytes in the row>" in text
        assert "is damaged or cut short" in text or "header" in text


def test_a_png_with_a_wrong_checksum_is_refused():
    data = bytearray(encoded(noise(64, 64)))
    data[len(data) // 2] ^= 1
    assert "is damaged or cut short (PNG: " in failure(open_rgb, bytes(data))


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's remarks on damaged metadata
@pytest.mark.parametrize("kind", FORMATS)
@settings(max_examples=40, deadline=None)
@given(
    positions=st.lists(st.integers(0, 10_000), max_size=4),
    value=st.integers(0, 255),
    kept=st.floats(0.2, 1.0),
)
def test_whatever_bytes_are_damaged_the_answer_is_a_picture_of_the_told_size_or_a_sample_error(
    kind, positions, value, kept
):
    options = {"exif": exif(6)} if kind in ("JPEG", "PNG", "WEBP") else {}
    data = bytearray(encoded(picture(), kind, **options))
    for position in positions:
        data[position % len(data)] = value
    damaged = bytes(data[: max(1, int(len(data) * kept))])
    try:
        size = header_size(ImageRef(data=damaged), max_pixels=1_000_000)
        opened = open_rgb(damaged, max_pixels=1_000_000)
    except SampleError:
        return
    assert opened.mode == "RGB"
    assert opened.size == size
