"""BLEU: sacrebleu's own, over rows with different numbers of references."""

import pytest
from sacrebleu import corpus_bleu

from smolvlm.eval.metrics.bleu import bleu, bleu_counts, bleu_of_counts

SAID = ["The cat sat on the mat.", "A dog runs", "two men ride their bikes", "", "Hello, world!"]
TRUE = [
    ["A cat sat on the mat .", "The cat is on the mat."],
    ["The dog is running"],
    ["two men ride bikes", "Two people on bicycles", "men on bikes"],
    ["nothing"],
    ["Hello world!", "hello, world"],
]


def test_it_is_sacrebleus_corpus_score() -> None:
    streams = [[own[place] if place < len(own) else None for own in TRUE] for place in range(3)]
    assert bleu(SAID, TRUE) == pytest.approx(corpus_bleu(SAID, streams).score, abs=1e-12)  # type: ignore[arg-type]
    assert 0 < bleu(SAID, TRUE) < 100


def test_counts_add_up_and_any_part_of_the_rows_has_a_score() -> None:
    counts = bleu_counts(SAID, TRUE)
    assert counts.shape == (5, 10)
    assert bleu_of_counts(counts[:2].sum(0)) == pytest.approx(bleu(SAID[:2], TRUE[:2]))
    assert bleu(["a b c d e"], [["a b c d e"]]) == pytest.approx(100)


@pytest.mark.parametrize(("said", "true"), [([], []), (["a"], [[]])])
def test_rows_and_references_are_needed(said: list[str], true: list[list[str]]) -> None:
    with pytest.raises(ValueError, match="reference"):
        bleu(said, true)
