"""Relaxed accuracy (Methani et al. 2020, Masry et al. 2022): ChartQA, PlotQA.

In: texts. Out: 1 or 0. A number may be off by 5 %; any other answer has to be the reference.
"""

from collections.abc import Sequence

TOLERANCE = 0.05
"""Of the reference's own size."""


def relaxed_accuracy(answer: str, references: Sequence[str]) -> float:
    """Return 1 where the answer is within 5 % of a number, or equals a text but for its case.

    "12 %" is no number, "12%" is 0.12. A reference of 0 allows no deviation: it is compared as
    text. Nothing else is normalised: " 5 apples" is not "5".

    Raises:
        ValueError: there are no references.
    """
    if not references:
        raise ValueError("an answer needs references to be compared with")
    return float(any(_is_close(answer, reference) for reference in references))


def _is_close(answer: str, reference: str) -> bool:
    said, true = _number(answer), _number(reference)
    if said is None or not true:
        return answer.lower() == reference.lower()
    return abs(said - true) / abs(true) <= TOLERANCE


def _number(text: str) -> float | None:
    is_percentage = text.endswith("%")
    try:
        number = float(text.rstrip("%") if is_percentage else text)
    except ValueError:
        return None
    return number / 100 if is_percentage else number
