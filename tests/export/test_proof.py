"""When two answers are alike: bounds, ties, lengths of prompts, and what is written down."""

import json
import math
from pathlib import Path

import pytest
import torch

from smolvlm.export.proof import Answer, Proof, Reference, compare, proof_text, top_of, write_proof
from smolvlm.export.proof_prompts import proof_prompts

PROMPT = proof_prompts()[0]
BOUND = 0.1


def logprobs(*rows: list[float]) -> torch.Tensor:
    """Log-probabilities of a vocabulary of four tokens, a row a step."""
    return torch.tensor(rows).log()


LOGPROBS = logprobs([0.6, 0.3, 0.0999, 0.0001], [0.1, 0.46, 0.43, 0.01])
REFERENCE = Reference(num_prompt_tokens=9, token_ids=(0, 1), logprobs=LOGPROBS)


def answer(
    *tokens: int, shift: float = 0.0, rare_shift: float = 0.0, num_prompt_tokens: int = 9
) -> Answer:
    """An answer whose log-probabilities are the reference's, shifted: all, or the rare ones'."""
    steps = [{token: float(value) for token, value in enumerate(row)} for row in LOGPROBS]
    moved = tuple(
        {
            token: value + shift + (rare_shift if value < math.log(1e-3) else 0)
            for token, value in step.items()
        }
        for step in steps[: len(tokens)]
    )
    return Answer(num_prompt_tokens=num_prompt_tokens, token_ids=tokens, top_logprobs=moved)


@pytest.mark.parametrize(
    ("given", "holds"),
    [
        (answer(0, 1), True),
        (answer(0, 1, shift=0.09), True),
        (answer(0, 1, shift=-0.11), False),
        (answer(0, 1, rare_shift=1.0), True),
        (answer(0, 1, num_prompt_tokens=10), False),
        (answer(0, 2), True),  # 0.46 and 0.43: a tie within the bound
        (answer(1, 1), False),  # 0.6 and 0.3 are none
        (answer(0), False),
    ],
)
def test_alike_is_as_many_tokens_the_same_ones_and_the_bound(given: Answer, holds: bool) -> None:
    assert compare(PROMPT, REFERENCE, given, bound=BOUND).holds(BOUND) is holds


def test_nothing_is_compared_behind_a_parting() -> None:
    parted = compare(PROMPT, REFERENCE, answer(1, 3, shift=0.05), bound=BOUND)
    assert (parted.greedy_equal, parted.is_tie, parted.num_compared) == (False, False, 1)
    assert parted.max_logprob_difference == pytest.approx(0.05, abs=1e-6)
    tied = compare(PROMPT, REFERENCE, answer(0, 2), bound=BOUND)
    assert (tied.greedy_equal, tied.is_tie, tied.num_compared) == (False, True, 2)


def test_an_empty_answer_to_an_empty_answer_is_alike() -> None:
    reference = Reference(num_prompt_tokens=9, token_ids=(), logprobs=LOGPROBS[:0])
    found = compare(PROMPT, reference, answer(), bound=BOUND)
    assert found.holds(BOUND)
    assert not compare(PROMPT, reference, answer(0), bound=BOUND).holds(BOUND)


def test_the_record_says_what_was_compared(tmp_path: Path) -> None:
    comparisons = tuple(
        compare(PROMPT, REFERENCE, given, bound=BOUND) for given in (answer(0, 1), answer(1, 1))
    )
    proof = Proof(runtime="runtime 1", bound=BOUND, comparisons=comparisons)
    write_proof(tmp_path, proof, [PROMPT])
    record = json.loads((tmp_path / "proof.json").read_text())
    assert (record["runtime"], record["bound"], record["holds"]) == ("runtime 1", BOUND, False)
    assert [each["greedy_equal"] for each in record["prompts"]] == [True, False]
    assert record["prompts"][0]["prompt"] == PROMPT.question
    assert record["prompts"][0]["max_logprob_difference"] == 0
    assert (tmp_path / record["prompts"][0]["picture"]).read_bytes() == PROMPT.png
    text = proof_text(proof)
    assert text.startswith("runtime 1 DRIFTS from transformers (bound 0.1):")
    assert "0 of 2 answer tokens equal, log-probabilities" in text


def test_what_did_not_run_neither_holds_nor_fails() -> None:
    proof = Proof(runtime="runtime", bound=BOUND, not_run="it is not here")
    assert proof.holds is None
    assert proof.record() == {
        "runtime": "runtime",
        "bound": BOUND,
        "prompts": [],
        "not_run": "it is not here",
        "holds": None,
    }
    assert proof_text(proof) == "not proved: it is not here"


def test_the_top_of_a_step_is_its_likeliest_tokens() -> None:
    values = torch.tensor([0.0, 3.0, 1.0, 5.0, 2.0, 4.0, -1.0])
    assert top_of(values) == {3: 5.0, 5: 4.0, 1: 3.0, 4: 2.0, 2: 1.0}
