"""What a reply of llama.cpp's server says, also where it leaves steps out."""

from pathlib import Path
from typing import Any

import pytest

from smolvlm.errors import ConfigError
from smolvlm.export import llama_cpp
from smolvlm.export.llama_cpp import answer_from, llama_cpp_answers
from smolvlm.export.proof_prompts import proof_prompts

END = 9


def reply(tokens: list[int], told: list[int]) -> dict[str, Any]:
    steps = [
        {
            "id": token,
            "logprob": -0.5,
            "top_logprobs": [{"id": token, "logprob": -0.5}, {"id": 77, "logprob": -2.0}],
        }
        for token in told
    ]
    return {
        "choices": [{"logprobs": {"content": steps}}],
        "usage": {"prompt_tokens": 31},
        "__verbose": {"tokens": tokens},
    }


def test_every_step_has_its_likeliest_tokens() -> None:
    found = answer_from(reply([5, 6], [5, 6]), end_of_turn=END)
    assert (found.num_prompt_tokens, found.token_ids) == (31, (5, 6))
    assert found.top_logprobs == ({5: -0.5, 77: -2.0}, {6: -0.5, 77: -2.0})


def test_a_step_that_is_left_out_is_empty_and_the_others_keep_their_places() -> None:
    found = answer_from(reply([5, 6, 7], [6, 7]), end_of_turn=END)
    assert found.token_ids == (5, 6, 7)
    assert [sorted(top) for top in found.top_logprobs] == [[], [6, 77], [7, 77]]


def test_the_end_of_the_turn_is_no_part_of_the_answer() -> None:
    assert answer_from(reply([5, END], [5, END]), end_of_turn=END).token_ids == (5,)
    empty = reply([END], []) | {"choices": [{"logprobs": None}]}
    assert answer_from(empty, end_of_turn=END).token_ids == ()


def test_a_process_that_dies_is_an_error_of_the_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash of llama.cpp is a signal to its process and a sentence here."""
    monkeypatch.setattr(llama_cpp.sys, "executable", "/bin/false")
    file = tmp_path / "model-f16.gguf"
    with pytest.raises(ConfigError, match=r"model-f16\.gguf: llama\.cpp ended with status"):
        llama_cpp_answers(file, file, proof_prompts(), context_tokens=256, end_of_turn=END)
