"""Exact match: worked examples, and laws that hold for any text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smolvlm.eval.metrics.exact_match import exact_match, normalize_answer


@pytest.mark.parametrize(
    ("said", "compared"),
    [
        (" The  Cat. ", "cat"),
        ("an apple, a pear", "apple pear"),
        ("Two dogs!", "2 dogs"),
        ("3.5", "3.5"),
        ("1,000 km", "1,000 km"),
        ("$5.", "5"),
        ("10:30 a.m.", "10:30 m"),
        ("well-known", "well known"),
        ("Theatre", "theatre"),
        ("another", "another"),
        ("ten", "10"),
        ("", ""),
    ],
)
def test_answers_are_compared_without_what_does_not_matter(said: str, compared: str) -> None:
    assert normalize_answer(said) == compared


@given(st.text(max_size=30))
def test_normalising_twice_is_normalising_once(text: str) -> None:
    assert normalize_answer(normalize_answer(text)) == normalize_answer(text)


@given(st.lists(st.from_regex(r"[b-sv-z]{2,8}", fullmatch=True), max_size=5))
def test_plain_words_stay_as_they_are_but_for_case_and_signs(words: list[str]) -> None:
    plain = " ".join(words)
    assert normalize_answer(plain) == " ".join(normalize_answer(word) for word in words)
    assert normalize_answer(f"  {plain.upper()}!") == normalize_answer(plain)


def test_exact_match_is_one_of_the_references() -> None:
    assert exact_match("The cat.", ["dog", "cat"]) == 1.0
    assert exact_match("cats", ["dog", "cat"]) == 0.0
    assert exact_match("35", ["3.5"]) == 0.0
    assert exact_match("anything", []) == 0.0
