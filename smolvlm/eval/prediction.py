"""One evaluated row, and accuracy over many of them.

In: rows with their answers. Out: shares of right answers, by source and by true answer.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from smolvlm.eval.metrics.exact_match import normalize_answer


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenScores:
    """The tokens that would be learned of a row, predicted with the true text before each."""

    loss: float
    """Summed, nats."""
    num_right: int
    """Those that were the most probable token."""
    num_tokens: int


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
    """1 for right, 0 for wrong, or a share of agreement: the first of its source's metrics."""
    images: tuple[str, ...]
    """Names of its pictures."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """The row's worth by each metric of its source."""
    tokens: TokenScores | None = None
    """What the model made of the true answer; None where that was not asked."""
    key: str = ""
    """Digest of model, settings and prompt that the answer belongs to; empty where none is kept."""


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
