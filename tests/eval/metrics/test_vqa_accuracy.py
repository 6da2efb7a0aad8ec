"""VQA accuracy: worked examples, and laws that hold for any answer.

`tests/parity/test_published_metrics.py` holds it to published code.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smolvlm.eval.metrics.vqa_accuracy import normalize_vqa, vqa_accuracy

WORDS = st.text(alphabet="abcdefgh ", min_size=1, max_size=6).filter(str.strip)
REFERENCES = st.lists(st.sampled_from(("yes", "no", "a cat", "two")), min_size=1, max_size=10)


@pytest.mark.parametrize(
    ("num_matching", "accuracy"),
    [
        (0, 0.0),
        (1, 9 * (1 / 3) / 10),
        (2, (2 * 1 / 3 + 8 * 2 / 3) / 10),
        (3, 0.9),
        (4, 1.0),
        (10, 1.0),
    ],
)
def test_vqa_accuracy_of_ten_annotators(num_matching: int, accuracy: float) -> None:
    references = ["yes"] * num_matching + ["no"] * (10 - num_matching)
    assert vqa_accuracy("Yes", references) == pytest.approx(accuracy)


def test_vqa_accuracy_needs_references() -> None:
    with pytest.raises(ValueError, match="references"):
        vqa_accuracy("yes", [])


@given(st.text(min_size=1), st.lists(st.text(min_size=1), min_size=2, max_size=12))
def test_vqa_accuracy_is_a_share_and_zero_without_a_match(
    answer: str, references: list[str]
) -> None:
    has_match = normalize_vqa(answer) in map(normalize_vqa, references)
    assert 0.0 <= vqa_accuracy(answer, references) <= has_match


@given(answer=WORDS, reference=WORDS)
def test_a_single_reference_is_matched_or_not(answer: str, reference: str) -> None:
    is_equal = normalize_vqa(answer) == normalize_vqa(reference)
    assert vqa_accuracy(answer, [reference]) == is_equal
    assert vqa_accuracy(reference, [reference]) == 1.0


@given(answer=st.sampled_from(("yes", "no")), references=REFERENCES)
def test_the_order_of_references_does_not_matter_and_another_match_never_hurts(
    answer: str, references: list[str]
) -> None:
    assert vqa_accuracy(answer, sorted(references)) == pytest.approx(
        vqa_accuracy(answer, references)
    )
    ten = (references + ["other"] * 10)[:10]
    better = [answer if reference == "other" else reference for reference in ten]
    assert vqa_accuracy(answer, better) >= vqa_accuracy(answer, ten)


@pytest.mark.parametrize(
    ("said", "compared"),
    [
        ("The Cat.", "cat"),
        ("none", "0"),
        ("black/white", "black white"),
        ("left - right", "left right"),
        ("1,000", "1000"),
        ("3.5", "3.5"),
        ("dont", "don't"),
        ("12:30", "12:30"),
        ("a.b.", "ab"),
    ],
)
def test_answers_are_compared_as_the_vqa_evaluation_does(said: str, compared: str) -> None:
    assert normalize_vqa(said) == compared
