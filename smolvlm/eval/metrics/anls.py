"""ANLS, average normalised Levenshtein similarity (Biten et al. 2019): DocVQA, InfographicVQA,
ST-VQA.

In: texts. Out: a share from 0 to 1. A misread letter costs little, another answer everything.
"""

from collections.abc import Sequence

from rapidfuzz.distance import Levenshtein

THRESHOLD = 0.5
"""Similarity below which an answer is worth nothing."""


def anls(answer: str, references: Sequence[str]) -> float:
    """Return the largest similarity to a reference, 1 - distance / length; 0 where below one half.

    The distance is between the texts in lower case with single spaces, the length that of the
    longer text as it was written: so does the evaluation of the Robust Reading Competition. (At
    exactly one half the paper's formula gives 0, and the evaluation one half.)

    Raises:
        ValueError: there are no references.
    """
    if not references:
        raise ValueError("an answer needs references to be compared with")
    similarity = max(_similarity(answer, reference) for reference in references)
    return similarity if similarity >= THRESHOLD else 0.0


def _similarity(answer: str, reference: str) -> float:
    longest = max(len(answer.upper()), len(reference.upper()))
    return 1 - Levenshtein.distance(_plain(answer), _plain(reference)) / longest if longest else 1.0


def _plain(text: str) -> str:
    return " ".join(text.lower().split())
