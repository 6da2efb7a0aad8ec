"""How right an answer is: exact match and VQA accuracy, pure functions of strings.

VQA accuracy (Antol et al. 2015): an answer is worth min(1, matching annotators / 3), averaged over
leaving each annotator out in turn. With a single reference both are the same: 1 or 0.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = re.compile(r"(?<!\d)[^\w\s]|[^\w\s](?!\d)")
_NUMBERS = {
    word: str(number)
    for number, word in enumerate(
        ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    )
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """One evaluated row."""

    where: str
    source: str
    group: str
    """What the report counts it under."""
    question: str
    answer: str
    """What the model said."""
    references: tuple[str, ...]
    """Accepted answers, the row's own first."""
    correct: float
    """1 for right, 0 for wrong, or a share of agreement."""
    images: tuple[str, ...]
    """Names of its pictures."""


def normalize_answer(text: str) -> str:
    """Return an answer as it is compared: lower case, digits, no articles and punctuation.

    A point or comma between digits stays: "3.5" is not "35".
    """
    words = _PUNCTUATION.sub(" ", text.lower().strip())
    words = _ARTICLES.sub(" ", words)
    return " ".join(_NUMBERS.get(word, word) for word in words.split())


def exact_match(answer: str, references: Sequence[str]) -> float:
    """Return 1 where the answer equals some reference after normalisation."""
    return float(
        normalize_answer(answer) in {normalize_answer(reference) for reference in references}
    )


def vqa_accuracy(answer: str, references: Sequence[str]) -> float:
    """Return the VQA accuracy of an answer, 0 to 1.

    Raises:
        ValueError: there are no references.
    """
    if not references:
        raise ValueError("an answer needs references to be compared with")
    normalized = normalize_answer(answer)
    matches = [normalize_answer(reference) == normalized for reference in references]
    if len(references) == 1:
        return float(matches[0])
    left_out = [min(1.0, (sum(matches) - match) / 3) for match in matches]
    return sum(left_out) / len(left_out)


def accuracy_by_source(predictions: Iterable[Prediction]) -> dict[str, tuple[float, int]]:
    """Return source -> (share answered right, rows)."""
    scores: dict[str, list[float]] = defaultdict(list)
    for prediction in predictions:
        scores[prediction.source].append(prediction.correct)
    return {
        source: (sum(values) / len(values), len(values))
        for source, values in sorted(scores.items())
    }


def true_answer(prediction: Prediction) -> str | None:
    """Return the one true answer, normalised; None without one, or where references disagree."""
    answers = {normalize_answer(reference) for reference in prediction.references}
    return answers.pop() if len(answers) == 1 else None


def balanced_accuracy(predictions: Iterable[Prediction]) -> float | None:
    """Return the mean over the distinct true answers of the share of their rows answered right.

    Answers are distinct as exact match compares them: `No`, `no.` and `NO` are one. None where all
    rows have the same true answer, and where some row has not exactly one.
    """
    scores: dict[str | None, list[float]] = defaultdict(list)
    for prediction in predictions:
        scores[true_answer(prediction)].append(prediction.correct)
    if None in scores or len(scores) < 2:
        return None
    return sum(sum(values) / len(values) for values in scores.values()) / len(scores)


def majority_answers(
    train: Iterable[tuple[str, str]], *, source_of: Mapping[str, str]
) -> dict[str, str]:
    """Return question -> the most frequent training answer among questions of the same source.

    Args:
        train: (question, answer) pairs.
        source_of: which source each question of the held-out set belongs to; other questions are
            ignored.
    """
    counts: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for question, answer in train:
        if question in source_of:
            counts[source_of[question]][answer] += 1
    best = {source: _most_frequent(answers) for source, answers in counts.items()}
    return {question: best[source] for question, source in source_of.items() if source in best}


def lookup_answers(train: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return question -> its most frequent training answer: known without the picture."""
    counts: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for question, answer in train:
        counts[question][answer] += 1
    return {question: _most_frequent(answers) for question, answers in counts.items()}


def _most_frequent(counts: Mapping[str, int]) -> str:
    """Return the answer that occurs most often; of equals the first in the alphabet."""
    return max(sorted(counts), key=counts.__getitem__)
