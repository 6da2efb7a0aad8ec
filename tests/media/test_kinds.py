"""`smolvlm.media.kinds`: what bytes are is said by name, with what to do about it."""

import io
import struct

import pytest
from PIL import Image, features

from smolvlm.errors import SampleError
from smolvlm.media.images import header_size, open_rgb
from smolvlm.media.kinds import begins_like_clip, begins_like_picture, is_picture_ending
from smolvlm.media.video.index import read_index
from smolvlm.records import ImageRef, VideoRef


def ftyp(brand: bytes, *others: bytes) -> bytes:
    body = b"ftyp" + brand + bytes(4) + b"".join(others)
    return struct.pack(">I", len(body) + 4) + body + bytes(40)


def tiff(*tags: tuple[int, int]) -> bytes:
    """A gray TIFF of 2 x 2 with further tags, each one LONG."""
    wanted = {256: 2, 257: 2, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: 2}
    wanted |= {279: 4} | dict(tags)
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, wanted[tag]) for tag in sorted(wanted))
    header = b"II*\0" + struct.pack("<I", 12) + bytes([0, 80, 160, 240])
    return header + struct.pack("<H", len(wanted)) + entries + bytes(4)


FOREIGN = {
    "heic": (ftyp(b"heic", b"mif1", b"heic"), "a HEIC (HEIF) picture", "pip install pillow-heif"),
    "mif1": (ftyp(b"mif1", b"heic"), "a HEIC (HEIF) picture", "convert it to JPEG"),
    "jpeg xl": (b"\xff\x0a" + bytes(30), "a JPEG XL picture", "convert it to JPEG or PNG"),
    "jpeg xl in boxes": (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(30), "a JPEG XL picture", "convert"),
    "svg": (b'<?xml version="1.0"?>\n<!-- a --><svg width="9">', "an SVG drawing", "render it"),
    "pdf": (b"%PDF-1.7\n", "a PDF document", "render its pages to PNG"),
    "psd": (b"8BPS\0\1" + bytes(30), "a Photoshop file (PSD)", "convert it"),
    "ico": (b"\0\0\1\0\1\0" + bytes(30), "an icon file (ICO)", "convert it"),
    "eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n", "an EPS or PostScript file", "render its pages"),
    "cr2": (b"II*\0\x10\0\0\0CR\2\0" + bytes(30), "a camera RAW file", "develop it"),
    "cr3": (ftyp(b"crx ", b"isom"), "a camera RAW file", "develop it"),
    "raf": (b"FUJIFILMCCD-RAW 0201" + bytes(30), "a camera RAW file", "develop it"),
    "dng": (tiff((50706, 0x401)), "a camera RAW file", "develop it"),
    "nef": (tiff((254, 1)), "a camera RAW file", "develop it"),
    "lfs": (
        b"version https://git-lfs.github.com/spec/v1\noid",
        "a Git LFS pointer",
        "git lfs pull",
    ),
}


