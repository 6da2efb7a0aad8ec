"""Counting right answers by group."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smolvlm.eval.prediction import Prediction
from smolvlm.report.accuracy import accuracies, accuracy_of, weighted_overall, wilson_interval


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


@pytest.mark.parametrize(
    ("right", "num_rows", "low", "high"),
    [
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (5, 10, 0.2366, 0.7634),
        (81, 263, 0.2553, 0.3662),
        (1, 1, 0.2065, 1),
    ],
)
def test_wilson_intervals_are_those_of_the_tables(
    right: int, num_rows: int, low: float, high: float
) -> None:
    assert wilson_interval(right / num_rows, num_rows) == pytest.approx((low, high), abs=5e-5)


@given(share=st.floats(0, 1), num_rows=st.integers(1, 10**7))
def test_the_interval_holds_the_share_within_0_and_1(share: float, num_rows: int) -> None:
    low, high = wilson_interval(share, num_rows)
    assert 0 <= low <= share <= high <= 1


@pytest.mark.parametrize(("share", "num_rows"), [(0.5, 0), (1.01, 3), (-0.1, 3)])
def test_what_is_no_share_is_refused(share: float, num_rows: int) -> None:
    with pytest.raises(ValueError, match="a share of"):
        wilson_interval(share, num_rows)


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
