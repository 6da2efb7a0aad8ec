"""Options of a question: lettered lines, and answers that name one of them."""

from typing import Any

import pytest

from smolvlm.errors import SampleError
from tests.datasets.rows.row_cases import convert

ROW = {"question": "Which?", "choices": ["cat", "dog"]}
COLUMNS = {"question": ("question", "choices")}
LISTED = "Which?\nA. cat\nB. dog"


def asked(answer: Any, *, choices: Any = ("cat", "dog"), **source: Any) -> tuple[Any, Any]:
    """Return what is asked and what is learned."""
    choices = list(choices) if isinstance(choices, tuple) else choices
    row = convert({**ROW, "choices": choices, "answer": answer}, columns=COLUMNS, **source)
    return row.turns[0].blocks[0], row.turns[1].blocks[0]


@pytest.mark.parametrize("choices", ["['cat', 'dog']", '["cat", "dog"]', ("cat", "dog")])
def test_options_in_every_notation(choices: Any) -> None:
    assert asked("A", choices=choices) == (LISTED, "A")


def test_columns_that_are_an_option_each() -> None:
    row = {"question": "Which?", "A": "cat", "B": "dog", "C": None, "D": 3, "answer": "D"}
    with pytest.raises(SampleError, match="`A` seems to be a further question, answer or option"):
        convert(row)
    read = convert(row, columns={"question": ("question", "A", "B", "C", "D")})
    assert read.turns[0].blocks == ("Which?\nA. cat\nB. dog\nD. 3",)
    with pytest.raises(SampleError, match="the options are A, B, D"):
        convert({**row, "answer": "C"}, columns={"question": ("question", "A", "B", "C", "D")})
    named = {"question": "Which?", "option_a": "cat", "option_b": "dog", "answer": "B"}
    assert convert(named, columns={"question": ("question", "option_a", "option_b")}).turns[
        0
    ].blocks == (LISTED,)


@pytest.mark.parametrize("choices", ["['cat', 'dog", '["cat" "dog"]x'])
def test_damaged_lists_of_options_are_refused(choices: str) -> None:
    with pytest.raises(SampleError, match="`choices` begins like a list of options and is none"):
        asked("A", choices=choices)


@pytest.mark.parametrize(
    "answer", ["A", "(b)", "B.", "cat", "The dog.", "A. cat", "**B**", "a cat"]
)
def test_answers_that_name_an_option(answer: str) -> None:
    row = {**ROW, "answer": answer}
    read = convert(row, columns=COLUMNS)
    assert (read.turns[1].blocks, read.doubts) == ((answer,), ())


@pytest.mark.parametrize("answer", [0, 1, "1", "C", "(d)", 7])
def test_numbers_and_letters_that_name_none_are_refused(answer: Any) -> None:
    with pytest.raises(SampleError, match="`answer` is") as caught:
        asked(answer)
    assert "first_option_index" in str(caught.value.fix) or "the options" in str(caught.value.fix)
    with pytest.raises(SampleError, match="one of `answers` is"):
        convert({**ROW, "answers": [answer]}, columns=COLUMNS)


def test_other_words_are_doubtful() -> None:
    read = convert({**ROW, "answer": "a bird"}, columns=COLUMNS)
    assert read.doubts == ("`answer`, 'a bird', is none of the options",)
    assert read.turns[1].blocks == ("a bird",)


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("write", [int, str])
def test_numbers_that_count_the_options(first: int, write: Any) -> None:
    source = {"first_option_index": first}
    assert [asked(write(number + first), **source)[1] for number in (0, 1)] == ["A", "B"]
    for number in (first - 1, first + 2):
        with pytest.raises(SampleError, match="the 2 options are counted from"):
            asked(write(number), **source)
    assert asked("cat", **source)[1] == "cat"


def test_options_that_are_numbers() -> None:
    assert asked("7", choices=[5, 7])[1] == "7"
    with pytest.raises(SampleError, match="lettered options"):
        asked(7, choices=[5, 7])


def test_more_options_than_letters() -> None:
    with pytest.raises(SampleError, match="27 options, and 26 letters"):
        asked("A", choices=[str(number) for number in range(27)])


@pytest.mark.parametrize(
    ("choices", "lines"),
    [
        (["A. cat", "B. dog"], "A. cat\nB. dog"),
        (["(A) cat", "(B) dog"], "(A) cat\n(B) dog"),
        ("A. cat\nB. dog", "A. cat\nB. dog"),
        ({"A": "cat", "B": "dog"}, "A. cat\nB. dog"),
        ('{"A": "cat", "B": "dog"}', "A. cat\nB. dog"),
        ({"text": ["cat", "dog"], "label": ["A", "B"]}, "A. cat\nB. dog"),
        ([{"label": "1", "text": "cat"}, {"label": "2", "text": "dog"}], "A. cat\nB. dog"),
        ("['cat' 'dog']", "A. cat\nB. dog"),
        ("array(['cat', 'dog'], dtype=object)", "A. cat\nB. dog"),
        (["cat ", "dog"], "A. cat \nB. dog"),
    ],
)
def test_options_as_published_sets_write_them(choices: Any, lines: str) -> None:
    assert asked("B", choices=choices) == (f"Which?\n{lines}", "B")
    assert asked("dog", choices=choices)[1] == "dog"


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        (["B. cat", "A. dog"], "letters of their own, B, A, in another order"),
        ({"B": "cat", "A": "dog"}, "the labels of `choices`, B, A, are not A, B, C"),
        (["a.png", "b.png"], "an option names a picture or clip, 'a.png'"),
    ],
)
def test_options_that_would_mean_something_else(choices: Any, message: str) -> None:
    with pytest.raises(SampleError, match=message):
        asked("A", choices=choices)


def test_numbers_of_a_column_with_gaps() -> None:
    assert asked(1.0, first_option_index=0)[1] == "B"
    row = {"question": "Which?", "choices": "x;y;z", "answer": 0}
    with pytest.raises(SampleError, match="and the row lists no options"):
        convert(row, columns=COLUMNS, first_option_index=0)


def test_what_pandas_writes_for_nothing_is_no_option() -> None:
    row = {"hint": "nan", "question": "Which?", "A": "cat", "B": "dog", "C": "nan", "answer": "A"}
    read = convert(row, columns={"question": ("hint", "question", "A", "B", "C")})
    assert read.turns[0].blocks == (LISTED,)
