"""No key of a row is passed over: each is read, refused by its name, or named as not read."""

import base64
import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from smolvlm.datasets.rows.keys import (
    COLUMN_NAMES,
    END_KEYS,
    FRAME_CHOICE_KEYS,
    REFUSED_IN_BLOCKS,
    REFUSED_IN_QUESTIONS,
    REFUSED_IN_ROWS,
    REFUSED_IN_TURNS,
    START_KEYS,
    SYSTEM_KEYS,
    WEIGHT_KEYS,
)
from smolvlm.errors import SampleError
from smolvlm.records import Conversation
from tests.datasets.rows.row_cases import QA, A, B, convert, media, messages


def encoded(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), (200, 40, 60)).save(buffer, kind)
    return buffer.getvalue()


PNG = encoded("PNG")
MP4 = b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41" + bytes(64)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "no_ending").write_bytes(PNG)
    (tmp_path / "with space.png").write_bytes(PNG)
    (tmp_path / "clips/one").mkdir(parents=True)
    (tmp_path / "clips/one/0001.png").write_bytes(PNG)
    (tmp_path / "notes").write_text("no picture")
    (tmp_path / "train").mkdir()
    (tmp_path / "index.ts").write_text("let a = 1")
    return tmp_path


LOST: list[Any] = [
    "a.png",
    "deep/er/A.JPEG",
    "clip.mp4",
    "https://example.org/b.webp?size=2",
    "no_ending",
    "with space.png",
    "clips/one",
    PNG,
    MP4,
    encoded("GIF"),
    encoded("TIFF"),
    {"bytes": PNG, "path": None},
    {"bytes": None, "path": "x.png"},
    [{"path": "x.png"}],
    {"deep": {"deeper": ["text", "x.png"]}},
    base64.b64encode(PNG).decode(),
    "data:image/png;base64," + base64.b64encode(PNG).decode(),
    "data:video/mp4;base64," + base64.b64encode(MP4).decode(),
    base64.b64encode(MP4).decode(),
]
KEPT: list[Any] = [
    "a text",
    "",
    "a sentence about cat.png",
    "notes",
    "train",
    "index.ts",
    "absent.ts",
    "https://example.org/page",
    "data:text/plain,x",
    17,
    2.5,
    False,
    [1, 2, 3],
    {"width": 3},
    b"some bytes of another kind",
    base64.b64encode(b"no picture at all, and rather long at that").decode(),
    "x" * 5000,
]


@pytest.mark.parametrize("value", LOST, ids=[str(value)[:30] for value in LOST])
def test_a_picture_or_clip_under_a_key_nobody_reads_is_an_error_that_names_it(
    value: Any, root: Path
) -> None:
    for row, key in (
        ({**QA, "scene": value}, "scene"),
        ({**messages(("user", "q"), ("assistant", "x")), "scene": value}, "scene"),
        ({"messages": [{"role": "user", "content": "q", "scene": value}]}, "messages[].scene"),
    ):
        if "[]" in key:
            row["messages"].append({"role": "assistant", "content": "x"})
        with pytest.raises(SampleError, match="looks like media") as caught:
            convert(row, root=root)
        assert f"`{key}`" in caught.value.what
        assert caught.value.kind == "unread_media"
        assert convert(row, root=root, not_read=frozenset({"scene"})).media == ()


@pytest.mark.parametrize("value", KEPT, ids=[str(value)[:30] for value in KEPT])
def test_another_value_is_named_as_not_read(value: Any, root: Path) -> None:
    assert convert({**QA, "scene": value}, root=root).unread_keys == ("scene",)


def outcome(row: Any) -> tuple[Conversation | None, str]:
    """Return a row's conversation, or None and what is wrong with it."""
    try:
        return convert(row), ""
    except SampleError as error:
        return None, error.what


KNOWN = [*REFUSED_IN_BLOCKS, *SYSTEM_KEYS, *COLUMN_NAMES, "img", "image_1", "jpg", "mp4", "clip"]
KEYS = st.sampled_from(KNOWN) | st.text(min_size=1)


