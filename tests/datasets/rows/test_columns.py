"""A source's columns: renamed, joined, left out, the same in every row, lists written as text."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smolvlm.datasets.rows.conversations import open_sources
from smolvlm.datasets.rows.mixture import load_mixture
from smolvlm.datasets.rows.written_lists import written_list
from smolvlm.errors import ConfigError, SampleError
from tests.datasets.rows.row_cases import QA, A, B, convert, media, messages, user_blocks


def refusal(row: Any, **source: Any) -> SampleError:
    with pytest.raises(SampleError) as caught:
        convert(row, **source)
    return caught.value


@pytest.mark.parametrize("replaced", ["image", "images", "video"])
def test_a_picture_whose_column_is_read_from_another_one_is_not_lost(replaced: str) -> None:
    row = {**QA, replaced: "b.png", "augmented": "a.png"}
    error = refusal(row, columns={replaced: "augmented"})
    if replaced == "video":
        assert "is a picture by its name" in error.what
        return
    assert (
        error.what
        == f"`{replaced}` holds media, and the source's `columns` read others in its place"
    )
    assert f"`{{images: [augmented, {replaced}]}}`" in str(error.fix)
    assert media(row, columns={"images": (replaced, "augmented")}) == (B, A)
    left = convert(row, columns={replaced: "augmented"}, not_read=frozenset({replaced}))
    assert (left.media, left.left_out_keys, left.unread_keys) == ((A,), (replaced,), ())


@pytest.mark.parametrize("replaced", ["question", "answer", "system"])
def test_a_text_whose_column_is_read_from_another_one_is_named(replaced: str) -> None:
    row = {**QA, "video": "c.mp4", replaced: "2", "other": "3"}
    assert convert(row, columns={replaced: "other"}).unread_keys == (replaced,)


def test_what_is_left_out_is_named_wherever_it_stands() -> None:
    row = messages(("user", [{"type": "text", "text": "q", "id": 1}]), ("assistant", "x"), id=3)
    read = convert({**row, "note": 1}, not_read=frozenset({"id", "absent"}))
    assert (read.left_out_keys, read.unread_keys) == (("id",), ("note",))


def test_a_constant_question_makes_captions_rows() -> None:
    row = {"file_name": "a.png", "caption": "a cat"}
    error = refusal(row)
    assert "`constants: {question: Describe the picture.}`, `columns: {answer: caption}`" in str(
        error.fix
    )
    asked = {"question": "Describe.", "system": "Be brief."}
    read = convert(row, columns={"answer": "caption"}, constants=asked)
    assert [turn.blocks for turn in read.turns] == [("Be brief.",), (A, "Describe."), ("a cat",)]
    for own in ("", None):
        assert convert({**QA, "system": own}, constants={"system": "s"}).turns[0].role == "system"
    error = refusal(QA, constants={"question": "Describe."})
    assert error.what == "the row has a `question`, and the source's `constants` another"


LISTS: list[tuple[str, list[Any]]] = [
    ("images", ["a.png", "b.png"]),
    ("image", ["a.png", "b.png"]),
    ("answers", ["x", "y"]),
    ("history", [["q", "x"]]),
]


@pytest.mark.parametrize(("key", "value"), LISTS)
def test_lists_written_as_text_are_lists(key: str, value: list[Any]) -> None:
    row = {**QA, key: value}
    for written in (json.dumps(value), repr(value)):
        assert convert({**QA, key: written}) == convert(row)
    renamed = {**QA, "theirs": repr(value)}
    assert convert(renamed, columns={key: "theirs"}).turns == convert(row).turns


@pytest.mark.parametrize("key", ["messages", "conversations", "chosen"])
def test_turns_written_as_text_are_turns(key: str) -> None:
    turns = messages(("user", "q"), ("assistant", "x"))["messages"]
    row = {key: turns, "images": "['a.png', 'b.png']"}
    if key == "chosen":
        row["rejected"] = messages(("user", "q"), ("assistant", "y"))["messages"]
    for write in (json.dumps, repr):
        assert convert({**row, key: write(turns)}) == convert(row)


def test_text_that_is_no_list_stays_text_or_is_refused() -> None:
    assert media({**QA, "image": "[1] a.png"})[0].name == "/pictures/[1] a.png"
    said = convert({"prompt": "[1, 2]", "chosen": "[3]", "rejected": "[4]"})
    assert [turn.blocks for turn in said.turns] == [("[1, 2]",), ("[3]",)]
    assert "`messages` is no list, in JSON or as Python" in refusal({"messages": "[{cut"}).what


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("['a b' 'c d']", ["a b", "c d"]),
        ("['a'\n 'b']", ["a", "b"]),
        ("array(['a', 'b'], dtype=object)", ["a", "b"]),
        ("[['a' 'b'] ['c' 'd']]", None),
        ("[1 2 3]", None),
    ],
)
def test_what_numpy_prints_is_not_run_together(text: str, value: list[str] | None) -> None:
    assert written_list(text) == value


def test_the_answer_given_most_often_is_told_from_the_first() -> None:
    answers = [{"answer": "dunno"}, *[{"answer": "net"}] * 9]
    read = convert({"question": "q", "answers": answers})
    assert read.turns[1].blocks == ("dunno",)
    assert "the first is learned, 'dunno', and 'net' is given more often" in read.doubts[0]
    assert convert({"question": "q", "answers": ["x", "y"]}).doubts == ()
    for several in (["x", "y"], "['x', 'y']"):
        read = convert({"question": "q", "answer": several})
        assert (read.turns[1].blocks, read.references) == (("x",), ("x", "y"))


def test_a_constant_may_be_joined_to_the_question() -> None:
    read = convert(
        QA,
        columns={"question": ("question", "instruction")},
        constants={"instruction": "Answer in one word."},
    )
    assert read.turns[0].blocks == ("q\nAnswer in one word.",)


def test_typed_blocks_written_as_text_are_blocks() -> None:
    blocks = [{"type": "text", "text": "q"}, {"type": "image"}]
    for write in (json.dumps, repr):
        row = messages(("user", write(blocks)), ("assistant", "x"), images=["a.png"])
        assert user_blocks(row) == ("q", A)
    said = '[{"type": "note", "text": "q"}]'
    assert user_blocks(messages(("user", said), ("assistant", "x"))) == (said,)


@pytest.mark.parametrize(
    ("row", "fix"),
    [
        ({"problem": "q", "answer": "x"}, "`{question: problem, answer: answer}`"),
        ({"query": "q", "label": "x"}, "`{question: query, answer: label}`"),
        ({"conversation": [{"role": "user", "content": "q"}]}, "`{messages: conversation}`"),
        ({"image": "a.png", "txt": "a cat"}, "`columns: {answer: txt}`"),
    ],
)
def test_the_columns_to_name_are_named(row: Any, fix: str) -> None:
    assert fix in str(refusal(row).fix)


def test_a_prompt_that_both_answers_say_again_is_said_once() -> None:
    sides = {
        key: [{"role": "user", "content": "q"}, {"role": "assistant", "content": answer}]
        for key, answer in (("chosen", "x"), ("rejected", "y"))
    }
    assert convert({"prompt": "q", **sides}) == convert(sides)


@given(st.recursive(st.integers() | st.text() | st.none(), st.lists, max_leaves=8))
def test_a_printed_list_is_read_as_it_was(value: Any) -> None:
    expected = value if isinstance(value, list) else None
    if not isinstance(value, str):
        assert written_list(json.dumps(value)) == expected
        assert written_list(repr(value)) == expected


@pytest.mark.parametrize("text", ["[" * 100_000, "[1, __import__('os')]", "{1: 2", "[a](b)", ""])
def test_no_list_and_nothing_is_run(text: str) -> None:
    assert written_list(text) is None


CONFIGS = [
    ({"constants": {"queston": "x"}}, "did you mean `question`?"),
    ({"constants": {"question": 3}}, "`question` must be text"),
    ({"constants": "Describe."}, "must map our column names to texts"),
    ({"constants": {"question": "x"}, "columns": {"question": "q"}}, "is read by `columns`"),
    ({"first_option_index": 2}, "must be one of 0, 1"),
    ({"first_option_index": True}, "must be one of 0, 1"),
    ({"json_path": "rows.jsonl", "hub": "owner/name"}, "with `json_path` besides"),
    ({"not_read": ["a"], "columns": {"images": ["a", "b"]}}, "`a` is read by `columns` besides"),
]


@pytest.mark.parametrize(("entry", "message"), CONFIGS)
def test_sources_that_contradict_themselves(
    entry: dict[str, Any], message: str, tmp_path: Path
) -> None:
    (tmp_path / "rows.jsonl").write_text("{}\n")
    with pytest.raises(ConfigError) as caught:
        load_mixture([{"path": "rows.jsonl", **entry}], base_dir=tmp_path)
    assert message in str(caught.value)


def test_csv_cells_of_lists(tmp_path: Path) -> None:
    cell = str(messages(("user", "q"), ("assistant", "x"))["messages"]).replace('"', '""')
    (tmp_path / "a.csv").write_text(f"images,chat\n\"['a.png', 'b.png']\",\"{cell}\"\n[a,x\n")
    entry = {"path": "a.csv", "columns": {"messages": "chat"}}
    (source,) = open_sources(load_mixture([entry], base_dir=tmp_path))
    rows = source.all_rows()
    assert [medium.name for medium in rows[0].media] == [
        str(tmp_path / name) for name in ("a.png", "b.png")
    ]
    with pytest.raises(SampleError, match=r"a\.csv:2: `messages` is not a list"):
        _ = rows[1]


def test_blocks_take_what_other_programs_write() -> None:
    plain = [{"text": "What?"}, {"image": "a.png"}, " And?", {"image_url": {"url": "b.png"}}]
    assert user_blocks(messages(("user", plain), ("model", "x"))) == ("What?", A, " And?", B)
    said = convert(messages(("developer", "s"), ("Human", "q"), ("bot", "x")))
    assert [turn.role for turn in said.turns] == ["system", "user", "assistant"]
    turns = [{"from": "human", "text": "q"}, {"from": "gpt", "text": "x"}]
    assert convert({"conversations": turns}).turns == convert(QA).turns
    assert convert({"question": 5, "answer": 6}).turns[0].blocks == ("5",)


def test_groups_of_a_mixture_keep_nothing_apart(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("{}\n")
    source = [{"path": "rows.jsonl"}]
    with pytest.raises(ConfigError, match="the group `val` would be trained on"):
        load_mixture({"train": source, "val": source}, base_dir=tmp_path)
    assert len(load_mixture({"charts": source, "test_charts": source}, base_dir=tmp_path)) == 2


def test_a_header_with_spaces_means_cells_with_spaces(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("question, answer\nq1, yes\n")
    (source,) = open_sources(load_mixture([{"path": "a.csv"}], base_dir=tmp_path))
    assert source.all_rows()[0].turns[1].blocks == ("yes",)