@pytest.mark.parametrize("action", [header_size, open_rgb])
@pytest.mark.parametrize("name", FOREIGN)
def test_bytes_of_a_known_kind_are_called_by_its_name(name, action, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pillow_heif", None)
    data, what, fix = FOREIGN[name]
    with pytest.raises(SampleError) as raised:
        action(ImageRef(data=data))
    assert f"<{len(data)} bytes in the row> is {what}" in str(raised.value)
    assert fix in str(raised.value.fix)
    assert raised.value.kind == "corrupt_media"


def test_a_tiff_without_those_tags_is_a_picture():
    assert open_rgb(tiff((254, 0))).getpixel((1, 0)) == (80, 80, 80)


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow is built without AVIF")
def test_avif_is_read_under_any_of_its_brands():
    stream = io.BytesIO()
    Image.new("RGB", (16, 8), (200, 0, 0)).save(stream, "AVIF")
    data = stream.getvalue()
    for brand in (b"avif", b"mif1"):
        assert open_rgb(data[:8] + brand + data[12:]).size == (16, 8)
    assert begins_like_picture(data)
    assert not begins_like_clip(data)


def test_avif_that_pillow_cannot_read_is_said_so(monkeypatch):
    monkeypatch.setattr(features, "check", lambda _name: False)
    with pytest.raises(SampleError, match="AVIF picture, which this build of Pillow cannot read"):
        header_size(ImageRef(data=ftyp(b"avif", b"mif1")))


@pytest.mark.parametrize(
    "begin",
    [ftyp(b"isom", b"mp42"), ftyp(b"qt  "), b"\x1aE\xdf\xa3" + bytes(9), b"RIFF\0\0\0\0AVI LIST"],
)
def test_a_clip_in_a_pictures_place_is_sent_to_video(begin):
    with pytest.raises(SampleError) as raised:
        header_size(ImageRef(data=begin))
    assert raised.value.fix == "it looks like a clip: name it as `video`"


@pytest.mark.parametrize("brand", [b"heic", b"mif1", b"avif"])
def test_a_still_picture_in_a_clips_place_is_sent_to_image(brand):
    with pytest.raises(SampleError) as raised:
        read_index(VideoRef(data=ftyp(brand)))
    assert "it is a picture: name it as `image`" in str(raised.value.fix)


def test_another_kind_in_a_clips_place_is_called_by_its_name():
    with pytest.raises(SampleError, match="is a PDF document"):
        read_index(VideoRef(data=b"%PDF-1.7\n" + bytes(100)))


def test_pictures_that_need_another_reader_are_pictures_by_their_names():
    assert all(is_picture_ending(ending) for ending in ("jpg", "avif", "heic", "heif", "jxl"))
    assert not any(is_picture_ending(ending) for ending in ("mp4", "pdf", "json", ""))


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_heic_is_read_upright_where_its_reader_is_installed(orientation):
    heif = pytest.importorskip("pillow_heif")
    heif.register_heif_opener()
    upright = Image.new("RGB", (64, 32), (0, 0, 200))
    upright.paste((200, 0, 0), (0, 0, 16, 16))
    undo = {1: None, 3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90}
    undo[8] = Image.Transpose.ROTATE_270
    turn = undo[orientation]
    exif = Image.Exif()
    exif[274] = orientation
    stream = io.BytesIO()
    stored = upright if turn is None else upright.transpose(turn)
    stored.save(stream, "HEIF", exif=exif.tobytes(), quality=95)
    opened = open_rgb(stream.getvalue())
    assert header_size(ImageRef(data=stream.getvalue())) == opened.size == (64, 32)
    red, _, blue = opened.getpixel((4, 4))
    assert red > 150 > blue
    red, _, blue = opened.getpixel((60, 28))
    assert blue > 150 > red


COMPRESSION, ORIENTATION = 0x0103, 0x0112


def with_orientation_in_exif(data: bytes) -> bytes:
    """Return an encoded picture whose EXIF calls orientation what it called compression.

    Encoders take the orientation out of EXIF and write it to the container.
    """
    for order in "<>":
        before, after = (struct.pack(f"{order}HH", tag, 3) for tag in (COMPRESSION, ORIENTATION))
        if data.count(before) == 1:
            return data.replace(before, after)
    raise AssertionError("no such EXIF")


@pytest.mark.parametrize("kind", ["AVIF", "HEIF"])
@pytest.mark.parametrize("written", [3, 6])
@pytest.mark.parametrize("in_container", [1, 6])
def test_heif_and_avif_are_turned_by_their_container_and_not_by_exif(kind, written, in_container):
    if kind == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    picture = Image.new("RGB", (64, 32), (0, 0, 200))
    picture.paste((200, 0, 0), (0, 0, 16, 16))
    exif, stream = Image.Exif(), io.BytesIO()
    exif[COMPRESSION] = written
    if in_container != 1:
        exif[ORIENTATION] = in_container
    picture.save(stream, kind, exif=exif.tobytes(), quality=95)
    data = with_orientation_in_exif(stream.getvalue())
    assert (b"irot" in data) == (in_container == 6)
    opened = open_rgb(data)
    size = (64, 32) if in_container == 1 else (32, 64)
    assert header_size(ImageRef(data=data)) == opened.size == size
    corner = (4, 4) if in_container == 1 else (28, 4)
    red, _, blue = opened.getpixel(corner)
    assert red > 150 > blue