def check_that_it_is_shown_or_named(key: str, *, is_turn: bool) -> None:
    row: dict[str, Any] = messages(("user", "q"), ("assistant", "x"))
    (row["messages"][0] if is_turn else row).setdefault(key, "a.png")
    if key in ("messages", "role", "content"):
        return
    shown, message = outcome(row)
    if shown is None:
        named = (key, "a.png", "conversation", "preference")
        assert any(words in message for words in named)
    else:
        said = [block for turn in shown.turns for block in turn.blocks]
        assert A in said or "a.png" in said or "q\na.png" in said


@pytest.mark.parametrize("is_turn", [False, True])
def test_a_picture_under_a_known_key_is_shown_or_named(is_turn: bool) -> None:
    for key in KNOWN:
        check_that_it_is_shown_or_named(key, is_turn=is_turn)


@settings(deadline=None)
@given(key=st.text(min_size=1), is_turn=st.booleans())
def test_a_picture_is_shown_or_named_whatever_its_key(key: str, is_turn: bool) -> None:
    check_that_it_is_shown_or_named(key, is_turn=is_turn)


@settings(deadline=None)
@given(key=KEYS.filter(lambda key: key not in QA))
def test_every_other_key_is_named_or_refused(key: str) -> None:
    conversation, message = outcome({**QA, key: "some words"})
    if conversation is None:
        named = (f"`{key}`", "picture", "clip", "preference")
        assert any(words in message for words in named)
    else:
        assert conversation.unread_keys == (key,) or conversation != convert(QA)


def test_the_picture_that_is_shown_may_be_named_again() -> None:
    row = {**QA, "image": "train/a.png", "file_name": "a.png", "url": "http://example.org/a.png"}
    assert convert(row).unread_keys == ("file_name", "url")
    struct = {"bytes": PNG, "path": "a.png"}
    assert convert({**QA, "image": struct, "img_path": "x/a.png"}).unread_keys == ("img_path",)
    with pytest.raises(SampleError, match="`file_name` looks like media"):
        convert({**row, "file_name": "b.png"})


def test_naming_a_column_does_not_hide_another_picture() -> None:
    with pytest.raises(SampleError, match="`right` looks like media"):
        convert({**QA, "left": "a.png", "right": "b.png"}, columns={"image": "left"})


@pytest.mark.parametrize("key", sorted(set(REFUSED_IN_QUESTIONS) - {"history"}))
def test_keys_that_change_a_question_are_refused_by_name(key: str) -> None:
    row = {**QA, key: ["a", "b"]}
    with pytest.raises(SampleError, match=f"`{key}` gives .* is not read here") as caught:
        convert(row)
    assert f"not_read: [{key}]" in str(caught.value.fix)
    assert convert(row, not_read=frozenset({key})).turns == convert(QA).turns
    assert convert({**QA, key: []}) == convert(QA)
    assert convert({**QA, key: ""}).turns == convert(QA).turns or key in WEIGHT_KEYS


@pytest.mark.parametrize("key", sorted(set(REFUSED_IN_ROWS)))
def test_keys_that_change_a_conversation_are_refused_by_name(key: str) -> None:
    with pytest.raises(SampleError, match=f"`{key}`"):
        convert({**messages(("user", "q"), ("assistant", "x")), key: ["a"]})


@pytest.mark.parametrize("key", sorted(set(REFUSED_IN_TURNS) - {*WEIGHT_KEYS, "content"}))
def test_keys_that_change_a_turn_are_refused_by_name(key: str) -> None:
    row = messages(("user", "q"), ("assistant", "x"))
    row["messages"][1][key] = [{"name": "look"}]
    with pytest.raises(SampleError, match=rf"`messages\[\]\.{key}`"):
        convert(row)


@pytest.mark.parametrize("key", sorted(set(REFUSED_IN_BLOCKS) - {"text"}))
def test_keys_that_change_a_block_are_refused_by_name(key: str) -> None:
    content = [{"type": "text", "text": "q", key: 2}]
    with pytest.raises(SampleError, match=rf"`messages\[\]\.content\[\]\.{key}`"):
        convert(messages(("user", content), ("assistant", "x")))


