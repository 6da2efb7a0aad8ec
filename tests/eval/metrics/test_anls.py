"""ANLS: worked examples, and laws that hold for any text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smolvlm.eval.metrics.anls import THRESHOLD, anls

TEXTS = st.text(alphabet="abc 12", max_size=8)


@pytest.mark.parametrize(
    ("answer", "references", "value"),
    [
        ("Paris", ["paris"], 1.0),
        ("Pariss", ["Paris"], 1 - 1 / 6),
        ("ab", ["ax"], 0.5),
        ("abc", ["axy"], 0.0),
        ("London", ["Paris", "Lyon", "Londn"], 1 - 1 / 6),
        (" two   words ", ["two words"], 1.0),
        ("", [""], 1.0),
        ("", ["x"], 0.0),
    ],
)
def test_worked_examples(answer: str, references: list[str], value: float) -> None:
    assert anls(answer, references) == pytest.approx(value)


@given(answer=TEXTS, references=st.lists(TEXTS, min_size=1, max_size=4))
def test_it_is_nothing_or_at_least_one_half_and_another_reference_never_hurts(
    answer: str, references: list[str]
) -> None:
    value = anls(answer, references)
    assert value == 0 or THRESHOLD <= value <= 1
    assert anls(answer, [*references, answer]) == 1.0
    assert value == max(anls(answer, [reference]) for reference in references)


def test_references_are_needed() -> None:
    with pytest.raises(ValueError, match="references"):
        anls("yes", [])
