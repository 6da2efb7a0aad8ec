"""Values, texts and paths in messages are short, and say what they are."""

import pytest

from smolvlm.config.problems import (
    Problem,
    joined_errors,
    problems_error,
    shown_path,
    shown_text,
    shown_value,
)
from smolvlm.errors import MAX_LINE_CHARACTERS, ConfigError


def test_a_long_value_is_cut_at_its_end() -> None:
    shown = shown_value("x" * 1_400_000)
    assert (len(shown), shown[:3]) == (80, "'xx")
    assert shown.endswith("xxx... (1,400,000 characters)")
    assert shown_value([7] * 10_000).endswith("7, 7,... (10,000 entries)")
    assert shown_value({str(n): n for n in range(500)}).endswith("... (500 entries)")
    assert shown_value({"x" * 10**6: ["y" * 10**6] * 10**4}).endswith("... (1 entries)")
    assert shown_value(10**100).endswith("... (101 characters)")


@pytest.mark.parametrize("path", ["/a/" * 90 + "folder/file.jpg", "x" * 200 + "/folder/file.jpg"])
def test_a_long_path_is_cut_at_its_front(path: str) -> None:
    shown = shown_path(path)
    assert len(shown) <= 80
    assert shown.startswith("…/")
    assert shown.endswith("folder/file.jpg")


def test_a_long_name_keeps_its_end() -> None:
    assert shown_path("x" * 300 + ".jpg") == "…" + "x" * 75 + ".jpg"


def test_short_ones_stay() -> None:
    assert shown_path("a/b.jpg") == "a/b.jpg"
    assert shown_text("one\n  two") == "one two"
    assert len(shown_text("x" * 999)) == 300


def test_the_same_mistake_in_many_places_of_a_list_is_one_line() -> None:
    many = [Problem(key=f"[{n}].wieght", value=str(n), what="unknown key") for n in range(10_000)]
    other = Problem(key="[3].repeat", what="must be a number above 0")
    assert str(problems_error([*many, other], where="mix.yaml")) == (
        "mix.yaml: 10,001 problems:\n"
        "  - [0].wieght = 0: unknown key (and 9,999 more like it)\n"
        "  - [3].repeat: must be a number above 0"
    )


def test_many_mistakes_are_cut_with_their_number() -> None:
    many = [Problem(key=f"train.a_{n}", what="no such setting") for n in range(500)]
    lines = str(problems_error(many, where="run.yaml")).splitlines()
    assert (len(lines), lines[1], lines[-1]) == (
        42,
        "  - train.a_0: no such setting",
        "  - and 460 more",
    )


def test_long_keys_words_and_fixes_are_cut_with_their_length() -> None:
    long = "x" * 1_000_000
    (line,) = str(problems_error([Problem(key=long, what=long, fix=long)], where="f")).splitlines()[
        1:
    ]
    assert len(line) < 1700
    assert line.count("... (1,000,000 characters)") == 3


def test_any_message_of_ours_has_lines_that_a_terminal_shows() -> None:
    long = "a" * 1_000_000 + "b" * 1_000_000
    text = str(ConfigError(f"{long}\nshort", where="f", fix=long))
    assert [len(line) < MAX_LINE_CHARACTERS + 100 for line in text.splitlines()] == [True] * 3
    assert "characters left out" in text
    assert text.splitlines()[1] == "short"


def test_errors_of_several_files_stand_below_each_other() -> None:
    one, other = ConfigError("one", where="a", fix="x"), ConfigError("other", where="b")
    assert joined_errors([one]) is one
    assert str(joined_errors([one, other])) == "a: one\n  fix: x\nb: other"
