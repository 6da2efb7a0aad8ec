"""Marks in texts: which are places, and what is left of the text around them."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smolvlm.datasets.rows.marks import Place, other_marks, split_at_marks
from smolvlm.errors import SampleError
from tests.datasets.rows.row_cases import A, B, convert, messages, user_blocks

PICTURE = Place("image")
LINES = st.lists(
    st.text(alphabet="ab \t<>").filter(lambda line: "<image>" not in line)
    | st.sampled_from(["<image>", "<image><image>", " <image> ", "x <image>", ""]),
    min_size=1,
)


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("<image>\nWhat?", (PICTURE, "What?")),
        ("What?\n<image>", ("What?", PICTURE)),
        ("<image>\n<image>\nWhat?", (PICTURE, PICTURE, "What?")),
        ("<image><image>\nWhat?", (PICTURE, PICTURE, "What?")),
        ("<image> \nWhat?", (PICTURE, "What?")),
        ("<image>\r\nWhat?", (PICTURE, "What?")),
        ("What?\r\n<image>", ("What?", PICTURE)),
        ("One:\n<image>\nTwo.", ("One:", PICTURE, "Two.")),
        ("<image>\n\nWhat?", (PICTURE, "\nWhat?")),
        ("<image> What?\nSay.", (PICTURE, " What?\nSay.")),
        ("See <image>\nWhat?", ("See ", PICTURE, "\nWhat?")),
        ("A\nB", ("A\nB",)),
        ("<image>\n", (PICTURE,)),
    ],
)
def test_a_mark_alone_on_its_line_takes_its_newlines_along(
    text: str, pieces: tuple[Any, ...]
) -> None:
    assert split_at_marks(text) == pieces
    kept = split_at_marks(text, keeps_newlines=True)
    assert "".join("<image>" if piece == PICTURE else str(piece) for piece in kept) == text


@settings(deadline=None)
@given(lines=LINES)
def test_only_lines_of_marks_lose_anything(lines: list[str]) -> None:
    text = "\n".join(lines)
    pieces = split_at_marks(text)
    assert sum(piece == PICTURE for piece in pieces) == text.count("<image>")
    said = "".join("<image>" if piece == PICTURE else str(piece) for piece in pieces)
    assert "".join(said.split()) == "".join(text.split())
    for line in lines:
        if "<image>" not in line or line.replace("<image>", "").strip():
            assert line.removesuffix("\r") in said
    assert text.count("\n") - said.count("\n") <= 2 * sum("<image>" in line for line in lines)


def test_every_format_drops_the_newline_and_keeps_it_where_asked() -> None:
    text = "<image>\nWhat?"
    rows = [
        {"conversations": [{"from": "human", "value": text}, {"from": "gpt", "value": "x"}]},
        messages(("user", text), ("assistant", "x")),
        messages(("user", [{"type": "text", "text": text}]), ("assistant", "x")),
        {"question": text, "answer": "x"},
        {"instruction": text, "output": "x"},
        {"texts": [{"user": text, "assistant": "x"}]},
        {"prompt": text, "chosen": "x", "rejected": "y"},
    ]
    for row in rows:
        assert user_blocks({**row, "image": "a.png"}) == (A, "What?")
        kept = user_blocks({**row, "image": "a.png"}, keeps_mark_newlines=True)
        assert kept == (A, "\nWhat?")


def asked(text: str, *images: str, **source: Any) -> tuple[Any, ...]:
    return user_blocks(messages(("user", text), ("assistant", "x"), images=[*images]), **source)


@pytest.mark.parametrize("mark", ["<image {}>", "<image_{}>", "<image{}>", "<|image_{}|>"])
def test_numbered_marks_that_name_each_picture_once_are_places(mark: str) -> None:
    text = f"Is {mark.format(2)} left of {mark.format(1)}?"
    assert asked(text, "a.png", "b.png") == ("Is ", B, " left of ", A, "?")
    for wrong in (text + mark.format(1), f"Is {mark.format(1)}?", mark.format(0) + mark.format(1)):
        with pytest.raises(SampleError, match="while nothing says where the row's media go"):
            asked(wrong, "a.png", "b.png")


OTHERS = [
    *("<IMAGE>", "<Image>", "<img>", "<image_pad>", "<|image_pad|>", "<|image|>"),
    *("<|vision_start|>", "<start_of_image>", "<image_soft_token>", "<video_1>", "[IMG]"),
    *("< image >", "<image/>", "<video />", "{image}", "{{ image_1 }}", "&lt;image&gt;"),
    *("\\<image\\>", "![a cat](cat.png)", "![](a.png)", "<im_start>", "<im_patch>"),
    *("<picture>", "<image_placeholder>", "<ImageHere>", "<|video_pad|>", "[image 1]"),
]


@pytest.mark.parametrize("mark", OTHERS)
def test_another_spelling_is_an_error_while_the_media_have_no_place(mark: str) -> None:
    assert other_marks(f"a {mark} b") == (mark,)
    with pytest.raises(SampleError) as caught:
        asked(f"{mark} What?", "a.png")
    assert f"`{mark}` in the user's text" in caught.value.what
    assert caught.value.kind == "placeholder_mismatch"
    assert asked(f"{mark} What?", "a.png", media_markers="distinct") == (A, f"{mark} What?")
    assert asked(f"<image>{mark}?", "a.png") == (A, f"{mark}?")
    assert asked(f"{mark} What?") == (f"{mark} What?",)


@pytest.mark.parametrize(
    "text",
    ["<b>", "a < b > c", "<imagery>", "[images]", "image", "{imagery}", "{x}", "[a](b.png)", "a!"],
)
def test_other_text_is_no_mark(text: str) -> None:
    assert other_marks(text) == ()


def test_media_that_the_text_gives_no_place_are_noted() -> None:
    assert convert(messages(("user", "q"), ("assistant", "x"), image="a.png")).has_unplaced_media
    placed = messages(("user", "<image>q"), ("assistant", "x"), image="a.png")
    assert not convert(placed).has_unplaced_media
    assert not convert(messages(("user", "q"), ("assistant", "x"))).has_unplaced_media
