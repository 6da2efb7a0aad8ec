"""Answers by group: accuracy with its interval, balanced accuracy of yes/no questions.

Pure functions. Where nearly all answers are the same, plain accuracy rewards saying that one; the
balanced accuracy of a yes/no group, the mean of the share of right answers among the yes questions
and among the no questions, is one half for anything that always says the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from smolvlm.eval.intervals import wilson_interval
from smolvlm.eval.prediction import Prediction, balanced_accuracy, true_answer

YES_NO = frozenset({"yes", "no"})
OVERALL = "overall"


@dataclass(frozen=True, kw_only=True, slots=True)
class Accuracy:
    """How well the rows of one group were answered; all values are shares of 1."""

    group: str
    num_rows: int
    value: float
    """Mean of `correct`."""
    low: float
    """Lower end of the 95 % Wilson interval."""
    high: float
    balanced: float | None
    """Mean of the recalls of yes and of no; None where other answers occur, or only one of the
    two."""


def accuracies(rows: Sequence[Prediction]) -> tuple[Accuracy, ...]:
    """Return the accuracy of each group, in the order of their names."""
    groups: dict[str, list[Prediction]] = {}
    for row in rows:
        groups.setdefault(row.group, []).append(row)
    return tuple(accuracy_of(groups[name], group=name) for name in sorted(groups))


def accuracy_of(rows: Sequence[Prediction], *, group: str) -> Accuracy:
    """Return the accuracy of all `rows` together.

    Raises:
        ValueError: there are no rows.
    """
    if not rows:
        raise ValueError(f"no rows in group {group}")
    value = sum(row.correct for row in rows) / len(rows)
    low, high = wilson_interval(value, len(rows))
    balanced = balanced_accuracy(rows) if {true_answer(row) for row in rows} == YES_NO else None
    return Accuracy(
        group=group, num_rows=len(rows), value=value, low=low, high=high, balanced=balanced
    )


def weighted_overall(by_group: Mapping[str, float], sizes: Mapping[str, int]) -> float | None:
    """Return a baseline's accuracy over all rows: its `overall`, or its groups by their sizes.

    None where it does not say all groups.
    """
    if OVERALL in by_group and OVERALL not in sizes:
        return by_group[OVERALL]
    if not sizes or not set(sizes) <= set(by_group):
        return None
    return sum(by_group[group] * size for group, size in sizes.items()) / sum(sizes.values())
