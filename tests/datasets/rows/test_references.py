"""What names one picture or clip: paths, addresses, bytes, base64, objects with one of them."""

import base64
import io
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from PIL import Image

from smolvlm.errors import SampleError
from smolvlm.records import ImageRef, VideoRef
from tests.datasets.rows.row_cases import QA, ROOT, A, convert, media, messages


def encoded(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), (200, 40, 60)).save(buffer, kind)
    return buffer.getvalue()


PNG, JPEG = encoded("PNG"), encoded("JPEG")
MP4 = b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41" + bytes(64)
TEXT = base64.b64encode(PNG).decode()
URI = f"data:image/png;base64,{TEXT}"
LINES = "\n".join(TEXT[start : start + 76] for start in range(0, len(TEXT), 76))


@pytest.mark.parametrize(
    "value",
    [
        PNG,
        TEXT,
        URI,
        LINES,
        TEXT.encode(),
        URI.encode(),
        URI.replace("data", "DATA"),
        {"bytes": URI},
        {"base64": URI},
        {"bytes": PNG},
        {"bytes": PNG, "path": "a.png"},
        {"bytes": TEXT},
        {"bytes": LINES, "path": None},
        {"base64": TEXT},
        {"b64_json": TEXT},
        {"data": PNG},
        {"url": URI},
        {"image_url": {"url": URI}},
        {"type": "base64", "media_type": "image/png", "data": TEXT},
    ],
    ids=range(19),
)
def test_bytes_however_they_are_written(value: Any) -> None:
    shown = (ImageRef(data=PNG),)
    assert media({**QA, "image": value}) == shown
    block = {"type": "image", "image": value}
    assert media(messages(("user", [block]), ("assistant", "x"))) == shown
    assert convert({**QA, "image": value}).unread_keys == ()


@pytest.mark.parametrize(
    "value",
    [
        "a.png",
        f"file://{quote(str(ROOT))}/a.png",
        {"path": "a.png"},
        {"url": "a.png"},
        {"url": f"file://{ROOT}/a.png"},
        {"image_url": {"url": "a.png"}},
        {"file_name": "a.png"},
        {"bytes": None, "path": "a.png"},
    ],
)
def test_paths_however_they_are_written(value: Any) -> None:
    assert media({**QA, "image": value}) == (A,)


@pytest.mark.parametrize(
    "block",
    [
        {"type": "image", "image": "a.png"},
        {"type": "image", "path": "a.png"},
        {"type": "image", "url": "a.png"},
        {"type": "image_url", "image_url": {"url": "a.png"}},
        {"type": "image_url", "image_url": "a.png"},
        {"type": "input_image", "image_url": "a.png"},
        {"type": "image", "source": {"type": "url", "url": "a.png"}},
        {"type": "image", "bytes": PNG, "path": "a.png"},
        {"type": "image", "base64": TEXT},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": TEXT}},
    ],
)
def test_blocks_of_other_programs(block: dict[str, Any]) -> None:
    texts = [{"type": "input_text", "text": "q"}]
    conversation = convert(messages(("user", [block, *texts]), ("assistant", "x")))
    (shown,) = conversation.media
    assert shown in (A, ImageRef(data=PNG))
    assert conversation.unread_keys == ()


def test_what_an_object_says_besides_is_named() -> None:
    value = {"path": "a.png", "width": 40, "detail": "high"}
    assert convert({**QA, "image": value}).unread_keys == ("image.detail", "image.width")


def test_a_clip_in_base64() -> None:
    text = base64.b64encode(MP4).decode()
    for value in (text, f"data:video/mp4;base64,{text}", {"bytes": text, "path": "c.mp4"}):
        assert media({**QA, "video": value}) == (VideoRef(data=MP4),)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (f"data:image/png;base64,{TEXT[:-1]}", "embedded as base64 text that is damaged"),
        ("data:image/png;base64,", "is empty base64 text"),
        (TEXT + "!", "embedded as base64 text that is damaged"),
        ({"base64": 3}, "is of type int"),
        ({"base64": TEXT, "path": "a.png"}, "has both `path` and bytes as text"),
        ({"url": "a.png", "path": "b.png"}, "`image.path` and `image.url` both give the file"),
        ({"width": 3}, "an object without bytes, a path or an address"),
    ],
)
def test_what_names_nothing_says_why(value: Any, message: str) -> None:
    with pytest.raises(SampleError) as caught:
        convert({**QA, "image": value})
    assert message in caught.value.what
    assert caught.value.fix


def test_long_values_are_cut_in_messages() -> None:
    long = "x" * 2_000_000
    for row in (
        {**QA, "image": f"https://example.org/{long}"},
        {**QA, "image": f"../{long}"},
        {**QA, "image": TEXT + "!" + long},
        {**QA, "video": "c.mp4", "start_s": long},
        {"messages": [{"role": long, "content": "q"}]},
        messages(("user", [{"type": long}]), ("assistant", "x")),
        {long: 1},
    ):
        with pytest.raises(SampleError) as caught:
            convert(row)
        assert len(str(caught.value)) < 1000


def test_a_null_byte_and_a_name_too_long_are_names_of_nothing(tmp_path: Path) -> None:
    for name in ("a\0b", "y" * 900):
        assert convert({**QA, "scene": name}, root=tmp_path).unread_keys == ("scene",)


def test_a_jpeg_is_told_from_text() -> None:
    text = base64.b64encode(JPEG).decode()
    assert media({**QA, "image": text}) == (ImageRef(data=JPEG),)


@pytest.mark.parametrize("letters", ["é", "×", "０", "\ud800"])
@pytest.mark.parametrize("at", [0, 7, 40])
def test_base64_with_other_letters_is_damaged(letters: str, at: int) -> None:
    text = TEXT[:at] + letters + TEXT[at:]
    for value in (f"data:image/png;base64,{text}", {"base64": text}):
        with pytest.raises(SampleError, match="base64 text that is damaged"):
            convert({**QA, "image": value})


def test_text_beyond_ascii_under_other_keys_is_no_picture() -> None:
    assert convert({**QA, "note": TEXT[:40] + "é" * 200}).unread_keys == ("note",)


@pytest.mark.parametrize("value", ["file://[x", "file://]x/a.png", "FILE://[::1/a.png"])
def test_a_file_address_without_a_host_that_can_be_is_refused(value: str) -> None:
    for row in ({**QA, "image": value}, {**QA, "video": value}):
        with pytest.raises(SampleError, match="is no address of a file"):
            convert(row)
