"""Scores of answers: worked examples and laws."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smolvlm.eval.metrics import (
    Prediction,
    accuracy_by_source,
    balanced_accuracy,
    exact_match,
    lookup_answers,
    majority_answers,
    normalize_answer,
    vqa_accuracy,
)


def prediction(source: str, answer: str, truth: str) -> Prediction:
    return Prediction(where="f:1", source=source, question="q", answer=answer, references=(truth,), images=())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The Cat.", "cat"),
        ("  two  dogs ", "2 dogs"),
        ("3.5", "3.5"),
        ("1,000 people", "1,000 people"),
        ("yes, it is!", "yes it is"),
        ("another", "another"),
    ],
)
def test_normalisation_worked_examples(text: str, expected: str) -> None:
    assert normalize_answer(text) == expected


@given(st.lists(st.from_regex(r"[b-sv-z]{2,8}", fullmatch=True), max_size=5))
def test_plain_words_stay_as_they_are_but_for_case_and_signs(words: list[str]) -> None:
    plain = " ".join(words)
    assert normalize_answer(plain) == " ".join(normalize_answer(word) for word in words)
    assert normalize_answer(f"  {plain.upper()}!") == normalize_answer(plain)


def test_vqa_accuracy_counts_annotators_with_each_left_out() -> None:
    references = ("red",) * 3 + ("dark red",) * 7
    # Leaving out a "red" leaves 2 of 3 (2/3); leaving out another leaves 3 of 3 (1).
    assert vqa_accuracy("red", references) == pytest.approx((3 * 2 / 3 + 7 * 1.0) / 10)
    assert vqa_accuracy("dark red", references) == 1.0
    assert vqa_accuracy("blue", references) == 0.0


@given(st.text(min_size=1), st.lists(st.text(min_size=1), min_size=1, max_size=12))
def test_vqa_accuracy_is_a_share_and_zero_without_a_match(answer: str, references: list[str]) -> None:
    score = vqa_accuracy(answer, references)
    assert 0.0 <= score <= 1.0
    assert (score > 0) <= (exact_match(answer, references) == 1.0)


def test_with_one_reference_both_scores_agree() -> None:
    assert vqa_accuracy("A cup.", ("cup",)) == exact_match("A cup.", ("cup",)) == 1.0


def test_an_answer_without_references_cannot_be_scored() -> None:
    with pytest.raises(ValueError, match="needs references"):
        vqa_accuracy("cup", ())


def test_accuracy_by_source_and_balanced_accuracy() -> None:
    rows = [prediction("a", "yes", "yes"), prediction("a", "yes", "no"), prediction("b", "no", "no")]
    assert accuracy_by_source(rows) == {"a": (0.5, 2), "b": (1.0, 1)}
    always_no = [prediction("a", "no", truth) for truth in ("no", "no", "no", "yes")]
    assert balanced_accuracy(always_no) == 0.5


def test_baselines_look_at_questions_alone() -> None:
    train = [("what shape?", "circle"), ("what shape?", "circle"), ("which form?", "square"), ("is it red?", "no")]
    source_of = {"what shape?": "shape", "which form?": "shape", "is it red?": "yes_no"}
    assert majority_answers(train, source_of=source_of) == {
        "what shape?": "circle",
        "which form?": "circle",
        "is it red?": "no",
    }
    assert lookup_answers(train)["which form?"] == "square"