@pytest.mark.parametrize("key", FRAME_CHOICE_KEYS)
def test_the_choice_of_frames_is_the_runs(key: str) -> None:
    clip = {"type": "video", "path": "c.mp4", key: 2}
    for row in (
        {**QA, "video": "c.mp4", key: 2},
        {**QA, "video": {"path": "c.mp4", key: 2}},
        messages(("user", [clip]), ("assistant", "x")),
    ):
        with pytest.raises(SampleError, match=rf"{key}` gives which frames are shown"):
            convert(row)
    assert convert({**QA, key: 2}).unread_keys == (key,), "there is no clip"


def test_options_may_be_said_with_the_question() -> None:
    row = {"hint": "Look up.", "question": "Which?", "choices": ["cat", 2], "answer": "A"}
    asked = convert(row, columns={"question": ("hint", "question", "choices")})
    assert asked.turns[0].blocks == ("Look up.\nWhich?\nA. cat\nB. 2",)
    with pytest.raises(SampleError, match="`answer` is 1 where the question lists lettered"):
        convert({**row, "answer": 1}, columns={"question": ("question", "choices", "hint")})


def test_bounds_without_a_clip_mean_nothing() -> None:
    row = {**QA, **dict.fromkeys((*START_KEYS, *END_KEYS), 3)}
    assert convert(row).unread_keys == tuple(sorted((*START_KEYS, *END_KEYS)))


def test_empty_lists_are_absent() -> None:
    said = messages(("user", "<image>q"), ("assistant", "x"), image="a.png")
    empty = {"images": [], "audios": [], "videos": [], "conversations": [], "tools": []}
    assert convert({**said, **empty}) == convert(said)


def test_a_shard_row_that_became_columns() -> None:
    row = {"__key__": "1", "__url__": "s.tar", "jpg": {"bytes": PNG, "path": None}, "json": QA}
    assert media(row)[0].data == PNG
    assert convert(row).unread_keys == ("__key__", "__url__")


MISSPELT = [
    *(("sytem", "system"), ("System", "system"), ("anwser", "answer"), ("imgages", "images")),
    *(("histroy", "history"), ("rationales_", "rationales"), ("choises", "choices")),
    *(("Hint", "hint"), ("contxt", "context"), ("questions", "question"), ("answr", "answer")),
]


@pytest.mark.parametrize(("key", "meant"), MISSPELT)
def test_a_misspelt_key_is_refused(key: str, meant: str) -> None:
    row = {**QA, key: "some words"}
    with pytest.raises(SampleError, match=f"unknown key `{key}`: did you mean `{meant}`"):
        convert(row)
    assert convert(row, not_read=frozenset({key})).turns == convert(QA).turns


def test_misspelt_keys_of_turns_and_blocks() -> None:
    row = messages(("user", [{"type": "text", "text": "q", "Text": "r"}]), ("assistant", "x"))
    with pytest.raises(SampleError, match=r"`messages\[\].content\[\].Text`: did you mean `text`"):
        convert(row)
    row = messages(("user", "q"), ("assistant", "x"))
    row["messages"][1]["wieght"] = 0
    with pytest.raises(SampleError, match=r"`messages\[\].wieght`: did you mean `weight`"):
        convert(row)


PUBLISHED = [
    *("id", "source", "model", "relevance_ratings", "relevance_min", "visual_dependency_ratings"),
    *("question_type", "multiple_choice_answer", "answer_type", "question_id", "image_id"),
    *("task", "grade", "subject", "topic", "category", "skill", "solution", "pid", "unit"),
    *("precision", "metadata", "query", "docId", "ucsf_document_id", "image_width", "label"),
    *("question_tokens", "human_or_machine", "prompt_id", "score_chosen", "data_source", "qid"),
    *(
        "type",
        "difficulty",
        "explanation",
        "language",
        "dataset",
        "split",
        "index",
        "text",
        "title",
    ),
]


@pytest.mark.parametrize("key", PUBLISHED)
def test_keys_of_published_rows_are_only_named(key: str) -> None:
    assert convert({**QA, "image": "a.png", key: "some words"}).unread_keys == (key,)


