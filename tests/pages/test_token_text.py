"""What rows carry is shown, never obeyed."""

from hypothesis import given
from hypothesis import strategies as st

from smolvlm.pages.token_text import percent, plural, shown_text


def test_control_characters_are_written_out() -> None:
    assert shown_text("a\x1b[31mb\t\r\0") == "a\\x1b[31mb\\t\\r\\x00"
    assert shown_text("right-to-left \u202e override") == "right-to-left \\u202e override"


def test_ordinary_text_stays() -> None:
    for text in ("two\nlines", "naïve 日本語", "👩‍🚀", "\u3000"):
        assert shown_text(text) == text


@given(st.text())
def test_nothing_is_left_that_a_terminal_obeys(text: str) -> None:
    assert not any(
        ord(character) < 32 or 127 <= ord(character) < 160
        for character in shown_text(text).replace("\n", "")
    )


def test_numbers_with_their_nouns() -> None:
    assert [plural(count, "tile") for count in (0, 1, 1137)] == ["0 tiles", "1 tile", "1,137 tiles"]
    assert [percent(0.1234), percent(1, digits=0)] == ["12.3 %", "100 %"]
