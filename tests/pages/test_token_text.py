"""Counts and shares as people say them."""

from smolvlm.pages.token_text import percent, plural


def test_numbers_with_their_nouns() -> None:
    assert [plural(count, "tile") for count in (0, 1, 1137)] == ["0 tiles", "1 tile", "1,137 tiles"]
    assert [percent(0.1234), percent(1, digits=0)] == ["12.3 %", "100 %"]