@pytest.mark.parametrize("key", ["question2", "answer_1", "q2", "a0", "response2", "caption 3"])
def test_a_further_question_or_answer_is_refused(key: str) -> None:
    with pytest.raises(SampleError, match=f"`{key}` seems to be a further question"):
        convert({**QA, key: "r"})


@pytest.mark.parametrize("key", ["text", "caption", "content", "value", "question", "prompt"])
def test_a_text_within_a_pictures_block_is_refused(key: str) -> None:
    block = {"type": "image", "image": "a.png", key: "What?"}
    row = messages(("user", [block, {"type": "text", "text": "q"}]), ("assistant", "x"))
    with pytest.raises(SampleError, match=rf"`messages\[\].content\[\].{key}` gives a text"):
        convert(row)
    block[key] = ""
    assert A in convert(row).media


def test_what_stands_beside_a_prompt_is_a_part_of_it() -> None:
    row = {"prompt": "q", "chosen": "x", "rejected": "y", "context": "c"}
    with pytest.raises(SampleError, match="`context` gives a part of the question") as caught:
        convert(row)
    assert "`columns: {prompt: [prompt, context]}`" in str(caught.value.fix)
    joined = convert(row, columns={"prompt": ("context", "prompt")})
    assert joined.turns[0].blocks == ("c\nq",)


def test_the_fix_says_what_can_be_done() -> None:
    def fix(row: Any, **source: Any) -> str:
        with pytest.raises(SampleError) as caught:
            convert(row, **source)
        return str(caught.value.fix)

    assert "a `weight` or `repeat`, or write the row as `messages`" in fix({**QA, "weight": 0.5})
    assert "into the answer's own text" in fix({**QA, "rationale": "since"})
    called = messages(("user", "q"), ("assistant", None))
    called["messages"][1]["tool_calls"] = [{"name": "look"}]
    assert "calls of tools are not learned" in fix(called)
    assert "`columns: {question: [q1, hint]}`" in fix(
        {"q1": "q", "answer": "x", "hint": "h"}, columns={"question": "q1"}
    )


def test_the_number_of_a_block_names_its_picture() -> None:
    def shown(*numbers: int | None) -> tuple[Any, ...]:
        blocks = [{"type": "image", "index": number, "text": None} for number in numbers]
        return media(messages(("user", blocks), ("assistant", "x"), images=["a.png", "b.png"]))

    assert shown(0, 1) == shown(1, 2) == shown(None, None) == (A, B)
    assert shown(1, 0) == shown(2, 1) == (B, A)
    for numbers in [(0, 0), (0, 2), (2, 3), (0, None)]:
        with pytest.raises(SampleError, match="do not name each listed image once"):
            shown(*numbers)
    one = messages(("user", [{"type": "image", "index": "0"}]), ("assistant", "x"), image="a.png")
    with pytest.raises(SampleError, match="no number of a listed image"):
        convert(one)


@pytest.mark.parametrize("key", ["is_correct", "correct", "label"])
def test_an_answer_that_is_said_to_be_wrong_is_not_learned(key: str) -> None:
    with pytest.raises(
        SampleError, match=f"`{key}` is false: the row's answer is said to be wrong"
    ):
        convert({**QA, key: False})
    assert convert({**QA, key: True}).unread_keys == (key,)


@pytest.mark.parametrize("key", ["image_id", "imageId", "video_idx"])
def test_a_picture_that_a_row_only_numbers_is_doubtful(key: str) -> None:
    assert "none is shown" in convert({**QA, key: 7}).doubts[0]
    assert convert({**QA, "image": "a.png", key: 7}).doubts == ()


def test_masks_of_turns() -> None:
    row = messages(("user", "q"), ("assistant", "x"))
    row["messages"][1]["mask"] = True
    with pytest.raises(SampleError, match=r"`messages\[\].mask` gives what is not learned"):
        convert(row)
    row["messages"][1]["mask"] = False
    assert convert(row).unread_keys == ("messages[].mask",)
    assert convert({**QA, "height": 3, "width": 4}).unread_keys == ("height", "width")
