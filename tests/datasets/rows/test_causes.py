"""Messages that differ in what is the row's own are one cause; others stay apart."""

import pytest

from smolvlm.datasets.rows.causes import by_cause, causes_of, without_row
from smolvlm.errors import SampleError


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("picture a/7.png does not exist", "picture b c/19.png does not exist"),
        ("picture 7.png does not exist", "picture forest-12.jpeg does not exist"),
        ("5,012 tokens, a pack holds 4096", "4,097 tokens, a pack holds 4096"),
        ("`role` is 'robot'", '`role` is "it\'s"'),
        ("it begins with b'abc'", "it begins with b'\\x00'"),
        ("the same as rows.jsonl:4", "the same as more.jsonl:17"),
        ("picture https://a.b/c?d=1 is gone", "picture http://e.f/ is gone"),
        ("the row lists `x/1.jpg`, no member", "the row lists `y/2.jpg`, no member"),
        ("the row's text has 2 marks", "the row's text has 3 marks"),
    ],
)
def test_what_is_the_rows_own_does_not_count(one: str, other: str) -> None:
    assert without_row(one) == without_row(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("unknown key `photo`", "unknown key `picture`"),
        ("the answer is empty", "the question is empty"),
        ("the row's text and the file's", "the row's key and the file's"),
    ],
)
def test_what_says_something_else_does(one: str, other: str) -> None:
    assert without_row(one) != without_row(other)


def test_kinds_stay_apart_and_the_largest_group_comes_first() -> None:
    groups = by_cause(["a 1", "b 1", "b 2"], lambda text: ("kind", text))
    assert groups == [["b 1", "b 2"], ["a 1"]]
    errors = [
        SampleError("no 1", kind="role", where="r:1"),
        SampleError("no 2", kind="empty_row", where="r:2", fix="write it"),
        SampleError("no 3", kind="empty_row", where="r:3"),
    ]
    first, second = causes_of(errors)
    assert (first.kind, first.where, first.num_rows, first.what) == ("empty_row", "r:2", 2, "no 2")
    assert str(first) == "r:2: no 2 (and 1 more row like it)\n  fix: write it"
    assert str(second) == "r:1: no 1"


def test_a_text_of_a_megabyte_is_compared_quickly() -> None:
    for text in ("'" + "\\" * 10**6, "/" * 10**6, "a." * 10**6, "1," * 10**6, '"' * 10**6):
        without_row(text)
