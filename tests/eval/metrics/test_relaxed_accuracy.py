"""Relaxed accuracy: five per cent, and where it does not apply."""

import pytest

from smolvlm.eval.metrics.relaxed_accuracy import relaxed_accuracy


@pytest.mark.parametrize(
    ("answer", "reference", "is_right"),
    [
        ("104.9", "100", True),
        ("105.1", "100", False),
        ("-104.9", "-100", True),
        ("100", "-100", False),
        ("50%", "0.5", True),
        ("50%", "50", False),
        ("0.01", "0", False),
        ("0", "0", True),
        ("0.0", "0", False),
        ("germany", "Germany", True),
        ("Germany.", "Germany", False),
        ("2019", "year", False),
        ("nan", "5", False),
    ],
)
def test_one_reference(answer: str, reference: str, is_right: bool) -> None:
    assert relaxed_accuracy(answer, [reference]) == is_right


def test_any_reference_will_do_and_one_is_needed() -> None:
    assert relaxed_accuracy("5", ["six", "5.1"]) == 1.0
    with pytest.raises(ValueError, match="references"):
        relaxed_accuracy("5", [])
