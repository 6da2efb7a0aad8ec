"""Counting right answers by group."""

from typing import Any

import pytest

from smolvlm.eval.prediction import Prediction
from smolvlm.report.accuracy import accuracies, accuracy_of, weighted_overall


def row(
    correct: float, *, group: str = "shape", truth: tuple[str, ...] = ("circle",)
) -> Prediction:
    values: dict[str, Any] = {
        "where": "eval.jsonl:1",
        "source": "eval",
        "question": "?",
        "answer": "",
        "images": (),
    }
    return Prediction(**values, references=truth, correct=correct, group=group)


def test_each_group_has_its_own_mean_and_number() -> None:
    rows = [
        row(1, group="b"),
        row(0, group="a"),
        row(1, group="a"),
        row(0.5, group="a"),
        row(0.5, group="a"),
    ]
    found = accuracies(rows)
    assert [(one.group, one.num_rows, one.value) for one in found] == [("a", 4, 0.5), ("b", 1, 1.0)]
    assert accuracies([]) == ()


def test_a_group_without_rows_is_a_broken_contract() -> None:
    with pytest.raises(ValueError, match="no rows in group shape"):
        accuracy_of([], group="shape")


def test_balanced_is_for_yes_and_no_alone() -> None:
    def balanced(*rows: Prediction) -> float | None:
        return accuracy_of(rows, group="all").balanced

    assert (
        balanced(row(1, truth=("Yes.",)), row(1, truth=("NO",)), row(0, truth=("no", "No"))) == 0.75
    )
    assert balanced(row(1, truth=("yes!",)), row(1, truth=("no",))) == 1.0
    assert balanced(row(1, truth=("yes",))) is None
    assert balanced(row(1, truth=("yes",)), row(1, truth=("circle",))) is None
    assert (
        balanced(row(1, truth=("yes",)), row(1, truth=("no",)), row(1, truth=("circle",))) is None
    )
    assert balanced(row(1, truth=("yes", "no")), row(1, truth=("no",))) is None
    assert balanced(row(1, truth=())) is None


def test_a_baseline_over_all_rows_weights_its_groups() -> None:
    assert weighted_overall({"a": 0.5, "b": 1.0}, {"a": 3, "b": 1}) == 0.625
    assert weighted_overall({"a": 0.5}, {"a": 3, "b": 1}) is None
    assert weighted_overall({"overall": 0.7}, {"a": 3}) == 0.7
    assert weighted_overall({"a": 0.5}, {}) is None
