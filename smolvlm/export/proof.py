"""What an exported model says, against what the stock model says: the comparison and its record.

In: answers of both to the same prompts, token by token. Out: a `Proof`, written as `proof.json`.

Two answers are alike where the prompts have as many tokens, the greedy tokens are equal, and the
log-probabilities of the likely tokens differ by no more than the bound. Greedy tokens may part at
a tie: two tokens whose log-probabilities, in the stock model, are nearer to each other than twice
the bound, which differences within the bound can turn round. From there on the two answer different
prompts, and nothing is compared.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from smolvlm.disk.atomic_files import write_text
from smolvlm.export.proof_prompts import ProofPrompt

MAX_NEW_TOKENS = 8
"""Length of the answers that are compared."""
TOP = 5
"""Likeliest tokens a step that a runtime tells of."""
LIKELY_NATS = 7.0
"""A token this much less likely than the likeliest, a thousandth of it, decides no answer."""
PROOF_FILE = "proof.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """The stock model's greedy answer to one prompt."""

    num_prompt_tokens: int
    token_ids: tuple[int, ...]
    """Without the end of the turn."""
    logprobs: Float[Tensor, "step vocabulary"]
    """Of every token, at each step."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """A runtime's greedy answer to one prompt."""

    num_prompt_tokens: int
    token_ids: tuple[int, ...]
    """Without the end of the turn."""
    top_logprobs: tuple[Mapping[int, float], ...]
    """At each step, of the likeliest tokens; empty where the runtime tells none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """One prompt's two answers."""

    prompt: ProofPrompt
    reference: Reference
    answer: Answer
    greedy_equal: bool
    is_tie: bool
    """Whether the greedy tokens part where two are as likely as each other, within the bound."""
    max_logprob_difference: float
    num_compared: int
    """Steps up to which both had the same prompt."""

    def holds(self, bound: float) -> bool:
        """Say whether the two answers are alike."""
        return (
            self.reference.num_prompt_tokens == self.answer.num_prompt_tokens
            and (self.greedy_equal or self.is_tie)
            and self.max_logprob_difference <= bound
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Proof:
    """What was compared, and whether the export answers as the model does."""

    runtime: str
    """Name and version; or what would have run it."""
    bound: float
    """Largest difference of log-probabilities, in nats."""
    comparisons: tuple[Comparison, ...] = ()
    not_run: str | None = None
    """Why nothing was compared."""

    @property
    def holds(self) -> bool | None:
        """Whether all answers are alike; None where nothing was compared."""
        if self.not_run is not None:
            return None
        return all(comparison.holds(self.bound) for comparison in self.comparisons)

    def record(self) -> dict[str, Any]:
        """Return what `proof.json` holds."""
        found: dict[str, Any] = {"runtime": self.runtime, "bound": self.bound}
        found["prompts"] = [_record(each, self.bound) for each in self.comparisons]
        if self.not_run is not None:
            found["not_run"] = self.not_run
        return found | {"holds": self.holds}


def compare(
    prompt: ProofPrompt, reference: Reference, answer: Answer, *, bound: float
) -> Comparison:
    """Compare two answers to one prompt.

    Args:
        prompt: which both answered.
        reference: the stock model's.
        answer: the runtime's.
        bound: on the differences of log-probabilities, in nats.
    """
    pairs = list(zip(reference.token_ids, answer.token_ids, strict=False))
    parting = next((step for step, (one, other) in enumerate(pairs) if one != other), None)
    num_compared = len(pairs) if parting is None else parting + 1
    difference = 0.0
    for step in range(num_compared):
        likely = _likely(answer.top_logprobs[step])
        expected = reference.logprobs[step]
        found = [abs(float(expected[token]) - value) for token, value in likely.items()]
        difference = max([difference, *found])
    is_tie = False
    if parting is not None:
        one, other = (float(reference.logprobs[parting][token]) for token in pairs[parting])
        is_tie = one - other <= 2 * bound
    return Comparison(
        prompt=prompt,
        reference=reference,
        answer=answer,
        greedy_equal=reference.token_ids == answer.token_ids,
        is_tie=is_tie,
        max_logprob_difference=difference,
        num_compared=num_compared,
    )


def write_proof(folder: Path, proof: Proof, prompts: Sequence[ProofPrompt]) -> None:
    """Write `proof.json`, and the pictures of its prompts into `proof/`."""
    write_text(folder / PROOF_FILE, json.dumps(proof.record(), indent=1, ensure_ascii=False) + "\n")
    pictures = folder / "proof"
    pictures.mkdir(exist_ok=True)
    for prompt in prompts:
        (pictures / f"{prompt.name}.png").write_bytes(prompt.png)


def proof_text(proof: Proof) -> str:
    """Return what a person reads of a proof."""
    if proof.not_run is not None:
        return f"not proved: {proof.not_run}"
    lines: list[str] = []
    for each in proof.comparisons:
        tokens = f"{each.reference.num_prompt_tokens} prompt tokens"
        if each.reference.num_prompt_tokens != each.answer.num_prompt_tokens:
            tokens += f" in transformers, {each.answer.num_prompt_tokens} in the runtime"
        length = len(each.reference.token_ids)
        same = f"{length} of {length} answer tokens equal"
        if not each.greedy_equal:
            common = each.num_compared - 1 if each.num_compared else 0
            same = f"{common} of {length} answer tokens equal" + (", then a tie" * each.is_tie)
        difference = f"log-probabilities within {each.max_logprob_difference:.2g}"
        lines.append(f"  {each.prompt.name}: {tokens}, {same}, {difference}")
    verdict = "answers as transformers does" if proof.holds else "DRIFTS from transformers"
    return "\n".join([f"{proof.runtime} {verdict} (bound {proof.bound:g}):", *lines])


def _likely(top: Mapping[int, float]) -> dict[int, float]:
    least = max(top.values(), default=0.0) - LIKELY_NATS
    return {token: value for token, value in top.items() if value >= least}


def _record(each: Comparison, bound: float) -> dict[str, Any]:
    return {
        "prompt": each.prompt.question,
        "picture": f"proof/{each.prompt.name}.png",
        "picture_first": each.prompt.is_picture_first,
        "prompt_tokens": each.reference.num_prompt_tokens,
        "runtime_prompt_tokens": each.answer.num_prompt_tokens,
        "tokens": list(each.reference.token_ids),
        "runtime_tokens": list(each.answer.token_ids),
        "greedy_equal": each.greedy_equal,
        "is_tie": each.is_tie,
        "max_logprob_difference": each.max_logprob_difference,
        "steps_compared": each.num_compared,
        "holds": each.holds(bound),
    }


def top_of(logprobs: Float[Tensor, " vocabulary"]) -> dict[int, float]:
    """Return the likeliest tokens of one step."""
    values, tokens = torch.topk(logprobs, TOP)
    return dict(zip(tokens.tolist(), values.tolist(), strict=True))
