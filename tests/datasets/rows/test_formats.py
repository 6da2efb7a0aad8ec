"""Rows to conversations: every format, every place a picture can have, every row that is
refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from smolvlm.datasets.rows.formats import to_conversation
from smolvlm.datasets.rows.media import looks_like_media
from smolvlm.datasets.rows.sources import SourceSpec
from smolvlm.errors import SampleError, located
from smolvlm.media.video.frame_folders import list_pictures
from smolvlm.records import Block, Conversation, ImageRef, Turn, VideoRef

ROOT = Path("/pictures")
A, B = ImageRef(path=ROOT / "a.png"), ImageRef(path=ROOT / "b.png")


def convert(row: Any, **columns: str) -> Conversation:
    path = Path("/rows.jsonl")
    spec = SourceSpec(
        name="s", path=path, label="rows.jsonl", format="jsonl", media_root=ROOT, columns=columns
    )
    with located("rows.jsonl:7"):
        return to_conversation(row, spec=spec, where="rows.jsonl:7")


def llava(*turns: tuple[str, str], **columns: Any) -> dict[str, Any]:
    return {"conversations": [{"from": role, "value": text} for role, text in turns], **columns}


def messages(*turns: tuple[str, Any], **columns: Any) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content} for role, content in turns], **columns}


def said(*texts: str) -> list[dict[str, str]]:
    """Messages of the user and the assistant by turns."""
    return [
        {"role": ("user", "assistant")[number % 2], "content": text}
        for number, text in enumerate(texts)
    ]


def user_blocks(conversation: Conversation) -> tuple[Block, ...]:
    return next(turn.blocks for turn in conversation.turns if turn.role == "user")


def test_a_llava_row() -> None:
    row = llava(
        ("system", "Be brief."),
        ("human", "<image>\nWhat is it?"),
        ("gpt", "A cat."),
        ("human", "Why?"),
        ("gpt", "Ears."),
        image="a.png",
        id="17",
        type="video",
    )
    assert convert(row) == Conversation(
        turns=(
            Turn(role="system", blocks=("Be brief.",)),
            Turn(role="user", blocks=(A, "What is it?")),
            Turn(role="assistant", blocks=("A cat.",)),
            Turn(role="user", blocks=("Why?",)),
            Turn(role="assistant", blocks=("Ears.",)),
        ),
        where="rows.jsonl:7",
        source="s",
        unread_keys=("id", "type"),
    )


def test_llava_roles_may_be_called_user_and_assistant() -> None:
    assert [turn.role for turn in convert(llava(("user", "q"), ("assistant", "a"))).turns] == [
        "user",
        "assistant",
    ]


@pytest.mark.parametrize(
    ("text", "images", "blocks"),
    [
        ("<image>\nWhat?", ["a.png"], (A, "What?")),
        ("What?\n<image>", "a.png", ("What?", A)),
        ("<image><image>same?", ["a.png", "b.png"], (A, B, "same?")),
        ("One <image> and <image>.", ["a.png", "b.png"], ("One ", A, " and ", B, ".")),
        ("What?", ["a.png", "b.png"], (A, B, "What?")),
        ("<image>", ["a.png"], (A,)),
        ("", ["a.png"], (A,)),
        (" \n", ["a.png"], (A, " \n")),
        ("What?", [], ("What?",)),
        ("What?", None, ("What?",)),
    ],
)
def test_pictures_go_where_the_marks_are_or_else_in_front(
    text: str, images: Any, blocks: tuple[Block, ...]
) -> None:
    key = "image" if isinstance(images, str) else "images"
    assert user_blocks(convert(llava(("human", text), ("gpt", "x"), **{key: images}))) == blocks
    assert (
        user_blocks(convert(messages(("user", text), ("assistant", "x"), **{key: images})))
        == blocks
    )
    assert user_blocks(convert({"question": text, "answer": "x", key: images})) == blocks
    assert (
        user_blocks(convert({"texts": [{"user": text, "assistant": "x"}], key: images})) == blocks
    )


def test_marks_of_later_turns_take_the_later_pictures() -> None:
    row = llava(
        ("human", "<image>1?"),
        ("gpt", "x"),
        ("human", "2?<image>"),
        ("gpt", "y"),
        image=["a.png", "b.png"],
    )
    conversation = convert(row)
    assert [turn.blocks for turn in conversation.turns] == [(A, "1?"), ("x",), ("2?", B), ("y",)]
    assert conversation.media == (A, B)


def test_without_a_mark_all_pictures_precede_the_first_user_turn_after_the_system() -> None:
    turns = convert(
        llava(
            ("system", "s"),
            ("human", "q"),
            ("gpt", "a"),
            ("human", "r"),
            ("gpt", "b"),
            image="a.png",
        )
    ).turns
    assert [turn.blocks for turn in turns] == [("s",), (A, "q"), ("a",), ("r",), ("b",)]


def test_a_mark_in_an_answer_is_text() -> None:
    row = llava(("human", "<image>which tag?"), ("gpt", "It is <image>."), image="a.png")
    assert [turn.blocks for turn in convert(row).turns] == [(A, "which tag?"), ("It is <image>.",)]


def test_a_mark_in_text_without_pictures_is_text_but_for_llava() -> None:
    assert user_blocks(convert(messages(("user", "the <image> tag"), ("assistant", "x")))) == (
        "the <image> tag",
    )
    assert user_blocks(convert({"question": "the <image> tag", "answer": "x"})) == (
        "the <image> tag",
    )
    with pytest.raises(
        SampleError, match="1 <image> placeholder in the user's turns, 0 images listed"
    ):
        convert(llava(("human", "the <image> tag"), ("gpt", "x")))


def test_typed_blocks_take_listed_and_inline_pictures_and_leave_text_alone() -> None:
    content = [
        {"type": "text", "text": "Is the <image> tag in", "image": None},
        {"type": "image", "text": None},
        {"type": "text", "text": ""},
        {"type": "image", "image": "b.png"},
    ]
    row = messages(
        ("user", content), ("assistant", [{"type": "text", "text": "no"}]), images=["a.png"]
    )
    assert [turn.blocks for turn in convert(row).turns] == [
        ("Is the <image> tag in", A, B),
        ("no",),
    ]


def test_listed_pictures_without_a_typed_place_go_in_front() -> None:
    row = messages(("user", [{"type": "text", "text": "q"}]), ("assistant", "x"), images=["a.png"])
    assert user_blocks(convert(row)) == (A, "q")


def test_answers_are_references_and_the_first_is_learned() -> None:
    conversation = convert({"question": "q", "answers": ["red", "dark red"]})
    assert conversation.turns[-1].blocks == ("red",)
    assert conversation.references == ("red", "dark red")
    both = convert({"question": "q", "answer": "crimson", "answers": ["red"]})
    assert (both.turns[-1].blocks, both.references) == (("crimson",), ("red",))
    assert convert({"question": "q", "answer": "red", "answers": None}).references == ()


def test_several_pairs_are_one_conversation() -> None:
    pairs = [
        {"user": "q", "assistant": "a", "source": "x"},
        {"user": "r", "assistant": "b", "source": "x"},
    ]
    conversation = convert({"images": ["a.png"], "texts": pairs})
    assert [turn.blocks for turn in conversation.turns] == [(A, "q"), ("a",), ("r",), ("b",)]


def test_columns_are_found_under_the_names_of_the_mixture() -> None:
    row = {"query": "q", "label": "x", "img": "a.png", "image_id": 3}
    conversation = convert(row, question="query", answer="label", image="img")
    assert [turn.blocks for turn in conversation.turns] == [(A, "q"), ("x",)]


def test_columns_choose_between_two_formats() -> None:
    row = {**llava(("human", "q"), ("gpt", "x")), "question": "other", "answer": "y"}
    with pytest.raises(
        SampleError, match=r"has `conversations` and `question`\n  fix: .*`\{conversations: conv"
    ):
        convert(row)
    assert user_blocks(convert(row, question="question")) == ("other",)


@pytest.mark.parametrize(
    ("value", "image"),
    [
        ("/pictures/a.png", A),
        ("sub/a.png", ImageRef(path=ROOT / "sub/a.png")),
        (b"\x89PNG", ImageRef(data=b"\x89PNG")),
        ({"bytes": b"\x89PNG", "path": "a.png"}, ImageRef(data=b"\x89PNG")),
        ({"bytes": None, "path": "a.png"}, A),
        ({"path": "a.png"}, A),
    ],
)
def test_a_picture_is_a_path_or_bytes(value: Any, image: ImageRef) -> None:
    assert convert({"question": "q", "answer": "x", "image": value}).media == (image,)
    typed = messages(("user", [{"type": "image", "image": value}]), ("assistant", "x"))
    assert convert(typed).media == (image,)


def test_pictures_outside_their_folder_are_refused_unless_allowed(tmp_path: Path) -> None:
    root = tmp_path / "pictures"
    (root / "sub").mkdir(parents=True)
    (tmp_path / "secret.png").touch()
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    (root / "folder").symlink_to(tmp_path)
    (root / "inner.png").symlink_to(root / "sub")
    spec = SourceSpec(
        name="s", path=tmp_path / "r.jsonl", label="r.jsonl", format="jsonl", media_root=root
    )
    for value in (
        "../secret.png",
        "sub/../../secret.png",
        str(tmp_path / "secret.png"),
        "link.png",
        "folder/secret.png",
    ):
        row = {**QA, "image": value}
        with pytest.raises(SampleError, match=r"^a picture lies outside the folder of media"):
            to_conversation(row, spec=spec, where="r.jsonl:1")
        allowed = to_conversation(
            row, spec=replace(spec, allow_outside_root=True), where="r.jsonl:1"
        )
        assert allowed.media == (ImageRef(path=root / value),)
    for value in ("sub/../a.png", "inner.png", str(root / "a.png")):
        assert to_conversation({**QA, "image": value}, spec=spec, where="r.jsonl:1").media == (
            ImageRef(path=root / value),
        )


def test_links_among_a_folders_frames_are_held_to_the_root_too(tmp_path: Path) -> None:
    root = tmp_path / "media"
    (root / "clip").mkdir(parents=True)
    (root / "elsewhere").mkdir()
    for path in (root / "clip/0.png", root / "elsewhere/in.png", tmp_path / "secret.png"):
        Image.new("RGB", (8, 8)).save(path)
    spec = SourceSpec(
        name="s", path=tmp_path / "r.jsonl", label="r.jsonl", format="jsonl", media_root=root
    )

    def frames(spec: SourceSpec) -> int:
        clip = to_conversation({**QA, "video": "clip"}, spec=spec, where="r.jsonl:1").media[0]
        assert isinstance(clip, VideoRef)
        return len(list_pictures(clip) or ())

    (root / "clip/1.png").symlink_to(root / "elsewhere/in.png")
    assert frames(spec) == 2
    (root / "clip/2.png").symlink_to("../../secret.png")
    with pytest.raises(SampleError, match=r"frame 2\.png of clip .*clip is a link out") as caught:
        frames(spec)
    assert caught.value.kind == "outside_root"
    assert frames(replace(spec, allow_outside_root=True)) == 3


QA = {"question": "q", "answer": "x"}
REFUSED: list[tuple[Any, str]] = [
    (["q", "x"], "the row is a list, not an object\n  fix: write the row as {...}"),
    (None, "the row is missing or null, not an object"),
    (
        {"id": 3, "conversation": []},
        "none of `conversations`, `messages`, `question`, `texts`, `instruction`, nor `chosen` and "
        "`rejected`; its keys are: id, conversation",
    ),
    ({}, "its keys are: none"),
    (
        {"qestion": "q", "answer": "x"},
        "its keys are: qestion, answer\n  fix: did you mean `question` by `qestion`? rename it, or "
        "say so in the source's `columns`: `{question: qestion}`",
    ),
    (
        {"question": "q", "anwser": "x"},
        "the row has a `question` and no `answer`\n  fix: did you mean `answer` by `anwser`?",
    ),
    ({"chosen": "x", "rejcted": "y"}, "without `rejected`\n  fix: did you mean `rejected` by"),
    (
        llava(("human", "<image><image>q"), ("gpt", "x"), image="a.png"),
        "2 <image> placeholders in the user's turns, 1 image listed\n  fix: make the two agree: "
        "`<image>` in a user's text and `{type: image}` blocks are the places",
    ),
    (
        llava(("human", "<image>q"), ("gpt", "x"), image=["a.png", "b.png"]),
        "1 <image> placeholder in the user's turns, 2 images",
    ),
    (
        llava(("human", "q"), ("gpt", "x"), ("humn", "r"), ("gpt", "y")),
        "unknown role 'humn'\n  fix: did you mean `human`?",
    ),
    (
        llava(("tool", "q")),
        "unknown role 'tool'\n  fix: `from` is one of user, human, assistant, gpt, model, bot,",
    ),
    (messages(("Userr", "q")), "unknown role 'Userr'\n  fix: did you mean `user`?"),
    (messages((None, "q")), "unknown role null"),
    (
        {"conversations": "q"},
        "`conversations` is not a list of objects\n  fix: write `conversations` as [{...}, ...]",
    ),
    ({"messages": ["q"]}, "`messages` is not a list of objects"),
    ({"texts": []}, "`texts` is empty"),
    ({"texts": [{"user": "q"}]}, "a pair's `assistant` is missing or null, not text"),
    (
        llava(("human", 3), ("gpt", "x")),
        "a turn's `value` is a number, not text\n  fix: write it as text: in quotes in JSON, a "
        "column of type string in Parquet",
    ),
    (llava(("human", "q"), ("gpt", float("nan"))), "a turn's `value` is NaN, no answer"),
    (
        messages(("user", "q"), ("assistant", None)),
        "a message's `content` is missing or null, not text",
    ),
    ({"question": [3], "answer": "x"}, "`question` is a list, not text"),
    (
        {"question": "q" * (1 << 22 | 1), "answer": "x"},
        "`question` has 4,194,305 characters, more than 4,194,304\n  fix: cut the text",
    ),
    ({"question": "q", "answer": {}}, "the row has a `question` and no `answer`"),
    ({"question": "q", "answer": [["x"]]}, "one of `answers` is a list, not text"),
    ({"question": "q"}, "the row has a `question` and no `answer`"),
    ({"question": "q", "answers": []}, "`answers` is empty\n  fix: write a list of texts"),
    ({"question": "q", "answers": "x"}, "`answers` is text"),
    ({"question": "q", "answers": ["x", ["y"]]}, "one of `answers` is a list, not text"),
    ({"question": "q", "answer": " "}, "the answer is empty"),
    (
        {"question": "", "answer": "x"},
        "an empty user turn\n  fix: give it text, or take the turn out of the row",
    ),
    (llava(("human", "q"), ("gpt", "\n")), "an empty assistant turn"),
    (messages(("user", "q"), ("assistant", [])), "an empty assistant turn"),
    (llava(("system", ""), ("human", "q"), ("gpt", "x")), "an empty system turn"),
    (
        llava(("human", "q")),
        "no assistant turn, so nothing to learn\n  fix: add the answer, or take the row out",
    ),
    (llava(("gpt", "x"), ("human", "q"), ("gpt", "y")), "the assistant speaks first"),
    (
        llava(("human", "q"), ("human", "r"), ("gpt", "y")),
        "two user turns in a row\n  fix: join them",
    ),
    (llava(("human", "q"), ("gpt", "x"), ("gpt", "y")), "two assistant turns in a row"),
    (
        llava(("human", "q"), ("gpt", "x"), ("human", "r")),
        "the last turn is the user's, with no answer",
    ),
    (llava(("human", "q"), ("system", "s"), ("gpt", "x")), "a system turn after the first turn"),
    (
        messages(("user", [{"type": "audio"}]), ("assistant", "x")),
        "unknown type of content block: 'audio'",
    ),
    (messages(("user", [{"type": "imag"}]), ("assistant", "x")), "fix: did you mean `image`?"),
    (
        messages(("user", [3]), ("assistant", "x")),
        "a content block is a number\n  fix: write blocks as {type: text, text: ...}",
    ),
    (
        messages(("user", [{"type": "text"}]), ("assistant", "x")),
        "a text block's `text` is missing or null",
    ),
    (
        messages(("user", "q"), ("assistant", [{"type": "image", "image": "a.png"}])),
        "a picture in the assistant's turn",
    ),
    (
        messages(("user", [{"type": "image"}]), ("assistant", "x")),
        "1 <image> placeholder in the user's turns, 0 images listed",
    ),
    (
        messages(
            ("user", [{"type": "image", "image": "b.png"}]), ("assistant", "x"), images=["a.png"]
        ),
        "0 <image> placeholders in the user's turns, 1 image listed",
    ),
    (
        {**QA, "img_file": "a.png"},
        "unknown key `img_file` looks like media\n  fix: name it in the source's `columns`: "
        "`{image: img_file}`",
    ),
    (
        {**QA, "image": "a.png", "image_path": "b.png"},
        "unknown key `image_path` looks like media\n  fix: name it in the source's `columns`: "
        "`{images: [image, image_path]}`",
    ),
    ({**QA, "img": "a.png", "photo": "b.png"}, "unknown key `img` looks like media"),
    ({**QA, "my: key": "a.png"}, "`{image: 'my: key'}`"),
    ({**QA, "audio": {"bytes": b"x"}}, "`audio` is sound, which no SmolVLM model hears"),
    ({**QA, "speech": "a.mp3"}, "`speech` is sound"),
    ({**QA, "video": "a.png"}, "a clip is a picture by its name, '/pictures/a.png'"),
    ({**QA, "image": "a.png", "images": ["b.png"]}, "both `image` and `images` are given"),
    ({**QA, "image": ""}, "a picture is an empty text\n  fix: give a path, or encoded bytes"),
    ({**QA, "image": ["a.png", None]}, "a picture is null"),
    ({**QA, "image": 3}, "a picture is of type int"),
    (
        {**QA, "image": {"bytes": None, "path": None}},
        "a picture is an object without bytes, a path or an address\n  fix: give one of them, or "
        "null in a row without it; its keys are: bytes, path",
    ),
    (
        {**QA, "image": "https://example.org/a.png"},
        "a picture is an address, 'https://example.org/a.png'\n  fix: download it and give the "
        "file's path, or set "
        "`data.allow_urls: true` if you trust the rows",
    ),
    (
        {**QA, "image": "s3://bucket/a.png"},
        "a picture is an address, 's3://bucket/a.png'\n  fix: download it and give",
    ),
    ({**QA, "image": "data:image/png;base64,A"}, "a picture is embedded as base64 text that is d"),
    ({**QA, "image": "data:image/png,A"}, "a picture is a data URI that is not base64"),
    (
        llava(("human", "<video>\nq"), ("gpt", "x"), video=["a.mp4", "b.mp4"]),
        "1 <video> placeholder in the user's turns, 2 videos",
    ),
    (
        llava(("human", "<image>\nq"), ("gpt", "x"), image="a.png", video="a.mp4"),
        "0 <video> placeholders in the user's turns, 1",
    ),
    (
        messages(("user", [{"type": "video"}]), ("assistant", "x")),
        "1 <video> placeholder in the user's turns, 0 videos",
    ),
    (
        messages(("user", "q"), ("assistant", [{"type": "video", "path": "a.mp4"}])),
        "a clip in the assistant's turn",
    ),
    ({**QA, "video": "a.mp4", "videos": ["a.mp4"]}, "both `video` and `videos` are given"),
    ({**QA, "video": {"frames": []}}, "a clip is an empty list of frames"),
    ({**QA, "video": ""}, "a clip is an empty text"),
    ({**QA, "video": "https://example.org/a.mp4"}, "a clip is an address"),
    ({**QA, "video": "../a.mp4"}, "a clip lies outside the folder of media"),
    ({**QA, "video": ["a.png", "../b.png"]}, "a picture lies outside the folder of media"),
    ({**QA, "video": "a.mp4", "start_s": 5, "end_s": 5}, "start_s=5 is not before end_s=5"),
    ({**QA, "video": "a.mp4", "start_s": -1}, "`start_s` is -1, no time in seconds"),
    ({**QA, "video": "a.mp4", "end_s": "five"}, "`end_s` is 'five', no time in seconds"),
    ({**QA, "videos": ["a.mp4", "b.mp4"], "start_s": 1}, "`start_s` or `end_s` beside 2 clips"),
    (
        {**QA, "video": {"path": "a.mp4", "start_s": 1}, "end_s": 3},
        "`start_s` or `end_s` stands twice",
    ),
    ({"prompt": "q", "chosen": "x"}, "a preference row without `rejected`"),
    ({"prompt": "q", "chosen": "x", "rejected": "x"}, "`chosen` and `rejected` are the same"),
    ({"prompt": "q", "chosen": "x", "rejected": " "}, "an empty assistant turn"),
    ({"prompt": "q", "chosen": {"a": 3}, "rejected": "y"}, "`chosen` is an object, not text"),
    ({"chosen": "x", "rejected": "y"}, "`chosen` is text, and there is no `prompt`"),
    (
        {"prompt": "<image>", "chosen": "x", "rejected": "y", "images": ["a.png", "b.png"]},
        "1 <image> placeholder in the",
    ),
    (
        {"chosen": said("q", "x"), "rejected": said("other", "y")},
        "`chosen` and `rejected` do not answer the same prompt",
    ),
    (
        {"chosen": said("q", "x"), "rejected": said("q", "x", "r", "y")},
        "`chosen` and `rejected` do not answer the same prompt",
    ),
    (
        {
            "chosen": said("q", "x", "<image>", "y"),
            "rejected": said("q", "z", "<image>", "y"),
            "image": "a.png",
        },
        "a picture or clip after the place where `chosen` and `rejected` part",
    ),
    (
        {"question": "half \ud800", "answer": "x"},
        "`question` holds half a character (a lone surrogate)",
    ),
]


@pytest.mark.parametrize(("row", "message"), REFUSED, ids=[message[:40] for _, message in REFUSED])
def test_a_row_that_cannot_be_trained_on_says_where_why_and_how_to_mend_it(
    row: Any, message: str
) -> None:
    with pytest.raises(SampleError) as caught:
        convert(row)
    assert str(caught.value).startswith("rows.jsonl:7: ")
    assert message in str(caught.value)
    assert caught.value.fix


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "<image>q", "chosen": "x", "rejected": "y"},
        {"prompt": said("<image>q"), "chosen": [said("", "x")[1]], "rejected": "y"},
        {"prompt": "q", "chosen": "x", "rejected": "y"},
        {"chosen": said("<image>q", "x"), "rejected": said("<image>q", "y")},
    ],
)
def test_preference_rows(row: Any) -> None:
    found = convert({**row, "images": ["a.png"]})
    asked = Turn(role="user", blocks=(A, "q"))
    assert found.turns == (asked, Turn(role="assistant", blocks=("x",)))
    assert found.rejected == (asked, Turn(role="assistant", blocks=("y",)))
    assert found.num_shared_turns == 1
    assert found.media == (A,)


def test_a_preference_between_later_turns() -> None:
    prompt = [{"role": "system", "content": "s"}, *said("q", "a", "r")]
    found = convert(
        {"prompt": prompt, "chosen": said("", "x")[1:], "rejected": said("", "y", "t", "z")[1:]}
    )
    assert found.num_shared_turns == 4
    assert [turn.blocks for turn in found.rejected[4:]] == [("y",), ("t",), ("z",)]


C, D = VideoRef(path=ROOT / "c.mp4"), VideoRef(path=ROOT / "d.mp4")


@pytest.mark.parametrize(
    ("text", "media", "blocks"),
    [
        ("<video>\nWhat?", {"video": "c.mp4"}, (C, "What?")),
        ("What?\n<video>", {"videos": ["c.mp4"]}, ("What?", C)),
        ("What?", {"video": "c.mp4"}, (C, "What?")),
        ("<image>\nWhat?", {"video": "c.mp4"}, (C, "What?")),
        ("<video> or <video>?", {"videos": ["c.mp4", "d.mp4"]}, (C, " or ", D, "?")),
        (
            "Is <image> in <video>?",
            {"image": "a.png", "video": "c.mp4"},
            ("Is ", A, " in ", C, "?"),
        ),
        ("Is it there?", {"images": ["a.png"], "videos": ["c.mp4"]}, (A, C, "Is it there?")),
    ],
)
def test_clips_go_where_the_marks_are_or_else_in_front(
    text: str, media: Any, blocks: tuple[Block, ...]
) -> None:
    assert user_blocks(convert(llava(("human", text), ("gpt", "x"), **media))) == blocks
    assert user_blocks(convert(messages(("user", text), ("assistant", "x"), **media))) == blocks
    assert user_blocks(convert({"question": text, "answer": "x", **media})) == blocks
    assert user_blocks(convert({"texts": [{"user": text, "assistant": "x"}], **media})) == blocks


@pytest.mark.parametrize(
    ("value", "clip"),
    [
        ("c.mp4", C),
        ("frames/of_c", VideoRef(path=ROOT / "frames/of_c")),
        (
            {"path": "c.mp4", "start_s": 1, "end_s": 2.5},
            VideoRef(path=ROOT / "c.mp4", start_s=1.0, end_s=2.5),
        ),
        ({"bytes": b"clip", "path": None}, VideoRef(data=b"clip")),
        (b"clip", VideoRef(data=b"clip")),
        (["b.png", "a.png"], VideoRef(frames=(B, A))),
        (
            {"frames": ["a.png", {"bytes": b"x", "path": None}]},
            VideoRef(frames=(A, ImageRef(data=b"x"))),
        ),
    ],
)
def test_what_names_a_clip(value: Any, clip: VideoRef) -> None:
    assert convert({"question": "q", "answer": "x", "video": value}).media == (clip,)
    key = "path" if isinstance(value, str) else "video"
    typed = messages(
        ("user", [{"type": "video", key: value}, {"type": "text", "text": "q"}]), ("assistant", "x")
    )
    assert convert(typed).media == (clip,)
    listed = messages(
        ("user", [{"type": "video"}, {"type": "text", "text": "q"}]),
        ("assistant", "x"),
        videos=[value],
    )
    assert convert(listed).media == (clip,)


def test_times_stand_in_the_row_or_in_the_block() -> None:
    part = VideoRef(path=ROOT / "c.mp4", start_s=2.0)
    assert convert({**QA, "video": "c.mp4", "start_s": 2, "end_s": None}).media == (part,)
    block = {"type": "video", "path": "c.mp4", "start_s": 2}
    assert convert(messages(("user", [block]), ("assistant", "x"))).media == (part,)


def test_frames_come_at_the_rate_of_their_source() -> None:
    path = Path("/rows.jsonl")
    spec = SourceSpec(
        name="s", path=path, label="r.jsonl", format="jsonl", media_root=ROOT, source_fps=2.5
    )
    (clip,) = to_conversation({**QA, "video": ["a.png"]}, spec=spec, where="r.jsonl:1").media
    assert clip == VideoRef(frames=(A,), source_fps=2.5)


def test_a_column_that_the_mixture_names_must_be_in_every_row() -> None:
    with pytest.raises(
        SampleError,
        match=r"no column `qery`, which `columns` names as `question`\n  fix: did you mean `query`",
    ):
        convert({"query": "q", "answer": "x"}, question="qery")


def test_other_keys_may_look_like_media_once_the_column_is_named() -> None:
    row = {**QA, "image": "a.png", "image_url": "https://example.org/a.png"}
    assert convert(row, image="image").media == (A,)


@pytest.mark.parametrize(
    "key",
    ["img", "imgs", "picture", "Photo", "image_path", "image-file", "imagefile", "audios", "clip"],
)
def test_keys_that_look_like_media(key: str) -> None:
    assert looks_like_media(key)


@pytest.mark.parametrize(
    "key",
    ["image_id", "image_width", "id", "imagery", "caption", "frame_rate", "duration", "source"],
)
def test_keys_that_do_not(key: str) -> None:
    assert not looks_like_media(key)
