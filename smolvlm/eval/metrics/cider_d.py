"""CIDEr-D (Vedantam et al. 2015): captions, against several references each.

In: captions as texts. Out: 0 to 10 (tables often print a hundred times it). Captions are compared
by their n-grams of one to four words, each weighed by how rare it is among the references of all
rows, so a score belongs to its set of rows: over a part of them it is another.

    score = 10 * mean over n = 1..4 and references of
            sum_g min(h_g, r_g) r_g / (|h| |r|) * exp(-(len h - len r)^2 / (2 * 6^2))

with h_g = count of g * log(rows / rows whose references have g).
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

MAX_ORDER = 4
SIGMA = 6.0
"""Of the penalty for a caption of another length, in n-grams of two words."""
_TOKENS = re.compile(
    r"(?:dr|mr|mrs|ms|st|mt|jr|sr|vs|ave|gen|sgt|capt|rev|prof|sen|gov|inc|co|corp|ltd)\.(?=\s|,|$)|"
    r"no\.(?=\s*\d)|(?:[^\W\d_]\.){2,}|"  # abbreviations keep their point
    r"o'clock|can(?=not\b)|gon(?=na\b)|got(?=ta\b)|wan(?=na\b)|"
    r"(?:(?<!\S)-)?\d+(?:[.,:/]\d+)+(?:e-?\d+)?|n't\b|'(?:s|m|d|ll|re|ve)\b|"
    r"\w+?(?=n't\b)|\w+(?:[-/]\w+)*|[^\w\s]"
)
_BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
"""The published evaluation drops these names in capitals, and has lower case by then: they stay."""
_DROPPED = frozenset("'`.?!,:-;\"…’‘“”–—")
"""Signs that are no words."""

Gram = tuple[str, ...]


def caption_tokens(caption: str) -> list[str]:
    """Return a caption's words as the published evaluation's tokeniser cuts most captions.

    Lower case, no punctuation, `dog's` as `dog 's`, `don't` as `do n't`. The published tokeniser is
    a Java program with thousands of rules; these are the ones that captions meet.
    """
    found: list[str] = _TOKENS.findall(caption.lower())
    return [_BRACKETS.get(token, token) for token in found if token not in _DROPPED]


def cider_d(answers: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Return the mean of `cider_d_rows`.

    Raises:
        ValueError: there are no rows, or a row has no reference.
    """
    rows = cider_d_rows(answers, references)
    return sum(rows) / len(rows)


def cider_d_rows(answers: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """Return the score of each row, 0 to 10.

    With one row alone no n-gram is rare, and all scores are 0.

    Args:
        answers: one a row.
        references: of each row; rows may have different numbers of them.

    Raises:
        ValueError: there are no rows, or a row has no reference.
    """
    if not answers or not all(references):
        raise ValueError("CIDEr-D needs rows, each with a reference")
    true = [[ngram_counts(caption_tokens(text)) for text in own] for own in references]
    said = [ngram_counts(caption_tokens(text)) for text in answers]
    return scores_of_counts(said, true)


def ngram_counts(tokens: Sequence[str]) -> Counter[Gram]:
    """Return how often each n-gram of one to four words occurs."""
    return Counter(
        tuple(tokens[start : start + order])
        for order in range(1, MAX_ORDER + 1)
        for start in range(len(tokens) - order + 1)
    )


def scores_of_counts(
    said: Sequence[Counter[Gram]], true: Sequence[Sequence[Counter[Gram]]]
) -> list[float]:
    """Return the score of each row from its counted n-grams."""
    num_rows_with = Counter(gram for own in true for gram in set().union(*own))
    weights = {gram: math.log(len(true) / count) for gram, count in num_rows_with.items()}
    unseen = math.log(len(true))
    scores: list[float] = []
    for counts, own in zip(said, true, strict=True):
        answer = _Weighed(counts, weights, unseen)
        similar = sum(answer.similarity(_Weighed(other, weights, unseen)) for other in own)
        scores.append(10 * similar / (MAX_ORDER * len(own)))
    return scores


class _Weighed:
    """A caption's n-grams, weighed, by their order."""

    def __init__(self, counts: Counter[Gram], weights: Mapping[Gram, float], unseen: float) -> None:
        self.by_order: list[dict[Gram, float]] = [{} for _ in range(MAX_ORDER)]
        for gram, count in counts.items():
            self.by_order[len(gram) - 1][gram] = count * weights.get(gram, unseen)
        self.norms = [_norm(values.values()) for values in self.by_order]
        self.length = sum(count for gram, count in counts.items() if len(gram) == 2)

    def similarity(self, reference: "_Weighed") -> float:
        """Return the clipped cosines, summed over the orders, less the penalty for length."""
        total = 0.0
        for order, own in enumerate(self.by_order):
            other = reference.by_order[order]
            product = sum(
                min(value, other[gram]) * other[gram]
                for gram, value in own.items()
                if gram in other
            )
            norms = self.norms[order] * reference.norms[order]
            total += product / norms if norms else product
        return total * math.exp(-((self.length - reference.length) ** 2) / (2 * SIGMA**2))


def _norm(values: Iterable[float]) -> float:
    return math.sqrt(sum(value * value for value in values))
