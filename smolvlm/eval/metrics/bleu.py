"""BLEU (Papineni et al. 2002) as sacrebleu computes it (Post 2018): translations, transcripts.

In: answers and references as texts. Out: 0 to 100, over all rows: n-grams are counted first and
divided afterwards, so BLEU is no mean over rows. sacrebleu's defaults: tokens of `13a`, case kept,
exponential smoothing.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64
from sacrebleu.metrics.bleu import BLEU

MAX_ORDER = 4


def bleu(answers: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Return corpus BLEU, 0 to 100.

    Args:
        answers: one a row.
        references: of each row; rows may have different numbers of them.

    Raises:
        ValueError: there are no rows, or a row has no reference.
    """
    if not answers or not all(references):
        raise ValueError("BLEU needs rows, each with a reference")
    return bleu_of_counts(bleu_counts(answers, references).sum(axis=0))


def bleu_counts(
    answers: Sequence[str], references: Sequence[Sequence[str]]
) -> Float64[np.ndarray, "row count"]:
    """Return what BLEU adds up over rows: lengths of answer and closest reference, then right and
    all n-grams of each order."""
    scorer = BLEU(effective_order=False)
    rows: list[list[float]] = []
    for answer, own in zip(answers, references, strict=True):
        score = scorer.corpus_score([answer], [[reference] for reference in own])
        rows.append([score.sys_len, score.ref_len, *score.counts, *score.totals])
    return np.array(rows, np.float64)


def bleu_of_counts(counts: Float64[np.ndarray, " count"]) -> float:
    """Return the BLEU of summed counts, 0 to 100."""
    answer_length, reference_length, *ngrams = (round(count) for count in counts)
    right, total = ngrams[:MAX_ORDER], ngrams[MAX_ORDER:]
    return BLEU.compute_bleu(right, total, answer_length, reference_length).score
