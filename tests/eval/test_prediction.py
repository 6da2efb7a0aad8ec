"""Accuracy over rows: by source, and balanced over true answers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smolvlm.eval.metrics.exact_match import exact_match
from smolvlm.eval.prediction import Prediction, accuracy_by_source, balanced_accuracy


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
