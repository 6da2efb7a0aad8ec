"""`smolvlm.media.png_chunks`: a PNG is read however much text it holds, and is not trusted more."""

import io
import struct
import zlib

import pytest
from PIL import Image, PngImagePlugin

from smolvlm.errors import SampleError
from smolvlm.media import png_chunks
from smolvlm.media.images import header_size, open_rgb
from smolvlm.media.png_chunks import MAX_TEXT_BYTES, without_large_text
from smolvlm.records import ImageRef

LARGE = b"x" * (MAX_TEXT_BYTES + 1)
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(*before: bytes, behind: bytes = b"") -> bytes:
    """A picture of 24 x 16 with chunks before and behind its pixels."""
    stream = io.BytesIO()
    image = Image.new("RGB", (24, 16), (9, 90, 200))
    image.save(stream, "PNG")
    data = stream.getvalue()
    return data[:33] + b"".join(before) + data[33:-12] + behind + data[-12:]


def opened(data: bytes) -> Image.Image:
    picture = open_rgb(data)
    assert header_size(ImageRef(data=data)) == picture.size
    return picture


TEXTS = {
    "zTXt": chunk(b"zTXt", b"prompt\0\0" + zlib.compress(LARGE)),
    "iTXt": chunk(b"iTXt", b"prompt\0\1\0en\0\0" + zlib.compress(LARGE)),
    "tEXt": chunk(b"tEXt", b"prompt\0" + LARGE),
    "iCCP": chunk(b"iCCP", b"profile\0\0" + zlib.compress(LARGE)),
    "many": b"".join(chunk(b"tEXt", b"a%d\0" % i + LARGE) for i in range(70)),
    "XMP": chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(XMP + LARGE)),
}


@pytest.mark.parametrize("name", TEXTS)
def test_a_healthy_png_with_much_text_is_read(name):
    for data in (png(TEXTS[name]), png(behind=TEXTS[name])):
        assert opened(data).tobytes() == open_rgb(png()).tobytes()


def test_pillow_alone_refuses_such_a_file():
    """Where this fails the module is no longer needed."""
    with pytest.raises(ValueError, match="MAX_TEXT_CHUNK"):
        Image.open(io.BytesIO(png(TEXTS["zTXt"])))
    assert PngImagePlugin.MAX_TEXT_CHUNK == MAX_TEXT_BYTES


@pytest.mark.parametrize(
    "says_up",
    [
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(XMP)),
    ],
)
def test_which_way_is_up_is_still_read(says_up):
    assert opened(png(says_up)).size == (16, 24)
    assert opened(png(TEXTS["zTXt"], says_up)).size == (16, 24)


def test_small_text_leaves_the_file_as_it_is():
    stream = io.BytesIO(png(chunk(b"tEXt", b"Software\0x")))
    assert without_large_text(stream, up_to_pixels=False) is stream
    assert stream.tell() == 0
    no_png = io.BytesIO(b"GIF89a")
    assert without_large_text(no_png, up_to_pixels=False) is no_png


def test_damage_in_text_is_still_found():
    damaged = bytearray(png(TEXTS["tEXt"]))
    damaged[100] ^= 1
    with pytest.raises(SampleError, match="its header is damaged"):
        open_rgb(bytes(damaged))


def test_a_bomb_of_pixels_is_refused_however_much_text_it_holds():
    data = png(TEXTS["zTXt"])
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    with pytest.raises(SampleError, match="larger than the limit"):
        header_size(ImageRef(data=data[:8] + header + data[33:]))


def test_text_that_inflates_without_end_costs_little():
    endless = zlib.compress(bytes(200 << 20), 9)
    assert opened(png(chunk(b"zTXt", b"a\0\0" + endless))).size == (24, 16)


@pytest.mark.parametrize("name", [b"IDAT", b"tEXt", b"prVt"])
def test_chunks_without_end_are_refused(name, monkeypatch):
    monkeypatch.setattr(png_chunks, "_MAX_CHUNKS", 50)
    few, many = (png(*[chunk(name, b"k\0v" if name == b"tEXt" else b"")] * n) for n in (40, 60))
    assert opened(few).size == (24, 16)
    with pytest.raises(SampleError, match="a PNG of more than 50 chunks"):
        open_rgb(many)
