"""CIDEr-D: examples worked out by hand, and laws.

`tests/parity/test_published_metrics.py` holds it to pycocoevalcap.
"""

import math

import pytest

from smolvlm.eval.metrics.cider_d import caption_tokens, cider_d, cider_d_rows


@pytest.mark.parametrize(
    ("caption", "tokens"),
    [
        ("A dog's bone.", "a dog 's bone"),
        ("Don't! (stop)", "do n't -lrb- stop -rrb-"),
        ("Mr. X, 5:30 p.m. & 1/2", "mr. x 5:30 p.m. & 1/2"),
        ("black-and-white -- $5, 10%", "black-and-white $ 5 10 %"),
        ("", ""),
    ],
)
def test_words_of_a_caption(caption: str, tokens: str) -> None:
    assert " ".join(caption_tokens(caption)) == tokens


def test_the_reference_itself_is_worth_ten_where_it_has_four_rare_words() -> None:
    said = ["one two three four", "five six seven eight"]
    assert cider_d_rows(said, [[text] for text in said]) == pytest.approx([10, 10])
    assert cider_d(said, [[text] for text in said]) == pytest.approx(10)


def test_words_alone_worked_out_by_hand() -> None:
    """Of one word in two a half is the reference's; nothing else of the four orders is there."""
    true = [["cat dog"], ["bird fish"]]
    cosine = 1 / math.sqrt(2)
    penalty = math.exp(-((0 - 1) ** 2) / (2 * 36))
    assert cider_d_rows(["cat", "none"], true) == pytest.approx([10 * cosine * penalty / 4, 0])


def test_a_row_alone_has_no_rare_words() -> None:
    assert cider_d(["a cat"], [["a cat"]]) == 0.0


@pytest.mark.parametrize(("said", "true"), [([], []), (["a"], [[]])])
def test_rows_and_references_are_needed(said: list[str], true: list[list[str]]) -> None:
    with pytest.raises(ValueError, match="reference"):
        cider_d(said, true)
