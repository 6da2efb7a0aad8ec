"""Exact match: an answer equals one of the references, both normalised.

In: texts. Out: 1 or 0. The normalisation is this project's own, made for answers of a sentence or
less; `vqa.py` has the one that VQA results are published with.
"""

import re
from collections.abc import Sequence

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = re.compile(r"(?<!\d)[^\w\s]|[^\w\s](?!\d)")
_NUMBERS = {
    word: str(number)
    for number, word in enumerate(
        ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    )
}


def normalize_answer(text: str) -> str:
    """Return an answer as it is compared: lower case, digits, no articles and punctuation.

    A point or comma between digits stays: "3.5" is not "35".
    """
    words = _PUNCTUATION.sub(" ", text.lower().strip())
    words = _ARTICLES.sub(" ", words)
    return " ".join(_NUMBERS.get(word, word) for word in words.split())


def exact_match(answer: str, references: Sequence[str]) -> float:
    """Return 1 where the answer equals some reference after normalisation, else 0."""
    return float(
        normalize_answer(answer) in {normalize_answer(reference) for reference in references}
    )
