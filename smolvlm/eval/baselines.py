"""Answers without a look at the picture: what a model has to beat.

In: questions and answers of the training set. Out: an answer for each held-out question.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping


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
