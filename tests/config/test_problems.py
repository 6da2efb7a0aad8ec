"""Values, texts and paths in messages are short, and say what they are."""

import pytest

from smolvlm.config.problems import shown_path, shown_text, shown_value


def test_a_long_value_is_cut_at_its_end() -> None:
    shown = shown_value("x" * 1_400_000)
    assert (len(shown), shown[:3], shown[-3:]) == (80, "'xx", "...")


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
