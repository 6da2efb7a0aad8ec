"""The process that llama.cpp runs in: `python -m smolvlm.export.llama_cpp_process TASK RESULT`.

In: a JSON file that names the two GGUF files and holds the requests. Out: a JSON file with its
replies. It listens on a loopback port, as xllamacpp always does, and calls no other address.
"""

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any


def answer(task: dict[str, Any]) -> list[dict[str, Any]]:
    """Return llama.cpp's replies to the requests of a task."""
    xllamacpp: Any = import_module("xllamacpp")  # optional
    params = xllamacpp.CommonParams()
    params.model.path = task["text_file"]
    params.mmproj.path = task["mmproj_file"]
    params.n_ctx = task["context_tokens"]
    params.n_parallel = 1
    params.warmup = False
    params.verbosity = 1
    for threads in (params.cpuparams, params.cpuparams_batch):
        threads.n_threads = task["num_threads"]
    server: Any = xllamacpp.Server(params)
    replies: list[dict[str, Any]] = []
    for request in task["requests"]:
        reply = server.handle_chat_completions(request)
        if "choices" not in reply:
            raise SystemExit(f"llama.cpp answers: {json.dumps(reply)}")
        replies.append(reply)
    return replies


if __name__ == "__main__":
    read, written = map(Path, sys.argv[1:])
    replies = answer(json.loads(read.read_text(encoding="utf-8")))
    written.write_text(json.dumps(replies), encoding="utf-8")
