"""Scores of answers: worked examples, and laws that hold for any."""

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

WORDS = st.text(alphabet="abcdefgh ", min_size=1, max_size=6).filter(str.strip)
REFERENCES = st.lists(st.sampled_from(("yes", "no", "a cat", "two")), min_size=1, max_size=10)


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


@given(st.text(min_size=1), st.lists(st.text(min_size=1), min_size=1, max_size=12))
def test_vqa_accuracy_is_a_share_and_zero_without_a_match(
    answer: str, references: list[str]
) -> None:
    assert 0.0 <= vqa_accuracy(answer, references) <= exact_match(answer, references)


@given(answer=WORDS, reference=WORDS)
def test_a_single_reference_makes_the_scores_equal(answer: str, reference: str) -> None:
    assert vqa_accuracy(answer, [reference]) == exact_match(answer, [reference])
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


def predicted(source: str, answer: str, *truths: str) -> Prediction:
    return Prediction(
        where="",
        source=source,
        group=source,
        question="",
        answer=answer,
        references=truths,
        correct=exact_match(answer, truths),
        images=(),
    )


def test_accuracy_by_source() -> None:
    predictions = [predicted("b", "x", "x"), predicted("a", "x", "y"), predicted("b", "x", "y")]
    assert accuracy_by_source(predictions) == {"a": (0.0, 1), "b": (0.5, 2)}


def test_balanced_accuracy_does_not_reward_the_frequent_answer() -> None:
    always_no = [predicted("a", "no", "no")] * 9 + [predicted("a", "no", "yes")]
    assert balanced_accuracy(always_no) == 0.5
    assert accuracy_by_source(always_no) == {"a": (0.9, 10)}


def test_balanced_accuracy_takes_ways_to_write_an_answer_for_one_class() -> None:
    written_differently = [predicted("a", "no", truth) for truth in ("No", "no", "no.", "NO")]
    assert balanced_accuracy([*written_differently, predicted("a", "no", "yes")]) == 0.5
    assert balanced_accuracy([*written_differently, predicted("a", "yes", "yes")]) == 1.0


@given(num_yes=st.integers(1, 50), num_no=st.integers(1, 50))
def test_always_the_same_answer_is_worth_one_half(num_yes: int, num_no: int) -> None:
    always_yes = [predicted("a", "yes", "yes")] * num_yes + [predicted("a", "yes", "no")] * num_no
    assert balanced_accuracy(always_yes) == 0.5


@pytest.mark.parametrize(
    ("truths", "balanced"),
    [
        ([("yes!",), ("no",)], 1.0),
        ([("A  dog.",), ("the DOG",), ("cat",)], 1.0),
        ([("two",), ("2",), ("3",)], 1.0),
        ([("no", "No", "no."), ("Yes",)], 1.0),
        ([("red",), ("green",), ("blue",)], 1.0),
        ([("no",), ("No",), ("NO!",)], None),
        ([("yes", "no"), ("no",), ("yes",)], None),
        ([("yes",), ("no",), ()], None),
        ([("yes",)], None),
        ([], None),
    ],
)
def test_classes_are_the_true_answers_as_they_are_compared(
    truths: list[tuple[str, ...]], balanced: float | None
) -> None:
    """With one class, or a row of no class, the mean over classes says nothing."""
    assert balanced_accuracy(predicted("a", (*own, "")[0], *own) for own in truths) == balanced


def test_a_class_counts_once_however_its_rows_are_written() -> None:
    rows = [predicted("a", "no", truth) for truth in ("No", "no", "no!")] + [
        predicted("a", "no", "yes", "Yes.")
    ]
    assert balanced_accuracy(rows) == 0.5


def test_baselines_that_never_look() -> None:
    train = [
        ("Is it red?", "no"),
        ("Is it red?", "no"),
        ("Is it red?", "yes"),
        ("Is it blue?", "yes"),
        ("Which shape?", "circle"),
        ("Which colour?", "red"),
    ]
    source_of = {
        "Is it red?": "yes_no",
        "Is it blue?": "yes_no",
        "Which shape?": "shape",
        "Never seen?": "other",
    }
    assert majority_answers(train, source_of=source_of) == {
        "Is it red?": "no",  # no and yes are equally frequent: the first in order
        "Is it blue?": "no",
        "Which shape?": "circle",
    }
    assert lookup_answers(train) == {
        "Is it red?": "no",
        "Is it blue?": "yes",
        "Which shape?": "circle",
        "Which colour?": "red",
    }
