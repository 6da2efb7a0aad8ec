"""What llama.cpp answers to the prompts of a proof, through the package `xllamacpp`.

In: the two GGUF files. Out: an `Answer` a prompt. llama.cpp runs in a process of its own
(`llama_cpp_process.py`), so that what ends it does not end an export, with the settings that it has
by itself: what a user of the files gets is what is compared.
"""

import base64
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from smolvlm.errors import ConfigError
from smolvlm.export.proof import MAX_NEW_TOKENS, TOP, Answer
from smolvlm.export.proof_prompts import ProofPrompt
from smolvlm.parent_process import Parent

PACKAGE = "xllamacpp"


def llama_cpp_answers(
    text_file: Path,
    mmproj_file: Path,
    asked: Sequence[ProofPrompt],
    *,
    context_tokens: int,
    end_of_turn: int,
) -> list[Answer]:
    """Answer greedily with llama.cpp.

    Args:
        text_file: GGUF of the language model.
        mmproj_file: GGUF of vision tower and connector.
        asked: the questions.
        context_tokens: what the longest prompt and its answer take.
        end_of_turn: the token that ends an answer.

    Raises:
        ConfigError: llama.cpp does not load the files, or ends.
    """
    with TemporaryDirectory() as folder:
        task, result = Path(folder, "task.json"), Path(folder, "result.json")
        content = {
            "text_file": str(text_file),
            "mmproj_file": str(mmproj_file),
            "context_tokens": context_tokens,
            "num_threads": torch.get_num_threads(),
            "requests": [_request(each) for each in asked],
        }
        task.write_text(json.dumps(content), encoding="utf-8")
        command = [sys.executable, "-m", "smolvlm.export.llama_cpp_process", str(task), str(result)]
        finished = subprocess.run(
            Parent.here().command(command),
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        if finished.returncode != 0 or not result.is_file():
            lines = finished.stderr.strip().splitlines() or ["it said nothing"]
            raise ConfigError(
                f"llama.cpp ended with status {finished.returncode}: {lines[-1]}",
                where=str(text_file.name),
                fix="try another version of xllamacpp, or --no-proof",
            )
        replies = json.loads(result.read_text(encoding="utf-8"))
        return [answer_from(reply, end_of_turn=end_of_turn) for reply in replies]


def answer_from(reply: Mapping[str, Any], *, end_of_turn: int) -> Answer:
    """Return what a reply of llama.cpp's server says.

    It tells no log-probabilities of a token that ends amid a character of several bytes (seen with
    xllamacpp 2026.10): those steps are empty.

    Args:
        reply: with log-probabilities, and verbose.
        end_of_turn: the token that ends an answer.
    """
    token_ids = [int(token) for token in reply["__verbose"]["tokens"]]
    if token_ids[-1:] == [end_of_turn]:
        token_ids.pop()
    told = list((reply["choices"][0].get("logprobs") or {"content": []})["content"])
    top_logprobs: list[dict[int, float]] = []
    for token in token_ids:
        is_told = bool(told) and int(told[0]["id"]) == token
        top = told.pop(0)["top_logprobs"] if is_told else ()
        top_logprobs.append({int(each["id"]): float(each["logprob"]) for each in top})
    return Answer(
        num_prompt_tokens=int(reply["usage"]["prompt_tokens"]),
        token_ids=tuple(token_ids),
        top_logprobs=tuple(top_logprobs),
    )


def _request(asked: ProofPrompt) -> dict[str, Any]:
    data = base64.b64encode(asked.png).decode("ascii")
    picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}
    content = [picture, {"type": "text", "text": asked.question}]
    return {
        "messages": [
            {"role": "user", "content": content if asked.is_picture_first else content[::-1]}
        ],
        "max_tokens": MAX_NEW_TOKENS,
        "temperature": 0,
        "logprobs": True,
        "top_logprobs": TOP,
        "return_tokens": True,
        "verbose": True,
    }
